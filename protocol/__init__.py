"""The wire and disk formats of Bezant: a room without I/O that imports no other room.

Start with ``README.md`` (the specification), then ``records.py`` (byte layouts), ``kinds.py`` and ``codes.py``
(the numbers in them), ``frames.py`` (how records travel) and ``messages.py`` (control messages in msgpack).
``names.py`` and ``money.py`` turn what people write into ids and integers.
"""
