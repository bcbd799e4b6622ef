"""Claim: after a crash every durable entry is there, a torn tail is set aside, and rot is refused and left as it is.

The table of `bezant.engine.log.recovery`, case by case. Damage "at" an entry is the first damage in the log.
"""

import re
from collections.abc import Callable, Generator, Iterable
from pathlib import Path
from typing import Final

import pytest
from typing_extensions import Buffer

from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory, LogFile
from bezant.protocol.errors import CorruptLog, StorageError
from bezant.protocol.records import ENTRY_HEADER_SIZE

from .crashes import (
    COUNT,
    FORGOTTEN,
    GROUPS,
    Damage,
    History,
    Remains,
    check_recovered,
    check_refused,
    write_history,
)
from .logs import SEGMENT_SIZE, Writer, contents, entry_size, open_entries

FIRST_OF_LAST_GROUP: Final = 5
DURABLE_BEFORE: Final = {1: 0, 2: 1, 3: 1, 4: 3, 5: 4, 6: 4, 7: 4}


# --- Torn tails: the control page speaks of the group before the last one

TORN: Final[dict[str, tuple[int, Damage]]] = {
    "its header": (5, lambda log: log.break_header(5)),
    "the checksum of its header": (5, lambda log: log.flip(5, 0)),
    "the last byte of its header": (5, lambda log: log.flip(5, ENTRY_HEADER_SIZE - 1)),
    "its header is lost": (5, lambda log: log.lose_header(5)),
    "half its header is lost": (5, lambda log: log.lose(5, ENTRY_HEADER_SIZE // 2, ENTRY_HEADER_SIZE)),
    "its body": (5, lambda log: log.break_body(5)),
    "its body is lost": (5, lambda log: log.lose(5, ENTRY_HEADER_SIZE)),
    "the end of its body is lost": (6, lambda log: log.lose(6, entry_size(2) - 8)),
    "all of it is lost, with whole entries behind": (5, lambda log: log.lose(5)),
    "the header of the second": (6, lambda log: log.break_header(6)),
    "the body of the second": (6, lambda log: log.break_body(6)),
    "the last": (7, lambda log: log.break_header(7)),
    "the body of the last": (7, lambda log: log.break_body(7)),
    "several": (5, lambda log: log.break_header(5).lose_header(6).break_body(7)),
    "the first, and the others are lost": (5, lambda log: log.break_body(5).lose_from(6)),
    "the second, and the last is lost": (6, lambda log: log.break_header(6).lose_from(7)),
    "one byte at the very end of the segment": (5, lambda log: log.lose_from(5).put(1, SEGMENT_SIZE - 1, b"\1")),
}


@pytest.mark.parametrize(("at", "damage"), TORN.values(), ids=TORN)
@pytest.mark.parametrize("control", ["of the group before", "forgotten"])
def test_a_torn_tail_is_set_aside(tmp_path: Path, history: History, at: int, damage: Damage, control: str) -> None:
    remains = damage(Remains.of(history, FORGOTTEN if control == "forgotten" else history.controls[-2]))
    check_recovered(tmp_path, remains, at, torn=remains.torn_tail(at))


@pytest.mark.parametrize("at", [5, 6, 7])
def test_a_group_that_was_lost_without_a_trace_is_the_end(tmp_path: Path, history: History, at: int) -> None:
    remains = Remains.of(history, history.controls[-2]).lose_from(at)
    check_recovered(tmp_path, remains, at, torn=b"")


def test_a_group_that_was_written_whole_and_never_acknowledged_is_kept(tmp_path: Path, history: History) -> None:
    check_recovered(tmp_path, Remains.of(history, history.controls[-2]), COUNT + 1, torn=b"")


def test_bytes_behind_the_last_entry_are_set_aside_even_after_a_clean_stop(tmp_path: Path, history: History) -> None:
    _, last = Remains.of(history, FORGOTTEN).where[COUNT]
    remains = Remains.of(history, history.controls[-1]).put(1, last.end + 1000, b"\0garbage")
    remains.where[COUNT + 1] = (1, last._replace(start=last.end))
    check_recovered(tmp_path, remains, COUNT + 1, torn=bytes(1001) + b"garbage")


def test_a_first_entry_may_be_torn_as_well(tmp_path: Path, history: History) -> None:
    remains = Remains.of(history, history.controls[0]).break_body(1).lose_from(2)
    check_recovered(tmp_path, remains, 1, torn=remains.torn_tail(1))


def test_what_was_set_aside_stays_when_the_same_place_is_torn_again(tmp_path: Path, history: History) -> None:
    """Two crashes at one place: neither loses what the other left."""
    set_aside = []
    for damage in (5, 6, 7):
        remains = Remains.of(history, history.controls[-2]).break_header(5).break_body(damage)
        remains.save(tmp_path)
        log, _ = open_entries(tmp_path)
        log.close()
        set_aside.append(remains.torn_tail(5))
    assert sorted(path.read_bytes() for path in tmp_path.glob("torn-*")) == sorted(set_aside)


def test_a_crash_while_the_torn_tail_is_zeroed(tmp_path: Path, history: History) -> None:
    """What was set aside before is kept, and what is left of the tail goes the same way."""
    remains = Remains.of(history, history.controls[-2]).break_header(5)
    remains.save(tmp_path)
    torn = remains.torn_tail(5)
    (tmp_path / "torn-before").write_bytes(torn)
    remains.lose(6)
    remains.save(tmp_path)
    log, entries = open_entries(tmp_path)
    log.close()
    assert len(entries) == 4
    kept = {path.read_bytes() for path in tmp_path.glob("torn-*")}
    assert kept == {torn, remains.torn_tail(5)}


@pytest.mark.parametrize("groups", range(len(GROUPS) + 1))
def test_the_page_of_an_earlier_clean_stop_does_not_speak_for_what_follows(tmp_path: Path, groups: int) -> None:
    """A clean stop, a start, more groups, and a power cut that leaves the page of the stop."""
    writer = Writer(tmp_path)
    for counts in GROUPS[:groups]:
        writer.write(*counts)
    writer.close()
    stopped = (tmp_path / "control").read_bytes()
    writer = Writer(tmp_path)
    for counts in GROUPS[groups:]:
        writer.write(*counts)
    writer.close()
    (tmp_path / "control").write_bytes(stopped)
    log, entries = open_entries(tmp_path, writable=False)
    assert len(entries) == COUNT
    assert log.recovery.clean_stop == (groups == len(GROUPS))
    log.close()


# --- A torn tail on a full disk


class Full(Directory):
    """A folder on a disk that takes no new file."""

    def write_file_stepwise(self, name: str, chunks: Iterable[Buffer]) -> Generator[int, None, None]:
        raise StorageError(f"{name}: cannot make a file: No space left on device")
        yield 0


def test_a_torn_tail_that_finds_no_room_is_left_until_there_is_some(tmp_path: Path, history: History) -> None:
    remains = Remains.of(history, history.controls[-2]).break_header(6)
    remains.save(tmp_path)
    before = contents(tmp_path)
    place = remains.where[6][1]
    size = len(remains.torn_tail(6))
    for _ in range(2):
        with pytest.raises(StorageError) as caught:
            open_entries(Full(tmp_path))
        words = (
            rf"^{segment_name(1)}, offset {place.start}: .* torn tail of {size} bytes, .* No space left on device\. "
        )
        assert re.search(words + "Nothing was changed. Make room on the disk, and start again$", str(caught.value))
        assert not isinstance(caught.value, CorruptLog)
        assert contents(tmp_path) == before
    check_recovered(tmp_path, remains, 6, torn=remains.torn_tail(6))


# --- Stale and foreign entries behind the end


def test_a_stale_entry_of_another_log_is_garbage(tmp_path: Path, history: History) -> None:
    """Whole, with the index that comes next: but of another log."""
    other = write_history(tmp_path / "other", *GROUPS)
    remains = Remains.of(history, history.controls[-2]).lose_from(6)
    place = Remains.of(other, FORGOTTEN).where[6][1]
    remains.put(1, place.start, other.segments[1][place.start : place.end])
    check_recovered(tmp_path, remains, 6, torn=remains.torn_tail(6))


def test_a_log_does_not_begin_with_the_first_entry_of_another(tmp_path: Path, history: History) -> None:
    """It has the right index, and before the first entry there is no chain to tell."""
    other = write_history(tmp_path / "other", *GROUPS)
    remains = Remains.of(history, FORGOTTEN).lose_from(1)
    place = Remains.of(other, FORGOTTEN).where[1][1]
    remains.put(1, place.start, other.segments[1][place.start : place.end])
    check_recovered(tmp_path, remains, 1, torn=remains.torn_tail(1))


@pytest.mark.parametrize("stale", [2, 4, 5])
def test_a_stale_entry_of_this_log_is_garbage(tmp_path: Path, history: History, stale: int) -> None:
    """An entry whose index is lower than that of the one that must come next."""
    remains = Remains.of(history, history.controls[-2]).lose_from(6)
    place = remains.where[stale][1]
    data = history.segments[1][place.start : place.end]
    remains.put(1, remains.where[6][1].start, data)
    check_recovered(tmp_path, remains, 6, torn=remains.torn_tail(6))


def test_an_entry_that_does_not_continue_the_chain_is_garbage(tmp_path: Path, history: History) -> None:
    """Of this log and with the next index, but behind another entry than the one that is there."""
    folder = tmp_path / "fork"
    fork = Remains.of(history, history.controls[-2]).lose_from(5)
    fork.save(folder)
    writer = Writer(folder)
    writer.write(2, 1)
    writer.close()
    forked = Remains.of(
        History(writer.facts, {1: (folder / segment_name(1)).read_bytes()}, []), history.controls[-2]
    ).where[6][1]
    data = (folder / segment_name(1)).read_bytes()[forked.start : forked.end]
    remains = Remains.of(history, history.controls[-2]).lose_from(6)
    remains.put(1, remains.where[6][1].start, data)
    check_recovered(tmp_path, remains, 6, torn=remains.torn_tail(6))


# --- Rot

ROT: Final[dict[str, Damage]] = {
    "header": lambda log: log.break_header(2),
    "body": lambda log: log.break_body(2),
    "lost": lambda log: log.lose(2),
    "lost, with all that follows": lambda log: log.lose_from(2),
    "replaced by another": lambda log: log.overwrite(
        2, 0, log.history.segments[1][log.where[3][1].start : log.where[3][1].end]
    ),
}


@pytest.mark.parametrize("damage", ROT.values(), ids=ROT)
@pytest.mark.parametrize("groups", [2, 3, 4])
def test_damage_below_the_control_page_s_watermark_is_rot(
    tmp_path: Path, history: History, damage: Damage, groups: int
) -> None:
    message = check_refused(tmp_path, damage(Remains.of(history, history.controls[groups])), 2)
    assert re.search("durable up to index [347]", message)
    assert "nothing was changed" in message


@pytest.mark.parametrize("at", range(1, COUNT + 1))
def test_after_a_clean_stop_all_damage_is_rot(tmp_path: Path, history: History, at: int) -> None:
    check_refused(tmp_path, Remains.of(history, history.controls[-1]).break_body(at), at)


@pytest.mark.parametrize("at", [1, 2, 3, 4])
def test_damage_below_what_a_later_header_knew_to_be_durable_is_rot(tmp_path: Path, history: History, at: int) -> None:
    """The control page is forgotten, as it may be after a power cut; the headers behind are not."""
    message = check_refused(tmp_path, Remains.of(history, FORGOTTEN).break_header(at), at)
    assert "durable up to index 4" in message


def test_a_whole_header_speaks_even_if_its_own_body_is_damaged(tmp_path: Path, history: History) -> None:
    remains = Remains.of(history, FORGOTTEN).break_header(4).break_header(5).break_body(6).lose(7)
    check_refused(tmp_path, remains, 4)


def test_the_message_says_what_was_found(tmp_path: Path, history: History) -> None:
    cases: dict[str, Damage] = {
        "found no whole entry header where": lambda log: log.break_header(3),
        "found an entry whose body fails its checksum where": lambda log: log.break_body(3),
        "found nothing but zeros where": lambda log: log.lose_from(3),
        "found an entry with index 4 where": lambda log: log.overwrite(
            3, 0, log.history.segments[1][log.where[4][1].start : log.where[4][1].end]
        ),
    }
    for words, damage in cases.items():
        assert words in check_refused(tmp_path, damage(Remains.of(history, history.controls[-1])), 3)


def test_the_one_ambiguity(tmp_path: Path, history: History) -> None:
    """Rot in the last group, after a power cut that has forgotten the control page, passes for a torn tail.

    Nothing on the disk tells the two apart; the README says so. With the group before it there is no doubt.
    """
    remains = Remains.of(history, FORGOTTEN).break_header(FIRST_OF_LAST_GROUP)
    check_recovered(tmp_path, remains, FIRST_OF_LAST_GROUP, torn=remains.torn_tail(FIRST_OF_LAST_GROUP))


def test_rot_in_the_last_group_but_one_is_no_ambiguity_under_load(tmp_path: Path) -> None:
    """Also where each entry was appended while the group before it was being synced, which is the rule under load."""
    folder = tmp_path / "load"
    writer = Writer(folder)
    writer.append(1)
    for _ in range(4):
        group = writer.log.begin_group()
        assert group is not None
        writer.append(1)
        group.write_and_sync()
        writer.log.finish_group(group)
        writer.log.tidy()
    writer.sync()
    writer.close()
    written = History(writer.facts, {1: (folder / segment_name(1)).read_bytes()}, [])
    for at in (1, 2, 3, 4):
        check_refused(tmp_path, Remains.of(written, FORGOTTEN).break_body(at), at)


def test_any_header_of_a_group_vouches_for_the_group_before_it(tmp_path: Path) -> None:
    """Also if entries were appended while that one was being synced, and all but one header of the group are lost."""
    folder = tmp_path / "load"
    writer = Writer(folder)
    writer.append(1)
    group = writer.log.begin_group()
    assert group is not None
    for _ in range(3):
        writer.append(1)
    group.write_and_sync()
    writer.log.finish_group(group)
    writer.append(1)
    writer.sync()
    writer.close()
    written = History(writer.facts, {1: (folder / segment_name(1)).read_bytes()}, [])
    for left in (2, 3, 4, 5):
        remains = Remains.of(written, FORGOTTEN).break_body(1)
        for index in {2, 3, 4, 5} - {left}:
            remains.lose(index)
        assert "durable up to index 1" in check_refused(tmp_path, remains, 1)


# --- The whole table at once, for a history in one segment

KINDS: Final[dict[str, Callable[[Remains, int], Remains]]] = {
    "header": Remains.break_header,
    "body": Remains.break_body,
    "header lost": Remains.lose_header,
    "lost": Remains.lose,
}


def expected(known: int, at: int, kind: str, lost_from: int) -> str:
    """The decision, from the table in the module and the watermarks of the headers that are left."""
    headers_left = range(at if kind == "body" else at + 1, lost_from)
    known = max([known, *(DURABLE_BEFORE[index] for index in headers_left)])
    if known >= at:
        return "rot"
    return "end" if kind == "lost" and not headers_left else "torn"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("groups", "known"), [(None, 0), (0, 0), (1, 1), (2, 3), (3, 4), (4, 7)])
def test_every_decision(tmp_path: Path, history: History, groups: int | None, known: int, kind: str) -> None:
    """Each entry as the first that is damaged, each way, all behind it lost from any one on, each control page."""
    decisions = set()
    for at in range(1, COUNT + 1):
        for lost_from in range(at + 1, COUNT + 2):
            remains = Remains.of(history, FORGOTTEN if groups is None else history.controls[groups])
            KINDS[kind](remains, at).lose_from(lost_from).save(tmp_path)
            decision = expected(known, at, kind, lost_from)
            decisions.add(decision)
            torn = remains.torn_tail(at)
            if decision == "rot":
                with pytest.raises(CorruptLog, match=rf"index {at} was expected"):
                    open_entries(tmp_path, writable=False)
                continue
            log, entries = open_entries(tmp_path, writable=False)
            assert (len(entries), log.recovery.torn_bytes) == (at - 1, len(torn)), (at, lost_from)
            assert (decision == "torn") == bool(torn)
            log.close()
    found = {"rot"} if groups == len(GROUPS) else {"rot", "torn", "end"} if kind == "lost" else {"rot", "torn"}
    assert decisions == found


# --- What recovery makes durable


def test_what_only_the_page_cache_may_have_is_written_again(
    tmp_path: Path, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed sync the kernel may hold pages as clean that are not on the disk; another sync does nothing."""
    calls: list[tuple[str, str, int, bytes]] = []
    write, sync = LogFile.write, LogFile.sync

    def write_noted(file: LogFile, buffers: list[bytes], offset: int) -> None:
        calls.append(("write", file.path.name, offset, b"".join(bytes(buffer) for buffer in buffers)))
        write(file, buffers, offset)

    def sync_noted(file: LogFile) -> None:
        calls.append(("sync", file.path.name, 0, b""))
        sync(file)

    monkeypatch.setattr(LogFile, "write", write_noted)
    monkeypatch.setattr(LogFile, "sync", sync_noted)
    remains = Remains.of(history, history.controls[-2])
    remains.save(tmp_path)
    log, _ = open_entries(tmp_path)
    start, end = remains.where[5][1].start, remains.where[7][1].end
    assert calls[:2] == [
        ("write", segment_name(1), start, history.segments[1][start:end]),
        ("sync", segment_name(1), 0, b""),
    ]
    # Segments made ahead are synced: zeros over a torn tail may be in the page cache alone. Then the watermark.
    rest = [call[:2] for call in calls[2:]]
    assert rest[-1] == ("write", "control")
    assert all(kind == "sync" and name.startswith("segment-") for kind, name in rest[:-1])
    log.close()
    calls.clear()
    log, _ = open_entries(tmp_path)  # after a clean stop there is nothing in doubt
    assert calls[0] == ("sync", segment_name(1), 0, b"")
    assert {name for kind, name, _, _ in calls if kind == "write"} == {"control"}
    log.close()


def test_the_words_of_a_refusal_tell_what_to_do(tmp_path: Path, history: History) -> None:
    message = check_refused(tmp_path, Remains.of(history, history.controls[-1]).break_header(2), 2)
    assert re.search(r"Restore the file from a copy$", message)
