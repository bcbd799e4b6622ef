"""Receipts out of a data folder, of a node that runs or is at rest: nothing is written there but the key, once."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np

from bezant.engine.following import Follower, open_follower
from bezant.engine.log.entry import Entry
from bezant.engine.log.storage import Directory
from bezant.engine.node_file import shard_of_folder
from bezant.engine.proofs.issuing import Issuer, TreeFolder
from bezant.engine.proofs.keys import open_key
from bezant.engine.replica import shard_directory
from bezant.protocol.errors import StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import EVENT, id_words, position_of

TREE_FOLDER: Final = "proofs"
"""Name of the folder of the tree, within that of the reader."""
READER_FOLDER: Final = "reader"


class FolderIssuer:
    """Receipts out of a data folder; close it in the end."""

    def __init__(self, data_directory: Path, shard: int | None = None) -> None:
        """`shard` is that of the folder, unless given.

        Raises `StorageError` if there is no log, and what opening one raises.
        """
        shard = shard_of_folder(data_directory) if shard is None else shard
        directory = shard_directory(data_directory, shard)
        follower = open_follower(directory, shard)
        if follower is None:
            raise StorageError(f"{data_directory} has no log")
        self.follower: Follower = follower
        self._shard = shard
        self._folder = TreeFolder(tree_directory(directory), shard, follower.log_id, lambda _: None)
        self._data_directory = data_directory
        self.issuer: Issuer | None = None

    def read(self, identifier: bytes | None, on_progress: Callable[[int], None]) -> tuple[Issuer, list[int]]:
        """Read the log as far as it is published: what gives receipts, and the positions of the events with an id.

        Without an id only what a reader has not hashed yet is read. `on_progress` is told the events done.
        """
        stored = self._folder.loaded
        follower = self.follower
        if stored is not None and stored.point.index > follower.published_index:
            stored = None
        issuer = self.issuer = Issuer(
            follower.read_events,
            lambda: open_key(self._data_directory),
            shard=self._shard,
            log_id=follower.log_id,
            stored=stored,
        )
        follower.begin(stored.point if stored is not None and identifier is None else None)
        found: list[int] = []
        while entries := follower.take():
            issuer.take_in(entries)
            if identifier is not None:
                found += [position_of(self._shard, sequence) for sequence in _sequences_of(entries, identifier)]
            on_progress(follower.last_sequence)
        return issuer, found

    def close(self) -> None:
        """Let go of the files."""
        self.follower.close()


def tree_directory(shard_folder: Directory) -> Directory:
    """Where the tree of a shard is kept."""
    return shard_folder.subdirectory(READER_FOLDER).subdirectory(TREE_FOLDER)


def _sequences_of(entries: list[Entry], identifier: bytes) -> list[int]:
    head, tail = id_words(identifier)
    found: list[int] = []
    for entry in entries:
        if entry.header.kind == EntryKind.EVENTS:
            events = np.frombuffer(entry.body, EVENT)
            places = np.flatnonzero((events["id_head"] == head) & (events["id_tail"] == tail))
            found += [entry.header.first_sequence + int(place) for place in places]
    return found
