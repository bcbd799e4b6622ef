"""Projections that are fed a history made up in memory, as a log would feed them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import numpy as np

from bezant.engine.log.entry import HASH_NONE, Entry, EntryHeader, encode_entry
from bezant.engine.log.storage import Directory
from bezant.engine.projections.projections import Projections, ProjectionSettings, open_projections
from bezant.engine.projections.queries import Questions
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import ControlEntry, Currency, encode_message
from bezant.protocol.records import EVENT, EVENT_SIZE, RULES_VERSION, Records, Words

LOG_ID: Final = "0123456789abcdef"
TINY: Final = ProjectionSettings(block_events=8, blocks_per_seal=2, fan_in=2)
"""Blocks of eight events, sealed by two, merged by two: a short history goes through everything."""


def entry_of(kind: EntryKind, index: int, first_sequence: int, body: bytes, count: int = 0) -> Entry:
    """An entry of which only what projections look at is filled in."""
    header = EntryHeader(0, 0, 0, HASH_NONE, *[0] * 11)._replace(
        kind=int(kind),
        index=index,
        first_sequence=first_sequence,
        count=count,
        body_size=len(body),
        rules_version=RULES_VERSION,
    )
    return encode_entry(header, body)


class Fed:
    """A history, the projections of it, and what answers questions about it."""

    def __init__(self, path: Path, settings: ProjectionSettings = TINY, shard: int = 0, log_id: str = LOG_ID) -> None:
        self.path, self.settings, self.shard, self.log_id = path, settings, shard, log_id
        self.entries: list[Entry] = []
        self.events: Records = np.zeros(0, EVENT)
        self.currencies: dict[str, int] = {}
        self.notices: list[str] = []
        self.open()

    def open(self) -> None:
        self.projections: Projections = open_projections(
            Directory(self.path),
            log_id=self.log_id,
            shard=self.shard,
            settings=self.settings,
            on_notice=self.notices.append,
        )
        self.questions = Questions(self.projections, self.read_events, self.shard)

    def read_events(self, sequences: Words, check_bodies: bool = True) -> Records:
        return self.events[sequences - 1]

    def register(self, code: str, decimals: int) -> None:
        self.currencies[code] = decimals
        body = encode_message(ControlEntry(currencies=[Currency(code, decimals)]))
        self.take(entry_of(EntryKind.CONTROL, len(self.entries) + 1, len(self.events) + 1, body))

    def add(self, events: Records) -> None:
        first = len(self.events) + 1
        self.events = np.concatenate([self.events, events])
        count = len(events)
        assert count * EVENT_SIZE == events.nbytes
        self.take(entry_of(EntryKind.EVENTS, len(self.entries) + 1, first, events.tobytes(), count))

    def take(self, entry: Entry) -> None:
        self.entries.append(entry)
        self.projections.apply(entry)

    def reopen(self, *, before: Iterable[Path] = ()) -> None:
        """Close; remove files; open again and feed what is missing."""
        self.projections.close()
        for path in before:
            path.unlink()
        self.open()
        self.feed_again()

    def feed_again(self) -> None:
        for entry in self.entries:
            self.projections.apply(entry)

    def close(self) -> None:
        self.projections.close()
