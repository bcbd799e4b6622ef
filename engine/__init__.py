"""The engine: ledger, log, Raft, and what ties them (`replica.py`, `member.py`).

Imports only ``bezant.protocol``; I/O on files alone.

``compiled.py`` says how kernels are compiled and cached, ``hashing.py`` has the hashes that kernels need; ``ledger/``
moves money, ``log/`` makes it last, ``replica.py`` joins one of each. ``projections/`` answer questions about the past.
``placement/`` says which shard has which slots.
``ids/`` are the ids that no longer fit in memory, ``checkpoints/`` the states that a start begins from, ``replay.py``
takes an entry of history into a ledger.
``raft/`` decides what is committed, without files or clocks; ``member.py`` joins it with a replica, and
``opening.py`` opens a data folder as one, whose ``node_file.py`` says which. ``ahead.py`` walks a log in a thread,
``skimming.py`` takes entries apart that somebody else has written. ``verify.py`` proves a history; ``doctor.py`` says
in words what is in a data folder (``diagnosis.py``: the structure of that, ``examining_walk.py`` and
``examining_checkpoints.py``: what it looks at).
"""
