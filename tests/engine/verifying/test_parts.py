"""Claim: parts executed at the same time prove what one walk proves, and whatever is not right is left to that walk."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pytest

from bezant.engine.checkpoints.check import CheckpointCheck
from bezant.engine.checkpoints.cuts import parse_cut_name
from bezant.engine.checkpoints.file import Manifest, read_checkpoint, write_checkpoint
from bezant.engine.checkpoints.folder import FOLDER_NAME, CheckpointFolder, checkpoint_name
from bezant.engine.ids.run import ENTRIES_PER_BLOCK, RunIdentity, write_run
from bezant.engine.ids.run_set import Run
from bezant.engine.ledger.state import FATE_RELEASED, SEQUENCE_MASK
from bezant.engine.log.entry import Entry
from bezant.engine.log.log import open_log
from bezant.engine.log.storage import Directory
from bezant.engine.replica import ReplicaSettings, shard_directory
from bezant.engine.verify import Parallelism, verify
from bezant.engine.verifying import part as part_module
from bezant.engine.verifying import stored as stored_module
from bezant.engine.verifying.parallel import Doubt, verify_parts
from bezant.engine.verifying.part import Order, execute_part
from bezant.engine.verifying.plan import plan_parts
from bezant.engine.verifying.stored import copy_hashes, sum_stored
from bezant.engine.verifying.sums import NO_IDS, IdSum, sum_of, sum_part
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, StorageError
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import EVENT, SEQUENCE_BITS, Records, Words

from ..checkpoints.test_checkpointed_replica import Node, capture, hold, some_commands
from ..commands import join, opening_world, transfers
from ..conftest import Clock
from ..test_verify import forge, in_event

ALWAYS: Final = Parallelism(processes=2, events_min=0, part_events_min=1)


@pytest.fixture
def settings(small: ReplicaSettings) -> ReplicaSettings:
    """A checkpoint after a few ids, and one segment for all, which is so the easier to forge."""
    return msgspec.structs.replace(small, checkpoint_ids=60, segment_size=4 << 20)


@pytest.fixture
def node(tmp_path: Path, settings: ReplicaSettings, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Node]:
    """A node whose cuts may take up more than the log, which is so short here."""
    monkeypatch.setattr("bezant.engine.checkpoints.folder.CUTS_SHARE_OF_LOG", 0.001)
    node = Node(tmp_path / "data", settings, clock)
    yield node
    node.stop()


def fill(node: Node, checkpoints: int, seed: int = 1) -> None:
    """A history with ids of any age, and holds that are closed long after they were made; a tail behind the last."""
    choice = random.Random(seed)
    sent: list[Records] = [opening_world("ann", "bob")]
    holds: list[Records] = []
    node.execute(join(opening_world("ann", "bob"), transfers("world", "ann", 3, 500)))
    while node.checkpoints < checkpoints:
        node.execute(some_commands(choice, sent, holds))
        if node.replica.frozen_index:
            node.make_checkpoint()
    node.execute(some_commands(choice, sent, holds))


def folder_of(node: Node) -> Directory:
    return Directory(node.path / "shard-0000" / FOLDER_NAME)


def cuts_of(node: Node) -> list[str]:
    return [name for name in folder_of(node).names() if parse_cut_name(name)]


@pytest.mark.parametrize("seed", range(3))
def test_parts_report_what_one_walk_reports(node: Node, seed: int) -> None:
    fill(node, 7, seed)
    node.stop()
    alone = verify(node.path)
    parts = verify(node.path, parallelism=ALWAYS)
    assert parts.doubt == ""
    assert parts.parts == len(cuts_of(node)) + 3 > 4
    assert parts.processes == 2
    assert parts._replace(seconds=0, parts=0, processes=0, checkpoints=0) == alone._replace(
        seconds=0, parts=0, processes=0, checkpoints=0
    )
    assert parts.checkpoints == parts.parts - 1


def test_a_short_history_and_one_without_checkpoints_are_executed_in_one_go(node: Node) -> None:
    fill(node, 4)
    node.stop()
    assert verify(node.path).parts == 1
    for path in folder_of(node).path.iterdir():
        path.unlink()
    report = verify(node.path, parallelism=ALWAYS)
    assert (report.parts, report.doubt) == (1, "")


# ---- what is wrong ----


def rewrite(node: Node, name: str, change: Callable[[Manifest, Records], dict[str, object]]) -> None:
    """Write a checkpoint or cut again with something else in it, and checksums that are right."""
    checkpoint = read_checkpoint(folder_of(node), name)
    rows = checkpoint.image.rows.copy()
    manifest = msgspec.structs.replace(checkpoint.manifest, **change(checkpoint.manifest, rows))
    write_checkpoint(
        folder_of(node),
        name,
        checkpoint.image._replace(rows=rows),
        shard=0,
        point=manifest.point,
        salts=manifest.salts,
        runs=manifest.runs,
        run_number_next=manifest.run_number_next,
        state_digest=manifest.state_digest,
        configuration=manifest.configuration,
    )


def richer(manifest: Manifest, rows: Records) -> dict[str, object]:
    rows["balance"][1] += 7
    rows["balance"][0] -= 7
    return {}


@pytest.mark.parametrize(
    "change",
    [
        richer,
        lambda manifest, _: {"state_digest": "0" * 64},
        lambda manifest, _: {"point": msgspec.structs.replace(manifest.point, bytes_count=1)},
        lambda manifest, _: {"point": msgspec.structs.replace(manifest.point, chain_hash=bytes(32))},
    ],
    ids=["balance", "digest", "bytes", "hash"],
)
def test_a_cut_that_is_wrong_neither_passes_nor_fails_a_sound_history(
    node: Node, change: Callable[[Manifest, Records], dict[str, object]]
) -> None:
    fill(node, 6)
    node.stop()
    rewrite(node, cuts_of(node)[1], change)
    report = verify(node.path, parallelism=ALWAYS)
    assert report.parts == 1
    assert report.doubt
    assert report.state_digest == verify(node.path).state_digest


def test_a_cut_that_is_damaged_is_told_and_the_others_serve(node: Node) -> None:
    fill(node, 6)
    node.stop()
    path = folder_of(node).path / cuts_of(node)[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    report = verify(node.path, parallelism=ALWAYS)
    assert report.parts == len(cuts_of(node)) + 2
    assert len(report.checkpoints_damaged) == 1
    assert path.name in report.checkpoints_damaged[0]


def test_a_checkpoint_whose_ids_are_wrong_is_named(node: Node) -> None:
    fill(node, 5)
    node.stop()
    name = checkpoint_name(node.replica.checkpoints.newest_manifest().point.index)
    rewrite(node, name, lambda manifest, _: {"runs": manifest.runs[1:]})
    with pytest.raises(CorruptLog, match=f"{name} .*lists other ids than the history"):
        verify(node.path, parallelism=ALWAYS)


def events_of(node: Node) -> Records:
    log = open_log(shard_directory(node.path, 0), writable=False)
    events = np.concatenate([np.frombuffer(entry.body, EVENT) for entry in log.open() if entry.header.count])
    log.close()
    return events


def forge_tail(node: Node, **fields: int) -> None:
    """Change the first event of the last entry, behind all checkpoints, and compute the checksums and hashes anew."""

    def change(entries: list[Entry]) -> list[Entry]:
        return in_event(len(entries), 0, **fields)(entries)

    forge(node.path, change)


def verify_in_parts_alone(node: Node) -> None:
    """Raises `Doubt`."""
    folder = CheckpointFolder(shard_directory(node.path, 0))
    plan = plan_parts(folder, CheckpointCheck(folder, 0), 0, 1)
    assert plan is not None
    verify_parts(node.path, 0, plan, processes=1, events_max=10_000, rows_max=1024, on_progress=lambda _: None)


def test_an_id_that_was_used_in_an_earlier_part_is_found(node: Node) -> None:
    """Each part by itself has never seen it."""
    fill(node, 6)
    node.execute(transfers("world", "ann", 1))
    node.stop()
    early = next(event for event in events_of(node) if event["kind"] == int(CommandKind.TRANSFER))
    forge_tail(node, id_head=int(early["id_head"]), id_tail=int(early["id_tail"]))
    with pytest.raises(Doubt, match="two ids have the same hash"):
        verify_in_parts_alone(node)
    with pytest.raises(CorruptLog, match="there is an event in the history, and none when its command is executed"):
        verify(node.path, parallelism=ALWAYS)


def test_a_fate_that_history_and_files_of_ids_agree_to_lie_about_is_found(node: Node) -> None:
    """A hold was captured; both say that it was released, of which a later event is the only trace."""
    held = hold("ann", "bob", 5)
    node.execute(join(opening_world("ann", "bob"), transfers("world", "ann", 3, 500)))
    node.execute(held)
    node.execute(capture(held))
    sequence = int(np.flatnonzero(events_of(node)["kind"] == int(CommandKind.HOLD))[0]) + 1
    fill(node, 5)
    node.execute(capture(held, 1))
    node.stop()
    assert events_of(node)[-1]["result"] == int(ResultCode.HOLD_CAPTURED)
    forge_tail(node, result=int(ResultCode.HOLD_RELEASED))
    with pytest.raises(Doubt, match="result is"):
        verify_in_parts_alone(node)
    _change_fate(node, sequence, FATE_RELEASED)
    with pytest.raises(Doubt, match="the files of ids do not hold what the history makes of ids"):
        verify_in_parts_alone(node)
    with pytest.raises(CorruptLog, match="lists other ids"):
        verify(node.path, parallelism=ALWAYS)


def _change_fate(node: Node, sequence: int, fate: int) -> None:
    """Write the run again that has what became of a hold."""
    manifest = node.replica.checkpoints.newest_manifest()
    infos = list(manifest.runs)
    for place, info in enumerate(infos):
        run = Run.open(folder_of(node), manifest.identity, info, load_filter=False)
        entries = np.concatenate([run.words[block, 1:511].reshape(-1, 2) for block in range(info.block_count)])
        entries = entries[: info.count].copy()
        wanted = entries[:, 1] & SEQUENCE_MASK == sequence
        if wanted.any():
            entries[wanted, 1] = sequence | fate << SEQUENCE_BITS
            infos[place] = write_run(
                folder_of(node), manifest.identity, info.number, entries[:, 0], entries[:, 1], info.time_ms_max
            )
    rewrite(node, checkpoint_name(manifest.point.index), lambda *_: {"runs": tuple(infos)})


def test_every_change_of_an_early_event_is_found_as_in_one_walk(node: Node) -> None:
    fill(node, 6)
    node.stop()
    forge(node.path, in_event(3, 1, amount=999))
    with pytest.raises(CorruptLog, match="effective_amount is 5 in the history and 999 when"):
        verify(node.path, parallelism=ALWAYS)


def test_a_part_that_asks_for_too_many_earlier_ids_leaves_the_history_to_one_walk(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = hold("ann", "bob", 5)
    node.execute(join(opening_world("ann", "bob"), transfers("world", "ann", 3, 500), held, capture(held)))
    fill(node, 5)
    node.execute(capture(held, 1))
    node.stop()
    folder = CheckpointFolder(shard_directory(node.path, 0))
    plan = plan_parts(folder, CheckpointCheck(folder, 0), 0, 1)
    assert plan is not None
    last = plan.cuts[-1].name
    order = Order(0, str(node.path), 0, last, 0, last, plan.salts, (1, 2), 1000, 1024)
    assert execute_part(order, lambda _: None).doubt == ""
    monkeypatch.setattr(part_module, "RECALLED_MAX", 0)
    with pytest.raises(StorageError, match="asks for over 0 ids"):
        execute_part(order, lambda _: None)


# ---- ids ----

SALTS: Final = (123456789123456789, 987654321987654321)


def entries_of(*pairs: tuple[int, int]) -> Words:
    return np.array(sorted(pairs, key=lambda pair: (pair[0], pair[1] & SEQUENCE_MASK)), np.int64).reshape(-1, 2)


@pytest.fixture
def summed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Words], list[int]], IdSum]:
    """The sum over files with these entries, newest first, that are read a block at a time."""
    monkeypatch.setattr(stored_module, "INPUT_ENTRIES", ENTRIES_PER_BLOCK)
    directory = Directory(tmp_path)
    identity = RunIdentity(0, 1, *SALTS)

    def make(files: list[Words], later: list[int]) -> IdSum:
        runs = []
        for number, entries in enumerate(files, start=1):
            info = write_run(directory, identity, number, entries[:, 0], entries[:, 1], 0)
            runs.append(Run.open(directory, identity, info, load_filter=False))
        return sum_stored(runs, SALTS, np.array(sorted(later), np.int64))

    return make


@pytest.mark.parametrize("count", [0, 1, ENTRIES_PER_BLOCK, 5 * ENTRIES_PER_BLOCK + 7])
@pytest.mark.parametrize("files", [1, 3])
def test_files_add_up_to_the_ids_that_they_have(
    summed: Callable[[list[Words], list[int]], IdSum], count: int, files: int
) -> None:
    """Some of the newest file say what became of ids in older ones; the least hash and the greatest are among them."""
    choice = random.Random(count)
    hashes = [*choice.sample(range(1, 2**63 - 1), count), 0, 2**63 - 1]
    ids = dict(zip(hashes, range(1, len(hashes) + 1), strict=True))
    made: list[dict[int, int]] = [{} for _ in range(files)]
    for hash_value, sequence in ids.items():
        made[choice.randrange(files)][hash_value] = sequence
    for hash_value in choice.sample(hashes, len(hashes) // 3):
        ids[hash_value] |= FATE_RELEASED << SEQUENCE_BITS
        made[0][hash_value] = ids[hash_value]
    later = choice.sample(range(2**62, 2**62 + 10**6), 20)
    assert summed([entries_of(*file.items()) for file in made], later) == sum_of([entries_of(*ids.items())], SALTS)


@pytest.mark.parametrize("place", [0, 254, 255, 700, 1499])
@pytest.mark.parametrize("where", ["same file", "other file", "later"])
def test_a_hash_that_is_there_twice_is_found_wherever_it_is(
    summed: Callable[[list[Words], list[int]], IdSum], place: int, where: str
) -> None:
    hashes = random.Random(3).sample(range(2**63 - 1), 1500)
    twice = (sorted(hashes)[place], 5000)
    file = list(zip(hashes, range(1, 1501), strict=True))
    other = [(2**60 + number, 2000 + number) for number in range(600)]
    later = [2**61 + number for number in range(600)]
    summed([entries_of(*file), entries_of(*other)], later)
    if where == "same file":
        file.append(twice)
    elif where == "other file":
        other.append(twice)
    else:
        later.append(twice[0])
    with pytest.raises(StorageError, match="two ids have the same hash"):
        summed([entries_of(*file), entries_of(*other)], later)


def test_hashes_are_copied_as_long_as_they_ascend() -> None:
    hashes = np.zeros(4, np.int64)
    entries = entries_of((3, 1), (5, 2), (5, 3), (9, 4))
    assert copy_hashes(entries, 3, 8, hashes) == 3
    assert hashes.tolist() == [3, 5, 5, 0]
    assert copy_hashes(entries, 4, 8, hashes) == -1
    assert copy_hashes(np.ascontiguousarray(entries[[0, 2, 0]]), 0, 8, hashes) == -1


def test_a_hash_that_fills_more_than_is_read_at_a_time_is_refused(
    summed: Callable[[list[Words], list[int]], IdSum],
) -> None:
    with pytest.raises(StorageError, match="two ids have the same hash"):
        summed([entries_of(*((7, number) for number in range(1, 3 * ENTRIES_PER_BLOCK)))], [])


def test_sums_do_not_depend_on_who_adds_up_and_in_which_order() -> None:
    """A hold is made in the first part, closed in the second, and recalled in the third."""
    salts = SALTS
    closed = 3 | FATE_RELEASED << SEQUENCE_BITS
    room = np.zeros(10, np.int64)
    ids = entries_of
    first = sum_part([ids((11, 1), (12, 2), (13, 3), (99, 0), (98, -1))], 1, salts, NO_IDS, room)
    assert sorted(room[:3].tolist()) == [11, 12, 13]
    second = sum_part([ids((14, 4), (13, closed))], 4, salts, NO_IDS, room)
    third = sum_part([ids((13, closed), (12, 2), (15, 5))], 5, salts, ids((13, closed), (12, 2)), room)
    together = sum_of([ids((15, 5), (13, closed)), ids((12, 2), (14, 4), (11, 1))], salts)
    assert first + second + third == together
    assert together.count == 5
    assert first + second != together
    assert sum_of([ids((13, 3))], salts) != sum_of([ids((13, closed))], salts)
