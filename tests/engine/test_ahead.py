"""A log is walked in another thread, a bounded way ahead, and nothing else changes."""

import threading
from collections.abc import Iterator

import pytest

from bezant.engine.ahead import CHUNK_ENTRIES_MAX, CHUNK_EVENTS_MIN, CHUNKS_AHEAD_MAX, Ahead
from bezant.engine.log.entry import HASH_NONE, Entry, EntryHeader
from bezant.protocol.errors import BezantError, CorruptLog

ENTRIES_AHEAD_MAX = CHUNKS_AHEAD_MAX * CHUNK_ENTRIES_MAX


def entries_of(count: int, error: BaseException | None = None, events: int = 1) -> Iterator[Entry]:
    header = EntryHeader(0, 0, 0, HASH_NONE, 0, 1, 1, 1, events, 0, 1, 2, 1, 1, 0)._replace(count=events)
    for number in range(count):
        yield Entry(header._replace(index=number), b"", b"")
    if error is not None:
        raise error


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("bezant-walk")]


@pytest.mark.parametrize("count", [0, 1, CHUNK_ENTRIES_MAX, 5 * ENTRIES_AHEAD_MAX])
@pytest.mark.parametrize("events", [1, CHUNK_EVENTS_MIN])
def test_reading_ahead_changes_nothing(count: int, events: int) -> None:
    with Ahead(entries_of(count, events=events)) as ahead:
        assert [entry.header.index for entry in ahead] == list(range(count))
    assert threads() == []


@pytest.mark.parametrize("count", [0, 3, CHUNK_ENTRIES_MAX, 5 * ENTRIES_AHEAD_MAX])
def test_an_error_comes_where_it_would_have_come(count: int) -> None:
    seen = []
    with pytest.raises(BezantError, match="rot"), Ahead(entries_of(count, CorruptLog("rot"))) as ahead:
        for entry in ahead:
            seen.append(entry.header.index)
    assert seen == list(range(count))
    assert threads() == []


@pytest.mark.parametrize(("events", "ahead_max"), [(1, ENTRIES_AHEAD_MAX), (CHUNK_EVENTS_MIN, CHUNKS_AHEAD_MAX)])
def test_not_more_is_read_ahead_than_is_said(events: int, ahead_max: int) -> None:
    read = 0

    def counted() -> Iterator[Entry]:
        nonlocal read
        for entry in entries_of(10 * ENTRIES_AHEAD_MAX, events=events):
            read += 1
            yield entry

    with Ahead(counted()) as ahead:
        for done in range(1, ENTRIES_AHEAD_MAX):
            next(ahead)
            assert read <= done + ahead_max
    assert threads() == []


def test_a_pause_ends_where_the_walk_stands_and_the_rest_follows() -> None:
    walked = 0

    def counted() -> Iterator[Entry]:
        nonlocal walked
        for entry in entries_of(3 * ENTRIES_AHEAD_MAX):
            walked += 1
            yield entry

    taken = []
    level = []
    with Ahead(counted()) as ahead:
        for entry in ahead:
            taken.append(entry.header.index)
            if entry.header.index in (0, ENTRIES_AHEAD_MAX + 5):
                ahead.pause()
            if ahead.is_level:
                level.append(len(taken))
                assert walked == len(taken)
    assert taken == list(range(3 * ENTRIES_AHEAD_MAX))
    assert len(level) == 2
