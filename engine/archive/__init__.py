"""What of a data folder is kept elsewhere, and how a folder is made of it again: files only, whatever carries them.

`manifest.py` is what a snapshot says of itself; `source.py` finds the files of a consistent state and executes what
lies behind its checkpoint, which gives the digest; `building.py` makes a folder of such files, executes again, and
lets it be a data folder only if that gives the same digest; `forgetting.py` leaves out of it what has been erased
since. `sealed.py` has the segments that are kept alone, and come back, `dropping.py` decides which of them may leave
the disk. ``bezant.net.archive`` carries the files. May import all of the engine.
"""
