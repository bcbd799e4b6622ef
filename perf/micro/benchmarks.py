"""What is timed, as a table: each benchmark runs its loops and returns the seconds that the timed part of them took.

A benchmark makes what it needs at its first use, outside the time, since each runs in processes of its own. The figure
that pyperf shows is for one transfer, frame, byte or batch, as the name says.
"""

import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import blake3
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from bezant.engine.compiled import kernel
from bezant.engine.hashing import xxh3_64
from bezant.engine.ledger.ledger import Ledger
from bezant.engine.log.log import open_log
from bezant.engine.log.storage import Directory
from bezant.net.server.frame_kernels import CURSOR_FRAMES, CURSOR_SIZE, CURSOR_VERIFIED, FRAME, scan_frames
from bezant.perf.load.books import CURRENCY, LoadAccounts, opening_commands
from bezant.perf.load.frames import SHORT_FRAME_SIZE, build_commands
from bezant.perf.load.ring import seed_word
from bezant.protocol.frames import BATCH_COUNT_MAX, FRAME_HEADER_SIZE, frame_checksum
from bezant.protocol.kinds import EntryKind
from bezant.protocol.receipts import (
    Receipt,
    TreeHead,
    check_receipt,
    encode_receipt,
    hash_leaf,
    head_bytes,
    path_length,
    root_of_path,
)
from bezant.protocol.records import COMMAND, COMMAND_SIZE, EVENT_SIZE, RULES_VERSION, Bytes, Records

BATCH: Final = 8189
ACCOUNT_COUNT: Final = 10_000
FRAME_RUN: Final = 1024


class Benchmark(NamedTuple):
    """A name, how many of the unit one loop holds, and the function from loops to seconds."""

    name: str
    units_per_loop: int
    run: Callable[[int], float]


class Transfers:
    """An endless supply of frames of transfers, each id used once."""

    def __init__(self, batch: int) -> None:
        self.frames: Bytes = np.zeros(FRAME_HEADER_SIZE + batch * COMMAND_SIZE, np.uint8)
        self._batch = batch
        self._accounts = _accounts()
        self._random = np.array([seed_word(batch)], np.int64)  # batches of each size have ids of their own

    def next(self) -> Records:
        """The commands of the next frame, in memory that the one after it will use again."""
        words, checksums = self.frames.view(np.int64), self.frames.view(np.uint64)
        heads, tails = self._accounts.heads, self._accounts.tails
        build_commands(self.frames, words, checksums, 0, 1, self._batch, self._batch, 0, heads, tails, self._random)
        return self.frames[FRAME_HEADER_SIZE:].view(COMMAND)


@cache
def _accounts() -> LoadAccounts:
    return LoadAccounts(ACCOUNT_COUNT)


@cache
def _ledger() -> Ledger:
    """A ledger with the accounts open. It keeps growing, as a node's does."""
    ledger = Ledger(fetch_events=_no_events)
    ledger.register_currency(CURRENCY, 2)
    for start in range(0, ACCOUNT_COUNT, BATCH_COUNT_MAX):
        commands = opening_commands(_accounts(), range(start, min(start + BATCH_COUNT_MAX, ACCOUNT_COUNT)))
        ledger.execute(commands, ledger.last_timestamp_ns + 1)
    return ledger


def _no_events(_sequences: "np.typing.NDArray[np.int64]") -> Records:
    raise LookupError("a benchmark repeats no id")


def _execute(batch: int) -> Callable[[int], float]:
    @cache
    def transfers() -> Transfers:
        return Transfers(batch)

    def run(loops: int) -> float:
        ledger, source = _ledger(), transfers()
        ledger.execute(source.next(), ledger.last_timestamp_ns + 1)
        total_s = 0.0
        for _ in range(loops):
            commands = source.next()
            started = time.perf_counter()
            ledger.execute(commands, ledger.last_timestamp_ns + 1)
            total_s += time.perf_counter() - started
        return total_s

    return run


def _build_frames(batch: int) -> Callable[[int], float]:
    def run(loops: int) -> float:
        source = Transfers(batch)
        source.next()
        started = time.perf_counter()
        for _ in range(loops):
            source.next()
        return time.perf_counter() - started

    return run


@kernel
def checksum_frames(frames: Bytes, size: int, count: int) -> int:
    """The checksums of `count` frames of `size` bytes, folded so that none can be left out."""
    folded = np.uint64(0)
    for number in range(count):
        folded ^= xxh3_64(frames, number * size + 8, (number + 1) * size)
    return int(folded >> np.uint64(1))


def _checksum_short_frames(loops: int) -> float:
    frames = _random_bytes(FRAME_RUN * SHORT_FRAME_SIZE)
    checksum_frames(frames, SHORT_FRAME_SIZE, FRAME_RUN)
    started = time.perf_counter()
    for _ in range(loops):
        checksum_frames(frames, SHORT_FRAME_SIZE, FRAME_RUN)
    return time.perf_counter() - started


def _scan_short_frames(loops: int) -> float:
    """The server's scan of pipelined frames of one transfer, checksum included, into the columns of a batch."""
    source = Transfers(1)
    received = np.concatenate([(source.next(), source.frames.copy())[1] for _ in range(FRAME_RUN)])
    command_words = np.zeros((FRAME_RUN, COMMAND_SIZE // 8), np.int64)
    frames = np.zeros(FRAME_RUN, FRAME)
    cursor = np.zeros(CURSOR_SIZE, np.int64)

    def scan() -> int:
        cursor[:] = 0
        cursor[CURSOR_VERIFIED] = -1
        scan_frames(received, len(received), command_words, frames, 1, cursor)
        return int(cursor[CURSOR_FRAMES])

    if scan() != FRAME_RUN:
        raise LookupError("the scan does not take all frames of the benchmark")
    started = time.perf_counter()
    for _ in range(loops):
        scan()
    return time.perf_counter() - started


def _checksum_long_frame(loops: int) -> float:
    frame = memoryview(_random_bytes(FRAME_HEADER_SIZE + BATCH * COMMAND_SIZE).data)
    started = time.perf_counter()
    for _ in range(loops):
        frame_checksum(frame)
    return time.perf_counter() - started


def _chain_hash(loops: int) -> float:
    body = _random_bytes(BATCH * EVENT_SIZE).data
    started = time.perf_counter()
    for _ in range(loops):
        blake3.blake3(body).digest()
    return time.perf_counter() - started


def _append_and_sync(count: int) -> Callable[[int], float]:
    def run(loops: int) -> float:
        body = _random_bytes(count * EVENT_SIZE).data
        with tempfile.TemporaryDirectory(prefix="bezant-micro-") as folder:
            log = open_log(Directory(Path(folder)), free_space_floor=0)
            for _ in log.open():
                raise LookupError("a new log has an entry")
            started = time.perf_counter()
            for number in range(loops):
                if not log.has_room(body.nbytes):
                    raise OSError(f"{folder} has no room for the log of the benchmark")
                log.append(
                    EntryKind.EVENTS,
                    body,
                    first_sequence=1 + number * count,
                    count=count,
                    timestamp_ns=1 + number * count,
                    rules_version=RULES_VERSION,
                )
                group = log.begin_group()
                if group is None:
                    raise LookupError("an entry was appended and there is nothing to write")
                group.write_and_sync()
                log.finish_group(group)
                log.tidy()
            total_s = time.perf_counter() - started
            log.close()
        return total_s

    return run


@cache
@cache
def _receipt() -> bytes:
    """A receipt over a hundred million events."""
    number, size = 12_345_678, 100_000_000
    path = tuple(blake3.blake3(bytes([step])).digest() for step in range(path_length(number, size)))
    salt, event = bytes(16), bytes(EVENT_SIZE)
    root = root_of_path(number, size, hash_leaf(salt, event, number + 1), path)
    private = Ed25519PrivateKey.generate()
    key = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    signature = private.sign(head_bytes(bytes(8), size, 1, root))
    return encode_receipt(Receipt(TreeHead(bytes(8), size, 1, root, key, signature), number + 1, event, salt, path))


def _check_receipt(loops: int) -> float:
    receipt = _receipt()
    started = time.perf_counter()
    for _ in range(loops):
        check_receipt(receipt)
    return time.perf_counter() - started


def _random_bytes(size: int) -> Bytes:
    return np.random.default_rng(1).integers(0, 256, size, np.uint8)


BENCHMARKS: Final[tuple[Benchmark, ...]] = (
    Benchmark("ledger: execute, a transfer of a batch of 8189", BATCH, _execute(BATCH)),
    Benchmark("ledger: execute, a batch of 1", 1, _execute(1)),
    Benchmark("server: scan, a frame of one transfer", FRAME_RUN, _scan_short_frames),
    Benchmark("xxh3: a frame of one transfer, in a kernel", FRAME_RUN, _checksum_short_frames),
    Benchmark("xxh3: a frame of 8189 transfers", 1, _checksum_long_frame),
    Benchmark("blake3: the events of a batch of 8189", 1, _chain_hash),
    Benchmark("receipt: check one over 100 M events", 1, _check_receipt),
    Benchmark("log: append and sync, 1 event", 1, _append_and_sync(1)),
    Benchmark("log: append and sync, 8189 events", 1, _append_and_sync(BATCH)),
    Benchmark("load: build, a transfer of a frame of 8189", BATCH, _build_frames(BATCH)),
)
