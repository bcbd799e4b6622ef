"""Projections: what the history says about accounts, ids, holds and time, kept so that it can be asked.

Files only: they are fed entries of a log that were verified, and answer from files of their own and from the log.
Start reading in ``projections.py`` (what is kept, and how it is made durable), then ``queries.py`` (what can be asked).
``kernels.py`` takes events in, ``tables.py`` has what it looks up; ``span.py`` is the index of a run of events,
in memory or in a file, ``merging.py`` makes large ones of small ones, ``searching.py`` finds in them, ``store.py`` is
RocksDB, which holds what must change together. Deleting the folder costs a rebuild, and nothing else.
"""
