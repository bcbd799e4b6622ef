"""Everything that touches a socket: the client SDK (``client/``), and the node's reactor and server beside it.

May import ``protocol`` and ``engine``; ``client/`` imports ``protocol`` alone, so that a program that only talks to a
node loads neither Numba nor RocksDB.
"""
