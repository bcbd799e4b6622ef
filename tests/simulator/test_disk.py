"""Claim: the simulated disk loses, keeps and damages what it says, and nothing else."""

import random

import pytest

from bezant.engine.opening import open_member
from bezant.engine.replica import ReplicaSettings
from bezant.protocol.errors import DataFolderInUse

from ..engine.log.memory_disk import PowerCut
from .disk import Disk


def file_of(disk: Disk, text: bytes = b"") -> None:
    disk.root.create_file("file", 64, text)


def test_what_is_synced_survives_and_what_is_not_may_be_lost() -> None:
    found = set()
    for seed in range(20):
        disk = Disk()
        file_of(disk)
        file = disk.root.open("file", writable=True)
        file.write([b"kept"], 0)
        file.sync()
        file.write([b"lost"], 8)
        disk.lose_power(random.Random(seed))
        left = disk.root.open("file", writable=False).read(64, 0)
        assert left.startswith(b"kept")
        found.add(left[8:12])
    assert {b"lost", bytes(4)} <= found


def test_after_a_sync_that_failed_the_next_one_does_not_write_what_was_before() -> None:
    disk = Disk()
    file_of(disk)
    file = disk.root.open("file", writable=True)
    file.write([b"gone"], 0)
    disk.fails_next_sync = True
    with pytest.raises(OSError, match="not taken"):
        file.sync()
    file.write([b"kept"], 8)
    file.sync()
    assert disk.root.durable["file"][:12] == bytes(8) + b"kept"
    assert file.read(4, 0) == b"gone"


def test_a_node_stops_at_the_write_that_it_is_told_to_and_a_killed_one_leaves_its_page_cache() -> None:
    disk = Disk()
    file_of(disk)
    file = disk.root.open("file", writable=True)
    disk.steps_left = 2
    file.write([b"a"], 0)
    with pytest.raises(PowerCut):
        file.write([b"b"], 1)
    with pytest.raises(PowerCut):
        file.write([b"c"], 2)
    disk.kill()
    assert disk.root.open("file", writable=False).read(3, 0) == b"ab\0"
    assert disk.root.durable["file"][:2] == bytes(2)


def test_rot_can_be_taken_back() -> None:
    disk = Disk()
    file_of(disk, b"whole")
    byte = disk.flip("", "file", 1, 3)
    assert disk.root.open("file", writable=False).read(5, 0) != b"whole" != disk.root.durable["file"][:5]
    disk.restore("", "file", 1, byte)
    assert disk.root.open("file", writable=False).read(5, 0) == b"whole" == disk.root.durable["file"][:5]


def test_a_folder_is_opened_once_at_a_time(small: ReplicaSettings) -> None:
    disk = Disk()
    member = open_member(disk.root, settings=small)
    with pytest.raises(DataFolderInUse):
        open_member(disk.root, settings=small)
    member.close()
    open_member(disk.root, settings=small).close()
