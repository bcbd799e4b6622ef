"""What a node's machine has to offer, as findings: each says what was found, what it means, and what to do next.

Nothing is changed but for a file in the data folder that syncs are timed with, and that is removed.
"""

import os
import re
import resource
import shutil
import socket
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from bezant.cli.settings import MIB, Serve

SYNCS: Final = 50
SYNC_BYTES: Final = 4096
SYNC_P99_MS_GOOD: Final = 20.0
FILES_MIN: Final = 8192
EXPIRES_DAYS_MIN: Final = 30
SYSTEMS_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph", "glusterfs"})
SYSTEMS_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})

WARNING: Final = "warning"
ERROR: Final = "error"


class MachineFinding(msgspec.Struct, frozen=True):
    """One thing about a machine. `severity` is "good", "warning" or "error"; `next_step` is empty where all is well."""

    subject: str
    severity: str
    found: str
    next_step: str = ""


def examine_machine(settings: Serve) -> list[MachineFinding]:
    """Look at all that a node by these settings would need of this machine."""
    found: list[MachineFinding] = []
    for folder in settings.data:
        found += _disk(Path(folder), settings.free_space_floor_mib * MIB)
    found += _limits()
    found += _processor()
    found += _clock()
    found += _keys(settings)
    found += _ports(settings)
    return found


def _unescaped(text: str) -> str:
    """A path as /proc/mounts writes it: white space and backslashes in three octal digits."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _size_bytes(file: Path) -> int:
    """Of a file that a live node may take away at any moment."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def file_system_of(path: Path, mounts: Iterable[str]) -> tuple[str, str]:
    """Kind and options of the file system that has a path, by lines of /proc/mounts; "" if none has."""
    best, kind, options = "", "", ""
    resolved = f"{path.resolve()}/"
    for line in mounts:
        words = line.split()
        if len(words) < 4:
            continue
        place = _unescaped(words[1]).rstrip("/") + "/"
        if resolved.startswith(place) and len(place) >= len(best):
            best, kind, options = place, words[2], words[3]
    return kind, options


def _disk(folder: Path, floor: int) -> Iterator[MachineFinding]:
    place = folder
    while not place.exists():
        place = place.parent
    kind, options = file_system_of(place, _lines(Path("/proc/mounts")))
    if kind in SYSTEMS_IN_MEMORY:
        yield MachineFinding("file system", ERROR, f"{place} is on {kind}: nothing is durable", "use a local disk")
    elif kind in SYSTEMS_REMOTE:
        yield MachineFinding("file system", ERROR, f"{place} is on {kind}, over a network", "use a local disk")
    elif {"nobarrier", "barrier=0"} & set(options.split(",")):
        yield MachineFinding(
            "file system", ERROR, f"{kind} without barriers: syncs are no promise", "mount it with them"
        )
    else:
        yield MachineFinding("file system", "good", kind or "unknown")
    free = shutil.disk_usage(place).free
    if free < 2 * floor:
        step = "make room: at the floor the node answers STORAGE_FULL"
        yield MachineFinding("free space", ERROR if free < floor else WARNING, _mib(free), step)
    else:
        used = sum(_size_bytes(file) for file in folder.rglob("segment-*"))
        yield MachineFinding("free space", "good", f"{_mib(free)}, and {_mib(used)} are history")
    if not os.access(place, os.W_OK):
        yield MachineFinding("data folder", ERROR, f"{place} cannot be written", "run as the user whose it is")
    else:
        yield _syncs(place)
    if folder.exists() and stat.S_IMODE(folder.stat().st_mode) & 0o007:
        yield MachineFinding("data folder", WARNING, f"others may look into {folder}", f"chmod o-rwx {folder}")


def _syncs(place: Path) -> MachineFinding:
    file = place / f".sync-test-{os.getpid()}"
    times = []
    try:
        with file.open("wb", buffering=0) as opened:
            opened.write(bytes(SYNC_BYTES * SYNCS))
            os.fsync(opened.fileno())
            for number in range(SYNCS):
                os.pwrite(opened.fileno(), b"x" * SYNC_BYTES, number * SYNC_BYTES)
                begin = time.perf_counter()
                os.fdatasync(opened.fileno())
                times.append((time.perf_counter() - begin) * 1000)
    finally:
        file.unlink(missing_ok=True)
    times.sort()
    p50, p99 = times[len(times) // 2], times[-1 - len(times) // 100]
    told = f"p50 {p50:.2f} ms, p99 {p99:.2f} ms for {SYNC_BYTES} bytes"
    if p99 > SYNC_P99_MS_GOOD:
        return MachineFinding("sync", WARNING, told, "find what else writes to the disk, or take a faster one")
    return MachineFinding("sync", "good", told)


def _limits() -> Iterator[MachineFinding]:
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < FILES_MIN:
        step = f"LimitNOFILE={8 * FILES_MIN} in the unit, or ulimit -n"
        yield MachineFinding("open files", WARNING, f"{files} at most", step)
    else:
        yield MachineFinding("open files", "good", f"{files} at most")
    locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    told = "without end" if locked == resource.RLIM_INFINITY else _mib(locked)
    yield MachineFinding("locked memory", "good", told)


def _processor() -> Iterator[MachineFinding]:
    governors = {_first(path) for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor")}
    if governors and governors != {"performance"}:
        step = "cpupower frequency-set --governor performance, for even latency"
        yield MachineFinding("governor", WARNING, ", ".join(sorted(governors)), step)
    else:
        yield MachineFinding("governor", "good", ", ".join(governors) or "not told by this machine")
    pages = _first(Path("/sys/kernel/mm/transparent_hugepage/enabled"))
    chosen = pages.partition("[")[2].partition("]")[0] or "not told by this machine"
    if chosen == "always":
        step = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled, against stalls"
        yield MachineFinding("huge pages", WARNING, chosen, step)
    else:
        yield MachineFinding("huge pages", "good", chosen)


def _clock() -> Iterator[MachineFinding]:
    import ctypes

    # adjtimex(2) with modes 0 changes nothing; it answers TIME_ERROR while nobody keeps the clock.
    buffer = ctypes.create_string_buffer(512)
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    if state < 0:
        yield MachineFinding("clock", WARNING, "the system does not tell whether it is kept", "see to the time service")
    elif state == 5:
        step = "start a time service: a leader that is off by 500 ms hands over"
        yield MachineFinding("clock", WARNING, "nobody keeps it", step)
    else:
        yield MachineFinding("clock", "good", "kept by a time service")


def _keys(settings: Serve) -> Iterator[MachineFinding]:
    for name in ("tls_key", "cluster_token_file"):
        path = getattr(settings, name)
        if path and Path(path).exists() and stat.S_IMODE(Path(path).stat().st_mode) & 0o077:
            yield MachineFinding(name, ERROR, f"others than its owner can read {path}", f"chmod 600 {path}")
        elif path:
            ok = os.access(path, os.R_OK)
            step = "" if ok else "make one, or let this user read it"
            yield MachineFinding(name, "good" if ok else ERROR, path if ok else f"{path} cannot be read", step)
    for name in ("tls_cert", "tls_ca"):
        if getattr(settings, name):
            yield _certificate(name, Path(getattr(settings, name)))


def _certificate(name: str, path: Path) -> MachineFinding:
    from cryptography import x509

    try:
        ends = x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        return MachineFinding(name, ERROR, f"{path} is no certificate that can be read: {error}", "make another one")
    days = (ends - datetime.now(UTC)).days
    told = f"{path} ends on {ends:%Y-%m-%d}, in {days} days"
    if days < EXPIRES_DAYS_MIN:
        step = "put another one in its place, and restart the nodes one by one"
        return MachineFinding(name, ERROR if days < 0 else WARNING, told, step)
    return MachineFinding(name, "good", told)


def _ports(settings: Serve) -> Iterator[MachineFinding]:
    for key in ("listen", "reader_listen", "metrics", "reader_metrics", "echo"):
        told = getattr(settings, key)
        if not told:
            continue
        host, _, port = told.rpartition(":")
        family = socket.AF_INET6 if "[" in host else socket.AF_INET
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host.strip("[]"), int(port)))
                yield MachineFinding(key, "good", f"{told} is free")
            except OSError as error:
                step = "the node itself, if it runs; else find who has it: ss -ltnp"
                yield MachineFinding(key, WARNING, f"{told}: {error.strerror}", step)


def _lines(path: Path) -> list[str]:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    return []


def _first(path: Path) -> str:
    return next(iter(_lines(path)), "")


def _mib(count: int) -> str:
    return f"{count / MIB:,.0f} MiB"
