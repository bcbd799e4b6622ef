"""Claim: a folder's file system is the one of the last mount on the longest path above it."""

from pathlib import Path

import pytest

from bezant.engine.log.file_system import file_system_type, find_file_system, is_memory

TABLE = r"""
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
25 24 0:23 / /dev/shm rw,relatime - tmpfs tmpfs rw
30 27 0:40 / /data rw shared:1 master:2 - btrfs /dev/vdb rw,subvol=/
31 27 0:41 / /data/with\040space rw - tmpfs tmpfs rw
32 27 0:42 / /twice rw - ext4 /dev/vdc rw
33 27 0:43 / /twice rw - tmpfs tmpfs rw
a line that is not one
34 27 0:44
"""


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "ext4"),
        ("/home/ann", "ext4"),
        ("/dev/shm/x", "tmpfs"),
        ("/dev/shmx", "ext4"),
        ("/data/x", "btrfs"),
        ("/data/with space/x", "tmpfs"),
        ("/twice/x", "tmpfs"),
    ],
)
def test_the_longest_path_and_the_last_mount_win(path: str, expected: str) -> None:
    assert find_file_system(TABLE, Path(path), 0) == expected


def test_the_device_decides_between_mounts_on_one_path() -> None:
    assert find_file_system(TABLE, Path("/twice"), 42) == "ext4"


def test_no_table_no_answer() -> None:
    assert find_file_system("", Path("/"), 0) is None


def test_memory_is_told_from_disks() -> None:
    assert is_memory("tmpfs")
    assert is_memory("ramfs")
    assert not is_memory("ext4")
    assert not is_memory(None)


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no memory file system to look at")
def test_this_machine_answers(tmp_path: Path) -> None:
    assert is_memory(file_system_type(Path("/dev/shm")))
    assert file_system_type(tmp_path) is not None
