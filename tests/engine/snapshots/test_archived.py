"""Claim: what damage has cost a member comes back from a group whose members have let the history go to an archive.

Nobody's reactor waits for the archive meanwhile, and an archive that cannot be reached delays this, and no more.
"""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import blake3
import msgspec
import pytest

from bezant.engine.archive.dropping import droppable, first_segments_needed, remove_archived
from bezant.engine.archive.sealed import sealed_segments
from bezant.engine.log.archive_cache import CACHE_NAME, ArchivedSegment
from bezant.engine.log.archived import MARK_FORMAT_VERSION, ArchivedMark, write_archived
from bezant.engine.log.segment import segment_name, segment_numbers
from bezant.engine.log.storage import Directory
from bezant.engine.repair import repair_from_group
from bezant.engine.replica import ReplicaSettings, shard_directory
from bezant.engine.verify import verify

from ...simulator.disk import AtOnce
from ..conftest import Clock
from .group import VICTIM, TransferGroup, behind

ROUNDS = 4


@pytest.fixture
def group(
    tmp_path: Path, small: ReplicaSettings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TransferGroup]:
    """Node 1 leads; all have the same log of many segments, and a checkpoint in it; the victim is stopped."""
    real = Directory.helper
    # What an archive gives comes meanwhile, as it does; all else is done at once.
    monkeypatch.setattr(
        Directory, "helper", lambda self, name: real(self, name) if name == "bezant-archive" else AtOnce()
    )
    settings = msgspec.structs.replace(small, snapshot_behind_bytes=100_000)
    made = TransferGroup(tmp_path / "nodes", settings, clock)
    behind(made)
    made.open(VICTIM)
    made.greet(VICTIM)
    made.run_until(lambda: made.is_level(VICTIM))
    made.load(ROUNDS)
    for node in (2, VICTIM):
        made.make_checkpoint(node)
    made.load(ROUNDS)
    made.close(VICTIM)
    yield made
    made.close()


def drop(group: TransferGroup, node: int, archive: Path) -> int:
    """Have all that may go leave a node's disk for an archive, as `bezant archive drop` does; how many there are."""
    directory = shard_directory(group.folder(node), 0)
    archive.mkdir(exist_ok=True)
    found = list(sealed_segments(directory, 0))
    numbers = droppable([sealed.number for sealed, _ in found], first_segments_needed(directory), 0, 2)
    gone = []
    for sealed, _ in found:
        if sealed.number not in numbers:
            continue
        with (directory.path / segment_name(sealed.number)).open("rb") as file:
            data = file.read(sealed.size_bytes)
        digest = blake3.blake3(data).hexdigest()
        (archive / digest).write_bytes(data)
        sizes = (sealed.size_bytes, sealed.full_size_bytes)
        gone.append(
            ArchivedSegment(sealed.number, sealed.first_index, sealed.last_index, *sizes, digest, str(archive), digest)
        )
    log_id = group.leader.replica.log.log_id
    write_archived(directory, ArchivedMark(MARK_FORMAT_VERSION, 0, log_id, gone))
    if node in group.members:
        log = group.members[node].replica.log
        log.archive.load()
        log.note_archived()
    return remove_archived(directory, 0)


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(bytes(data))


def repair(group: TransferGroup) -> None:
    assert repair_from_group(group.folder(VICTIM), group.nodes[VICTIM]) is not None
    group.open(VICTIM)
    group.greet(VICTIM)
    assert group.members[VICTIM].core.is_barred


def until_whole(group: TransferGroup) -> None:
    group.run_until(lambda: group.is_level(VICTIM))
    assert not group.members[VICTIM].core.is_barred
    for member in group.members.values():
        member.replica.log.archive.waits = True  # The test does.
    group.check_same(VICTIM)
    group.close(VICTIM)
    assert verify(group.folder(VICTIM)).chain_hash == group.leader.replica.log.chain_hash.hex()


@pytest.mark.parametrize("number", [1, 2, 3])
def test_a_damaged_segment_that_the_leader_has_in_an_archive(group: TransferGroup, number: int, tmp_path: Path) -> None:
    for node in (1, 2):
        assert drop(group, node, tmp_path / "kept") >= 3
    flip(group.shard_folder(VICTIM) / segment_name(number), 30_000)
    repair(group)
    until_whole(group)


def damage_the_first_segment_here(folder: Path) -> None:
    flip(folder / segment_name(segment_numbers(Directory(folder))[0]), 30_000)


def damage_the_header_of_the_first_segment_here(folder: Path) -> None:
    flip(folder / segment_name(segment_numbers(Directory(folder))[0]), 20)


def damage_the_last_checkpoints_segment(folder: Path) -> None:
    flip(folder / segment_name(segment_numbers(Directory(folder))[1]), 30_000)


def remove_all_segments(folder: Path) -> None:
    for number in segment_numbers(Directory(folder)):
        (folder / segment_name(number)).unlink()


def remove_the_first_segment_here(folder: Path) -> None:
    (folder / segment_name(segment_numbers(Directory(folder))[0])).unlink()


DAMAGES = [
    damage_the_first_segment_here,
    damage_the_header_of_the_first_segment_here,
    damage_the_last_checkpoints_segment,
    remove_all_segments,
    remove_the_first_segment_here,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_member_that_has_its_beginning_in_an_archive(
    group: TransferGroup, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    for node in (1, 2, VICTIM):
        assert drop(group, node, tmp_path / f"kept-{node}") >= 3
    damage(group.shard_folder(VICTIM))
    repair(group)
    until_whole(group)


def test_an_archive_that_cannot_be_reached_delays_it(group: TransferGroup, tmp_path: Path) -> None:
    for node in (1, 2):
        assert drop(group, node, tmp_path / "kept") >= 3
    (tmp_path / "kept").rename(tmp_path / "away")
    flip(group.shard_folder(VICTIM) / segment_name(2), 30_000)
    repair(group)
    group.run(400)
    assert not group.members[VICTIM].core.is_barred
    assert not group.is_level(VICTIM)
    group.load(1)
    (tmp_path / "away").rename(tmp_path / "kept")
    for node in (1, 2):
        shutil.rmtree(group.shard_folder(node) / CACHE_NAME, ignore_errors=True)
    until_whole(group)
