"""The log: the immutable list of events, in segment files. ``README.md`` states what is promised; start there.

``log.py`` is what others call, ``reading.py`` its half that only reads; below them ``group.py`` (what one sync makes
durable), ``receiving.py`` (entries of a leader), ``cutting.py`` (entries that go again), ``recovery.py`` (what to
believe after a crash), ``resume.py`` (how to begin behind a checkpoint), ``history.py`` and ``seeking.py`` (events read
back), ``archived.py`` and ``archive_cache.py`` (segments that have left for an archive), ``spans.py`` (entries read
back), ``terms.py`` (which term they have), ``preparing.py`` (segments made ahead),
``segment_folder.py`` (which segments there are), ``segment.py`` (one file), ``checking.py`` (what an entry must be
like), ``entry.py`` (one entry), ``control.py`` (the watermark), ``vote.py`` (the term and the vote) and ``storage.py``
(files and folders).
"""
