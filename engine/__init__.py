"""The engine: ledger, log and what ties them (`replica.py`). Imports only ``bezant.protocol``; I/O on files alone.

``compiled.py`` says how kernels are compiled and cached, ``hashing.py`` has the hashes that kernels need; ``ledger/``
moves money, ``log/`` makes it last, ``replica.py`` joins one of each. ``ids/`` are the ids that no longer fit in
memory, ``checkpoints/`` the states that a start begins from, ``replay.py`` takes an entry of history into a ledger.
``verify.py`` proves a history; ``doctor.py`` says in words what is in a data folder (``diagnosis.py``: the structure of
that, ``examining_walk.py`` and ``examining_checkpoints.py``: what it looks at).
"""
