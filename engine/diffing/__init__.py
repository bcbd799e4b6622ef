"""Two versions of Bezant over one history: where the first event lies that they do not make alike.

`executing.py` executes a history and tells a digest of each entry's events; its source is handed to the interpreter of
either installation, so it uses only what every version has had. `comparing.py` runs two of them side by side and, where
they part, has both show the events. May import ``engine.log``, ``engine.replica`` and ``protocol``.
"""
