"""Claim: whatever a crash, a damaged file or another log leaves in the folder, the answers are the right ones again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bezant.engine.ids.run import BLOCK_SIZE
from bezant.engine.log.storage import Directory
from bezant.engine.projections import files
from bezant.engine.projections.answers import Range
from bezant.engine.projections.projections import ProjectionSettings
from bezant.engine.projections.queries import AsOf
from bezant.engine.projections.reading import EventReader
from bezant.engine.projections.span import PAGE_SIZE, span_name
from bezant.engine.projections.store import Store
from bezant.protocol.errors import CorruptLog, DataFolderInUse, LedgerError, StorageError
from bezant.protocol.records import Records, position_of

from ..ledger.pair import Registration
from ..ledger.writer import write_history
from .fed import TINY, Fed

SEED = 3


@pytest.fixture(scope="module")
def history() -> list[Any]:
    pair, _ = write_history(SEED, fetches=False)
    return pair.history[:260]


def fed_with(path: Path, history: list[Any], **settings: Any) -> Fed:
    fed = Fed(path, TINY._replace(**settings), shard=SEED)
    feed(fed, history)
    return fed


def feed(fed: Fed, history: list[Any]) -> None:
    for part in history:
        if isinstance(part, Registration):
            fed.register(part.code, part.decimals)
        elif len(part.events):
            fed.add(part.events)


def answers_of(fed: Fed) -> list[Any]:
    """A few answers of every sort, as of several positions."""
    questions, found = fed.questions, []
    view = questions.view()
    rows = view.tables.accounts[: view.account_count]
    ids = rows[:, :2].copy()
    for sequence in range(0, view.sequence + 1, max(view.sequence // 7, 1)):
        as_of = AsOf(position=position_of(fed.shard, sequence))
        moment = questions.moment(view, as_of)
        found.append(questions.accounts(view, ids, moment).records.tobytes())
        holds = questions.open_holds(as_of, limit=4096)
        found.append((holds.sequences.tolist(), holds.remaining.tolist()))
        found.append(questions.totals(view, moment))
        for row in ids[:4].tolist():
            page = questions.statement(view, (row[0], row[1]), moment, Range(limit=4096))
            found.append(page.sequences.tolist())
        event = fed.events[max(sequence - 1, 0)]
        named = questions.transfer(view, [(int(event["id_head"]), int(event["id_tail"]))], moment, Range(limit=4096))
        found.append(named.sequences.tolist())
    return found


@pytest.fixture(scope="module")
def expected(history: list[Any], tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    fed = fed_with(tmp_path_factory.mktemp("whole") / "p", history)
    fed.projections.settle()
    found = answers_of(fed)
    fed.close()
    return found


def test_deleting_the_folder_costs_a_rebuild_and_nothing_else(
    tmp_path: Path, history: list[Any], expected: list[Any]
) -> None:
    fed = fed_with(tmp_path / "p", history)
    fed.close()
    shutil.rmtree(tmp_path / "p")
    fed.open()
    fed.feed_again()
    assert answers_of(fed) == expected
    fed.close()
    assert fed.notices == []


class Crash(Exception):
    """The process ends here."""


CRASHES: dict[str, Callable[[pytest.MonkeyPatch, int], None]] = {}


def crash_at(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def keep(function: Callable[..., Any]) -> Callable[..., Any]:
        CRASHES[name] = function
        return function

    return keep


def _failing(real: Callable[..., Any], calls: int, *, before: bool) -> Callable[..., Any]:
    """A function that crashes at its n-th call, before or after it has done its work."""
    left = [calls]

    def call(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0 and before:
            raise Crash
        found = real(*arguments, **named)
        if left[0] == 0:
            raise Crash
        return found

    return call


@crash_at("behind an index file")
def _(patch: pytest.MonkeyPatch, calls: int) -> None:
    patch.setattr(files, "write_span", _failing(files.write_span, calls, before=False))


@crash_at("before the ids are written")
def _(patch: pytest.MonkeyPatch, calls: int) -> None:
    patch.setattr(files, "write_run", _failing(files.write_run, calls, before=True))


@crash_at("before the database is written")
def _(patch: pytest.MonkeyPatch, calls: int) -> None:
    patch.setattr(Store, "write", _failing(Store.write, calls, before=True))


@crash_at("behind the database")
def _(patch: pytest.MonkeyPatch, calls: int) -> None:
    patch.setattr(Store, "write", _failing(Store.write, calls, before=False))


@crash_at("while old files are removed")
def _(patch: pytest.MonkeyPatch, calls: int) -> None:
    patch.setattr(Directory, "remove", _failing(Directory.remove, calls, before=True))


@pytest.mark.parametrize("calls", [1, 4])
@pytest.mark.parametrize("where", CRASHES)
def test_a_crash_anywhere_in_a_seal_or_a_merge_loses_nothing(
    tmp_path: Path, history: list[Any], expected: list[Any], where: str, calls: int
) -> None:
    """The process ends at the n-th such place; what it leaves is opened again, and fed from the log."""
    fed = Fed(tmp_path / "p", TINY, shard=SEED)
    with pytest.MonkeyPatch.context() as patch:
        CRASHES[where](patch, calls)
        with pytest.raises(Crash):
            feed(fed, history)
            fed.projections.settle()
    fed.close()  # gives the lock and the database back, as the end of a process does, and writes nothing
    again = Fed(tmp_path / "p", TINY, shard=SEED)
    sealed = again.projections.sequence
    feed(again, history)
    again.projections.settle()
    assert sealed < again.projections.sequence
    assert answers_of(again) == expected
    named = {span_name(span.number) for span in again.projections.view().spans if span.number}
    assert {path.name for path in (tmp_path / "p").glob("index-*")} == named
    again.close()
    assert again.notices == []


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("which", [0, -1])
@pytest.mark.parametrize("damage", ["a byte", "the page", "cut", "gone", "ids"])
def test_a_damaged_file_is_told_and_made_again(
    tmp_path: Path, history: list[Any], expected: list[Any], damage: str, which: int
) -> None:
    fed = fed_with(tmp_path / "p", history)
    fed.projections.settle()
    fed.close()
    path = sorted((tmp_path / "p").glob("ids-*" if damage == "ids" else "index-*"))[which]
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:-8])
    else:
        offset = {"a byte": PAGE_SIZE + 1, "the page": 9, "ids": path.stat().st_size - 4000}[damage]
        flip(path, offset if damage != "ids" else path.stat().st_size - PAGE_SIZE)
    fed.open()
    assert fed.projections.sequence < len(fed.events)
    assert len(fed.notices) == 1
    assert path.name in fed.notices[0]
    assert "made again from the log" in fed.notices[0]
    fed.feed_again()
    assert answers_of(fed) == expected
    fed.close()


def test_a_block_of_ids_that_is_damaged_is_made_again_once_somebody_asks_for_it(
    tmp_path: Path, history: list[Any], expected: list[Any]
) -> None:
    """Blocks are not read at a start, so whoever asked again would meet the damage at each."""
    fed = fed_with(tmp_path / "p", history)
    fed.projections.settle()
    fed.close()
    for path in (tmp_path / "p").glob("ids-*"):
        # All of them: in which one an id lies that is asked for differs. A fence is 8 bytes; the filter, behind
        # the blocks, takes less than one.
        for block in range((path.stat().st_size - PAGE_SIZE) // (BLOCK_SIZE + 8)):
            flip(path, block * BLOCK_SIZE + 100)
    fed.open()
    assert fed.notices == []
    fed.feed_again()
    with pytest.raises(CorruptLog, match="block of ids is damaged; it is made again from the log"):
        answers_of(fed)
    fed.close()
    fed.open()
    assert "made again from the log" in fed.notices[0]
    fed.feed_again()
    assert answers_of(fed) == expected
    fed.close()


def test_a_block_of_ids_that_is_damaged_is_made_again_once_it_is_to_be_merged(
    tmp_path: Path, history: list[Any], expected: list[Any]
) -> None:
    """Or no merge would ever come to an end, at any start."""
    fed = fed_with(tmp_path / "p", history[:60])
    fed.projections.settle()
    fed.close()
    for path in (tmp_path / "p").glob("ids-*"):
        flip(path, 100)
    whole = fed_with(tmp_path / "q", history)
    whole.close()
    fed.entries, fed.events = whole.entries, whole.events
    fed.open()
    with pytest.raises(CorruptLog, match="block of ids is damaged; it is made again from the log when the reader is"):
        fed.feed_again()
        fed.projections.settle()
    fed.close()
    fed.open()
    assert "made again from the log" in fed.notices[0]
    fed.feed_again()
    assert answers_of(fed) == expected
    fed.close()


def test_what_is_damaged_while_it_is_open_gives_an_error_and_never_a_wrong_answer(
    tmp_path: Path, history: list[Any]
) -> None:
    fed = fed_with(tmp_path / "p", history)
    fed.projections.settle()
    view = fed.questions.view()
    span = view.spans[0]
    checksums = span.lists.checksums.copy()
    checksums[0] ^= 1
    damaged = view._replace(spans=(span._replace(lists=span.lists._replace(checksums=checksums)), *view.spans[1:]))
    with pytest.raises(CorruptLog, match="is damaged"):
        fed.questions.reader.read(damaged, np.array([1]))
    fed.close()
    fed.open()
    assert len(fed.notices) == 1  # the file was removed, so that it is made again
    fed.feed_again()
    fed.close()


def test_of_many_spans_the_one_that_is_damaged_is_told(tmp_path: Path, history: list[Any]) -> None:
    """Whichever event of whichever span it is, and that one alone is made again."""
    fed = fed_with(tmp_path / "p", history)
    view = fed.questions.view()
    spans, reader = view.spans, fed.questions.reader
    assert len(spans) > 2
    ends = [sequence for span in spans for sequence in (span.first_sequence, span.last_sequence)]
    some = np.unique(np.array([1, 2, *ends, *range(1, view.sequence, 3)], np.int64))
    assert reader.read(view, some).tobytes() == fed.read_events(some).tobytes()
    condemned: list[Any] = []
    fed.questions.reader = reader = EventReader(fed.read_events, condemned.append)
    for number, span in enumerate(spans):
        for place in {0, span.event_count - 1}:
            checksums = span.lists.checksums.copy()
            checksums[place] ^= 1
            damaged = span._replace(lists=span.lists._replace(checksums=checksums))
            with pytest.raises(CorruptLog, match=f"events from {span.first_sequence} on is damaged"):
                reader.read(view._replace(spans=(*spans[:number], damaged, *spans[number + 1 :])), some)
            assert condemned.pop() is damaged and not condemned
    with pytest.raises(LedgerError, match=f"event {spans[-1].first_sequence} is behind"):
        reader.read(view._replace(spans=spans[:-1]), some)
    fed.close()


def test_what_is_of_another_log_is_told_and_made_anew(tmp_path: Path, history: list[Any], expected: list[Any]) -> None:
    fed_with(tmp_path / "p", history).close()
    other = Fed(tmp_path / "p", TINY, shard=SEED, log_id="f" * 16)
    assert other.projections.sequence == 0
    assert len(other.notices) == 1
    assert "is of log 0123456789abcdef" in other.notices[0]
    feed(other, history)
    assert answers_of(other) == expected
    other.close()


def test_other_settings_make_the_folder_anew(tmp_path: Path, history: list[Any], expected: list[Any]) -> None:
    fed_with(tmp_path / "p", history).close()
    other = Fed(tmp_path / "p", ProjectionSettings(block_events=16, blocks_per_seal=4, fan_in=4), shard=SEED)
    assert "other settings" in other.notices[0]
    feed(other, history)
    assert answers_of(other) == expected
    other.close()


@pytest.mark.parametrize("name", ["CURRENT", "MANIFEST-*"])
def test_a_database_that_cannot_be_read_is_told_and_made_anew(
    tmp_path: Path, history: list[Any], expected: list[Any], name: str
) -> None:
    fed = fed_with(tmp_path / "p", history)
    fed.projections.settle()
    fed.close()
    for path in (tmp_path / "p" / "store").glob(name):
        path.write_bytes(b"nothing of the sort")
    fed.open()
    assert len(fed.notices) == 1
    assert fed.projections.sequence == 0
    fed.feed_again()
    assert answers_of(fed) == expected
    fed.close()


def test_a_full_disk_is_told_to_whoever_feeds(
    tmp_path: Path, history: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space")

    fed = Fed(tmp_path / "p", TINY, shard=SEED)
    monkeypatch.setattr(files, "write_span", full)
    with pytest.raises(StorageError, match="no space"):
        feed(fed, history)
    fed.close()


def test_a_disk_that_is_nearly_full_is_left_to_the_log(
    tmp_path: Path, history: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Directory, "free_bytes", lambda _: files.FREE_SPACE_FLOOR)
    fed = Fed(tmp_path / "p", TINY, shard=SEED)
    with pytest.raises(StorageError, match="512 MiB would be free"):
        feed(fed, history)
    fed.close()
    assert not list((tmp_path / "p").glob("index-*"))


def test_merges_wait_for_room(
    tmp_path: Path, history: list[Any], expected: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without room nothing is merged; with room again the next seal merges it all."""
    fed = Fed(tmp_path / "p", TINY, shard=SEED)
    with monkeypatch.context() as patch:
        patch.setattr(files.Files, "_merge_spans", lambda *_: False)
        feed(fed, history)
        fed.projections.settle()
    assert len(list((tmp_path / "p").glob("index-*"))) > 10
    assert answers_of(fed) == expected
    fed.close()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    fed = Fed(tmp_path / "p", TINY, shard=SEED)
    with pytest.raises(DataFolderInUse):
        Fed(tmp_path / "p", TINY, shard=SEED)
    fed.close()


def test_a_gap_in_what_is_fed_is_refused(tmp_path: Path, history: list[Any]) -> None:
    fed = Fed(tmp_path / "p", TINY, shard=SEED)
    events: Records = next(part.events for part in history if not isinstance(part, Registration) and len(part.events))
    fed.events = np.concatenate([events, events])
    with pytest.raises(LedgerError, match="is given behind event 0"):
        fed.add(events)
    fed.close()


def test_an_event_of_an_account_that_nobody_opened_stops_it(tmp_path: Path, history: list[Any]) -> None:
    fed = Fed(tmp_path / "p", TINY, shard=SEED)
    fed.register("EUR", 2)
    parts = [part.events for part in history if not isinstance(part, Registration)]
    moves = np.concatenate([events[(events["kind"] == 2) & (events["result"] == 0)] for events in parts])
    with pytest.raises(CorruptLog, match="event 1 names an account"):
        fed.add(moves[:1])
    fed.close()
