"""Proofs that an event is in the history, for somebody who has nothing but a receipt: see `bezant.protocol.receipts`.

Over all events of a log lies a Merkle tree as in RFC 9162, section 2.1, with BLAKE3 as its hash: leaf number n is of
the event with sequence n + 1. An event is hashed with a salt of its own, so that the hashes in a receipt tell nothing
of the events beside it to those who guess.

`hashing.py` has the hash of many short inputs at a time, `leaves.py` what a leaf is made of, `tree.py` the tree, and
`store.py` what is kept of it on disk: the hash of every 256 events. What is not there, or damaged, is made again from
the log. `keys.py` has the key that a node signs with, `issuing.py` puts a receipt together, `offline.py` does so out of
a data folder. May import ``engine.log``, ``engine.following``, ``engine.compiled`` and ``protocol``.
"""
