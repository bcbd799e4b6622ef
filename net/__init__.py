"""Everything that touches a socket: the client SDK (``client/``), the node's reactor and server (``server/``), and how
nodes of a group reach each other (``peers/``). ``placement/`` is where slot maps are kept for the nodes of all shards.
``gateway/`` is HTTP in front of it all.

``embedded.py`` is the engine in the caller's own process: the SDK over a reactor, without a socket.

May import ``protocol`` and ``engine``; ``client/`` imports ``protocol`` alone, and ``gateway/`` those two, so that a
program that only talks to a node loads neither Numba nor RocksDB.
"""
