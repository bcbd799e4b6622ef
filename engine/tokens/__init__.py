"""The tokens with which clients come in, and the acts of administrators: a part of what is replicated.

`table.py` is what a ledger knows of tokens, `changing.py` how the leader makes and revokes them, `acts.py` how it
writes down who asked for what; `audit.py` reads that out of a log again.
"""
