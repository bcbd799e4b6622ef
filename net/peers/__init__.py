"""How the nodes of a group reach each other: messages of Raft and the bytes of entries, over TCP.

Start with ``README.md``. ``transport.py`` is the front; behind it ``peer.py`` keeps a connection to each other member
and sends on it, ``accepted.py`` receives on those that others dialled, ``connection.py`` and ``inbox.py`` turn bytes
into frames, ``identity.py`` decides who is let in, and ``clocks.py`` compares clocks. May import ``protocol`` and the
client's way to read an address, and nothing of the engine.
"""
