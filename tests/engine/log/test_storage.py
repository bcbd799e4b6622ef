"""Claim: files are written whole or not at all, and one process at a time holds a folder."""

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.log import file_system, storage
from bezant.engine.log.storage import (
    IO_VECTORS_MAX,
    PAGE_SIZE,
    ZERO_CHUNK_SIZE,
    Directory,
    FolderLock,
    LookingLock,
)
from bezant.protocol.errors import DataFolderInUse, StorageError

TIMEOUT_S = 60


# --- Files


def test_a_file_is_made_of_a_head_and_zeros(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    directory.create_file("made", 10_000, b"head")
    assert (tmp_path / "made").read_bytes() == b"head" + bytes(9_996)
    directory.create_file("small", 4, b"head")
    directory.create_file("empty", 0)
    directory.create_file("large", ZERO_CHUNK_SIZE + 5, np.ones(3, np.int64))
    assert (tmp_path / "large").read_bytes() == np.ones(3, np.int64).tobytes() + bytes(ZERO_CHUNK_SIZE + 5 - 24)
    assert directory.names() == ["empty", "large", "made", "small"]


@pytest.mark.parametrize("when", ["open", "write"])
def test_zeros_go_through_the_cache_where_nothing_else_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    open_file, write, refused = os.open, os.pwrite, []

    def open_as_others(path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_DIRECT and when == "open":
            raise OSError(errno.EINVAL, "no such thing here")
        return open_file(path, flags, mode)

    def write_as_others(descriptor: int, data: memoryview, offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            refused.append(offset)
            raise OSError(errno.EINVAL, "pages are larger here")
        return write(descriptor, data, offset)

    monkeypatch.setattr(os, "open", open_as_others)
    monkeypatch.setattr(os, "pwrite", write_as_others)
    Directory(tmp_path).create_file("made", 3 * PAGE_SIZE, b"head")
    assert (tmp_path / "made").read_bytes() == b"head" + bytes(3 * PAGE_SIZE - 4)
    assert (len(refused) == 1) == (when == "write")


def test_a_file_is_real_zeros_and_not_a_hole(tmp_path: Path) -> None:
    """Or the first sync of an entry would have to write where the file lies as well."""
    Directory(tmp_path).create_file("made", 1 << 20)
    assert (tmp_path / "made").stat().st_blocks * 512 >= 1 << 20


def test_a_file_appears_when_it_is_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written, synced, renamed, and then the folder is synced: in this order."""
    steps = []
    fsync = os.fsync

    def fsync_noted(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append((path.name, (tmp_path / "made").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync_noted)
    Directory(tmp_path).create_file("made", 4096)
    assert steps == [("made.new", False), (tmp_path.name, True)]


@pytest.mark.parametrize("after", [0, 1000, ZERO_CHUNK_SIZE])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """A disk that runs full takes a part of a write and fails the next one."""
    pwrite, room = os.pwrite, after

    def pwrite_little(descriptor: int, data: memoryview, offset: int) -> int:
        nonlocal room
        if room == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written = pwrite(descriptor, data[:room], offset)
        room -= written
        return written

    monkeypatch.setattr(os, "pwrite", pwrite_little)
    with pytest.raises(StorageError, match=r"cannot make a file of \d+ bytes: No space left on device"):
        Directory(tmp_path).create_file("made", ZERO_CHUNK_SIZE + 4096)
    assert list(tmp_path.iterdir()) == []


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:1000], offset))
    head = bytes(range(256)) * 20
    Directory(tmp_path).create_file("made", 8_000, head)
    assert (tmp_path / "made").read_bytes() == head + bytes(8_000 - len(head))


def test_a_folder_that_is_not_there_is_said_to_be_the_matter(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file or directory"):
        Directory(tmp_path / "nowhere").create_file("made", 10)


def test_unfinished_files_are_removed(tmp_path: Path) -> None:
    for name in ("segment-0000000002.new", "control.new", "kept"):
        (tmp_path / name).write_bytes(b"1")
    Directory(tmp_path).remove_unfinished()
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_folders_are_made_durably_from_the_top(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder is durable once the one that it lies in is synced, and this one as well."""
    synced = []
    monkeypatch.setattr(storage, "_sync_directory", synced.append)
    Directory(tmp_path / "a" / "b" / "c").create()
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}
    synced.clear()
    Directory(tmp_path / "a" / "b" / "c").create()
    assert synced == []


def test_buffers_are_written_one_after_the_other(tmp_path: Path) -> None:
    """More of them than one system call takes, and empty ones among them."""
    buffers = [bytes([number % 251]) * (number % 7) for number in range(2 * IO_VECTORS_MAX + 100)]
    Directory(tmp_path).create_file("made", 20_000)
    file = Directory(tmp_path).open("made", writable=True)
    file.write(buffers, 100)
    file.write([np.arange(4), b""], 15_000)
    file.write([b""], 0)
    file.write([], 0)
    file.sync()
    whole = b"".join(buffers)
    expected = bytes(100) + whole
    expected += bytes(15_000 - len(expected)) + np.arange(4).tobytes()
    assert file.read(20_000, 0) == expected + bytes(20_000 - len(expected))
    assert file.size() == 20_000
    file.close()
    file.close()


def test_vectors_that_are_taken_in_part_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwritev = os.pwritev

    def pwritev_little(descriptor: int, views: list[memoryview], offset: int, flags: int = 0) -> int:
        return pwritev(descriptor, [views[0][:3]], offset, flags)

    monkeypatch.setattr(os, "pwritev", pwritev_little)
    Directory(tmp_path).create_file("made", 100)
    file = Directory(tmp_path).open("made", writable=True)
    file.write([b"abcdefgh", b"", b"i", b"jklm"], 10)
    assert file.read(100, 0).strip(b"\0") == b"abcdefghijklm"
    file.close()


def test_a_mapping_shows_what_is_written_later(tmp_path: Path) -> None:
    Directory(tmp_path).create_file("made", 8192)
    file = Directory(tmp_path).open("made", writable=True)
    mapping = file.map()
    file.write([b"later"], 5000)
    assert bytes(mapping[5000:5005]) == b"later"
    file.close()
    assert len(mapping) == 8192
    with pytest.raises(ValueError, match="read-only"):
        mapping[0] = 1


def test_a_closed_file_is_not_written_to(tmp_path: Path) -> None:
    Directory(tmp_path).create_file("made", 10)
    file = Directory(tmp_path).open("made", writable=True)
    file.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.write([b"x"], 0)


def test_free_bytes_are_those_of_the_file_system(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    assert abs(Directory(tmp_path).free_bytes() - status.f_bavail * status.f_frsize) < 1 << 30


@pytest.mark.parametrize(("found", "durable"), [("ext4", True), ("tmpfs", False), ("ramfs", False), (None, True)])
def test_memory_is_not_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: str | None, durable: bool
) -> None:
    monkeypatch.setattr(storage, "file_system_type", lambda _: found)
    assert Directory(tmp_path).is_durable() is durable


def test_the_deepest_and_last_mount_holds_a_folder() -> None:
    table = (
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n2 1 0:5 / /data\\040dir rw - xfs /dev/sdb rw\nnonsense\n"
        "3 2 0:6 / /data\\040dir rw - tmpfs tmpfs rw\n"
    )
    find = file_system.find_file_system
    assert find(table, Path("/data dir/shard"), 0) == "tmpfs"
    assert find(table, Path("/data dir/shard"), os.makedev(0, 5)) == "xfs"
    assert find(table, Path("/data"), 0) == "ext4"
    assert find("", Path("/data"), 0) is None


# --- The lock of a folder

HOLD = """
import sys
from pathlib import Path
from bezant.engine.log.storage import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.readline()
"""


def test_a_folder_stands_in_the_way_of_a_file_and_stays(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    (tmp_path / "a.new").mkdir()
    with pytest.raises(StorageError, match=r"a\.new: cannot make a file of 10 bytes: Is a directory"):
        directory.create_file("a", 10)
    with pytest.raises(StorageError, match=r"a\.new: cannot make a file of 0 bytes or more: Is a directory"):
        directory.write_file("a", [b"data"])
    (tmp_path / "b.new").write_bytes(b"")
    directory.remove_unfinished()
    assert [path.name for path in tmp_path.iterdir()] == ["a.new"]


def test_a_file_that_cannot_be_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_path: Path, *, missing_ok: bool = False) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    (tmp_path / "a.new").write_bytes(b"")
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageError, match=r"a\.new: cannot be removed: Read-only file system"):
        Directory(tmp_path).remove_unfinished()


def test_a_folder_is_held_by_one_process(tmp_path: Path) -> None:
    """As long as that one lives, and however it ends."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DataFolderInUse, match=f"in use by process {holder.pid}$"):
            FolderLock(tmp_path)
    finally:
        holder.kill()
        holder.communicate(timeout=TIMEOUT_S)
    lock = FolderLock(tmp_path)
    assert (tmp_path / "lock").read_text() == str(os.getpid())
    lock.release()


def test_a_lock_that_is_released_can_be_had_again(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(DataFolderInUse, match=f"process {os.getpid()}"):
        FolderLock(tmp_path)
    lock.release()
    lock.release()
    again = FolderLock(tmp_path)
    again.release()


def test_a_holder_that_has_not_said_who_it_is_is_unknown(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    (tmp_path / "lock").write_bytes(b"")
    with pytest.raises(DataFolderInUse, match="process unknown"):
        FolderLock(tmp_path)
    lock.release()


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (os.mkfifo, "not a regular file|No such device"),
        (lambda path: path.mkdir(), "directory|not a regular file"),
        (lambda path: path.symlink_to("elsewhere"), "symbolic link"),
    ],
    ids=["pipe", "folder", "link"],
)
@pytest.mark.parametrize("kind", [FolderLock, LookingLock])
def test_what_is_no_lock_file_is_refused_and_left(
    tmp_path: Path, kind: type[FolderLock | LookingLock], damage: Damage, why: str
) -> None:
    damage(tmp_path / "lock")
    with pytest.raises(StorageError, match=f"{tmp_path}/lock: cannot be locked: .*({why}).*: see to"):
        kind(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"], "what the link leads to has been made"


def test_who_looks_keeps_nodes_out_and_changes_nothing(tmp_path: Path) -> None:
    FolderLock(tmp_path).release()
    before = (tmp_path / "lock").read_bytes()
    first, second = LookingLock(tmp_path), LookingLock(tmp_path)
    assert (first.holder, second.holder) == ("", "")
    with pytest.raises(DataFolderInUse):
        FolderLock(tmp_path)
    first.release()
    second.release()
    assert (tmp_path / "lock").read_bytes() == before
    lock = FolderLock(tmp_path)
    assert LookingLock(tmp_path).holder == str(os.getpid())
    (tmp_path / "lock").write_bytes(b"\x1b[31mred")
    assert LookingLock(tmp_path).holder == "unknown", "not what a node writes"
    lock.release()


def test_who_looks_makes_no_lock(tmp_path: Path) -> None:
    assert LookingLock(tmp_path).holder == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["file", "link", "kernel"])
def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("link")
    path = Path("/proc/books") if below == "kernel" else tmp_path / below / "shard-0000"
    with pytest.raises(StorageError, match=f"{path}: the folder cannot be made: .*: give one"):
        Directory(path).create()
