"""Claim: a file made of chunks is there as a whole and durable, or not at all, wherever the making of it ends."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.log import storage
from bezant.engine.log.storage import SYNC_DISTANCE, Directory
from bezant.protocol.errors import StorageError


class Killed(BaseException):
    """The process is gone: nothing that it would still do is done."""


def chunks_of(*sizes: int) -> list[bytes]:
    return [bytes([1 + number]) * size for number, size in enumerate(sizes)]


LARGE = chunks_of(SYNC_DISTANCE // 2, SYNC_DISTANCE, 5)


def fail_at(monkeypatch: pytest.MonkeyPatch, step: int, make_error: Callable[[], BaseException]) -> list[str]:
    """Let the call with this number fail, of all that change or sync the disk; returns the calls as they are made."""
    made: list[str] = []

    def failing(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            made.append(name)
            if len(made) == step + 1:
                raise make_error()
            return function(*arguments)

        return call

    for name in ("pwrite", "fdatasync", "fsync"):
        monkeypatch.setattr(os, name, failing(name, getattr(os, name)))
    monkeypatch.setattr(Path, "rename", failing("rename", Path.rename))
    return made


def test_chunks_are_written_one_after_the_other(tmp_path: Path) -> None:
    chunks = [b"abc", b"", np.arange(5), memoryview(b"xyz"), bytes(SYNC_DISTANCE + 3), b"end"]
    expected = b"".join(bytes(memoryview(chunk).cast("B")) for chunk in chunks)
    assert Directory(tmp_path).write_file("made", chunks) == len(expected)
    assert (tmp_path / "made").read_bytes() == expected
    assert Directory(tmp_path).write_file("empty", []) == 0
    assert Directory(tmp_path).names() == ["empty", "made"]


def test_a_chunk_may_be_overwritten_by_the_next(tmp_path: Path) -> None:
    chunk = bytearray(10)

    def reused() -> Iterator[bytearray]:
        for number in range(3):
            chunk[:] = bytes([number]) * 10
            yield chunk

    Directory(tmp_path).write_file("made", reused())
    assert (tmp_path / "made").read_bytes() == bytes(10) + b"\1" * 10 + b"\2" * 10


def test_syncs_come_often_and_the_last_before_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that no sync of another file has much to wait for."""
    made = fail_at(monkeypatch, 1 << 30, Killed)
    Directory(tmp_path).write_file("made", LARGE)
    assert made == ["pwrite", "pwrite", "fdatasync", "pwrite", "pwrite", "fsync", "rename", "fsync"]


@pytest.mark.parametrize("step", range(8))
def test_a_disk_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    made = fail_at(monkeypatch, step, lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with pytest.raises(StorageError, match=r"cannot make a file of \d+ bytes or more: No space left on device"):
        Directory(tmp_path).write_file("made", LARGE)
    assert len(made) == step + 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", range(8))
def test_a_process_that_dies_leaves_no_half_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """What it leaves has another name, and the next start removes it."""
    fail_at(monkeypatch, step, Killed)
    monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
    with pytest.raises(Killed):
        Directory(tmp_path).write_file("made", LARGE)
    monkeypatch.undo()
    Directory(tmp_path).remove_unfinished()
    assert [path.read_bytes() == b"".join(LARGE) for path in tmp_path.iterdir()] == ([True] if step == 7 else [])


def test_chunks_that_fail_leave_nothing(tmp_path: Path) -> None:
    def failing() -> Iterator[bytes]:
        yield b"first"
        raise ValueError("no second")

    with pytest.raises(ValueError, match="no second"):
        Directory(tmp_path).write_file("made", failing())
    assert list(tmp_path.iterdir()) == []


def test_steps_can_be_given_up_at_any_one(tmp_path: Path) -> None:
    for count in range(1, 4):
        steps = Directory(tmp_path).write_file_stepwise("made", LARGE)
        assert [next(steps) for _ in range(count)][-1] == sum(map(len, LARGE[:count]))
        assert not (tmp_path / "made").exists()
        steps.close()
        assert list(tmp_path.iterdir()) == []
    assert list(Directory(tmp_path).write_file_stepwise("made", LARGE))[-1] == (tmp_path / "made").stat().st_size


def test_a_removed_file_is_gone_durably(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    Directory(tmp_path).write_file("made", [b"1"])
    monkeypatch.setattr(storage, "_sync_directory", synced.append)
    Directory(tmp_path).remove("made")
    assert (list(tmp_path.iterdir()), synced) == ([], [tmp_path])
    with pytest.raises(StorageError, match="made: cannot be removed: No such file or directory"):
        Directory(tmp_path).remove("made")


def test_a_file_is_read_into_a_buffer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces, and as far as it goes."""
    monkeypatch.setattr(storage, "READ_SIZE_MAX", 7)
    Directory(tmp_path).write_file("made", [bytes(range(100))])
    file = Directory(tmp_path).open("made", writable=False)
    buffer = np.zeros(40, np.uint8)
    assert file.read_into(buffer, 10) == 40
    assert buffer.tolist() == list(range(10, 50))
    assert file.read_into(buffer, 90) == 10
    assert buffer[:10].tolist() == list(range(90, 100))
    assert file.read_into(buffer, 100) == 0
    file.close()
