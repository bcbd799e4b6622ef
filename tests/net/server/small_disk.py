"""A small file system of its own, to be filled to the last byte, and nodes that run on it.

It is mounted in a mount namespace that one waiting process keeps, so nothing is left behind however a test ends. That
takes root, or a system that gives every user namespaces of their own.
"""

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

SIZE_BYTES = 24 << 20
JUNK = "junk"
_READY = "mounted\n"
_MOUNTS = {
    "tmpfs": f'mount -t tmpfs -o size={SIZE_BYTES} tmpfs "$1"',
    # Nothing kept back for root, so that full is full.
    "ext4": f'truncate -s {SIZE_BYTES} "$1.image" && mkfs.ext4 -q -m 0 "$1.image" && mount -o loop "$1.image" "$1"',
}
_UNSHARE = {"as root": ("unshare", "--mount"), "as anybody": ("unshare", "--user", "--map-root-user", "--mount")}


class SmallDisk:
    """A mounted file system. Paths of the test begin with `root`, those of a node on it with `inner`."""

    def __init__(self, keeper: subprocess.Popen[str], inner: Path, namespaces: tuple[str, ...]) -> None:
        self.inner = inner
        self.root = Path(f"/proc/{keeper.pid}/root") / inner.relative_to("/")
        self.within = ("nsenter", "--target", str(keeper.pid), "--wd", *namespaces)
        """What runs a command that sees the file system."""

    def fill(self, *, leave_bytes: int = 0) -> None:
        """Take up all of the space that is left but so much (of which a file system needs some for itself)."""
        descriptor = os.open(self.root / JUNK, os.O_WRONLY | os.O_CREAT)
        try:
            size = os.fstat(descriptor).st_size
            for piece in (1 << 20, 64 << 10, 4096, 512):
                with _until_full():
                    while True:
                        size += os.pwrite(descriptor, bytes(piece), size)
            os.ftruncate(descriptor, max(size - leave_bytes, 0))
            with _until_full():
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def make_room(self) -> None:
        """Take up no more space."""
        (self.root / JUNK).unlink()

    @property
    def free_bytes(self) -> int:
        status = os.statvfs(self.root)
        return status.f_bavail * status.f_frsize


@contextmanager
def _until_full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise


@contextmanager
def small_disk(folder: Path, kind: str) -> Iterator[SmallDisk]:
    """A file system of this kind; skips the test if there is no way to have one here."""
    if not (shutil.which("unshare") and shutil.which("nsenter")):
        pytest.skip("a small file system cannot be mounted here: unshare and nsenter of util-linux are not installed")
    inner = folder / "disk"
    inner.mkdir()
    said = []
    for how, unshare in _UNSHARE.items():
        script = f"{_MOUNTS[kind]} && echo {_READY.strip()} && exec sleep infinity"
        keeper = subprocess.Popen(
            [*unshare, "sh", "-c", script, "sh", str(inner)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert keeper.stdout is not None
        assert keeper.stderr is not None
        try:
            if keeper.stdout.readline() == _READY:
                yield SmallDisk(keeper, inner, ("--mount",) if how == "as root" else ("--user", "--mount"))
                return
            said.append(f"{how}: {keeper.stderr.read().strip()}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                keeper.kill()
            keeper.wait()
            keeper.stdout.close()
            keeper.stderr.close()
    pytest.skip(f"a small {kind} cannot be mounted here ({'; '.join(said)})")
