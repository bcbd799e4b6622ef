"""The wire and disk formats of Bezant: a room without I/O that imports no other room.

Start with ``README.md`` (the specification), then ``records.py`` (byte layouts), ``kinds.py`` and ``codes.py``
(the numbers in them), ``frames.py`` (how records travel), ``messages.py`` (control messages in msgpack) and
``peer_frames.py`` (what nodes of a group send each other). ``placement.py`` says which shard has which slot.
``names.py`` and ``money.py`` turn what people write into ids and integers.
"""
