"""Carries snapshots and segments to a folder or to any address that fsspec knows, and back.

`store.py` is the place where they are kept, `snapshots.py` what is done with snapshots, `segments.py` with segments of
the history, `fetching.py` a program that fetches one file for whoever reads the history. What is kept, and what is
believed of it, is decided in ``bezant.engine.archive``.

    snapshots/<position>-<digest>.json       a manifest, written last: a snapshot without one is none
    files/<BLAKE3 of the content>            the files of all snapshots and segments, each once
    segments/<log>/segment-<number>-<...>.json   which segment of which log a file is
"""
