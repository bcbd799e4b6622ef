"""The log: the immutable list of events, in segment files. ``README.md`` states what is promised; start there.

``log.py`` is what others call; below it ``group.py`` (what one sync makes durable), ``recovery.py`` (what to believe
after a crash), ``resume.py`` (how to begin behind a checkpoint), ``history.py`` and ``seeking.py`` (reading back),
``preparing.py`` (segments made ahead), ``segment_folder.py`` (which segments there are), ``segment.py`` (one file),
``entry.py`` (one entry), ``control.py`` (the watermark) and ``storage.py`` (files and folders).
"""
