"""The engine: ledger, log and what ties them (`replica.py`). Imports only ``bezant.protocol``; I/O on files alone.

``compiled.py`` says how kernels are compiled and cached, ``hashing.py`` has the hashes that kernels need; ``ledger/``
moves money, ``log/`` makes it last, ``replica.py`` joins one of each, ``verify.py`` proves a history.
"""
