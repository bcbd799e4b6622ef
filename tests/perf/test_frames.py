"""Claim: the frames that the kernels build are frames of the protocol, with the transfers that were asked for."""

import os
import subprocess
import sys

import numpy as np
import pytest

from bezant.perf.load.books import LoadAccounts
from bezant.perf.load.frames import AMOUNT_MAX, IDS_PER_MILLISECOND, build_commands, draw
from bezant.perf.load.ring import FrameRing, seed_word
from bezant.protocol.frames import FRAME_HEADER_SIZE, Operation, check_frame
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import COMMAND

USED = ("id", "debit", "credit")


def frames_of(ring: FrameRing) -> list[tuple[int, np.ndarray]]:
    """(request id, commands) of every frame of a ring, each checked as a node would."""
    ring.prepare()
    found = []
    while True:
        count, run = ring.take(1, 0, 1)
        if not count:
            return found
        header = check_frame(run)
        assert (header.operation, header.flags, header.timeout_ms) == (Operation.COMMANDS, 0, 0)
        found.append((header.request_id, np.frombuffer(bytes(run[FRAME_HEADER_SIZE:]), COMMAND)))


def all_transfers(ring: FrameRing) -> np.ndarray:
    return np.concatenate([commands for _, commands in frames_of(ring)])


@pytest.mark.parametrize("rising_ids", [False, True])
@pytest.mark.parametrize(("transfers", "batch"), [(1, 1), (50, 1), (50, 2), (7, 3), (200, 200), (201, 200)])
def test_frames_carry_all_transfers(make_ring, transfers: int, batch: int, rising_ids: bool) -> None:
    frames = frames_of(make_ring(transfers=transfers, batch=batch, rising_ids=rising_ids))
    assert [request_id for request_id, _ in frames] == list(range(-(-transfers // batch)))
    counts = [len(commands) for _, commands in frames]
    assert counts[:-1] == [batch] * (len(frames) - 1)
    assert sum(counts) == transfers


def test_transfers_go_between_two_different_accounts(make_ring) -> None:
    accounts = LoadAccounts(10)
    transfers = all_transfers(make_ring(transfers=4000, batch=400, frames_in_flight_max=1))
    assert set(transfers["debit_head"]) == set(transfers["credit_head"]) == set(accounts.heads)
    assert set(transfers["debit_tail"]) == set(transfers["credit_tail"]) == set(accounts.tails)
    assert np.all(transfers["debit_head"] != transfers["credit_head"])
    assert set(transfers["amount"]) == set(range(1, AMOUNT_MAX + 1))
    assert np.all(transfers["kind"] == CommandKind.TRANSFER)
    for name in COMMAND.names:
        if name not in {"amount", "kind"} and not name.startswith(USED):
            assert np.all(transfers[name] == 0), name


def test_two_accounts_are_enough(make_ring) -> None:
    accounts = LoadAccounts(2)
    ring = FrameRing(
        transfers=64,
        batch=64,
        frames_in_flight_max=1,
        rising_ids=False,
        seed=1,
        account_heads=accounts.heads,
        account_tails=accounts.tails,
    )
    transfers = all_transfers(ring)
    assert np.all(transfers["debit_head"] != transfers["credit_head"])
    assert len(set(transfers["debit_head"])) == 2


def id_bytes_of(transfers: np.ndarray) -> list[bytes]:
    words = np.stack([transfers["id_head"], transfers["id_tail"]], axis=1).astype("<i8")
    return [row.tobytes() for row in words]


def test_random_ids_differ_and_repeat_with_the_seed(make_ring) -> None:
    first = id_bytes_of(all_transfers(make_ring(transfers=2000, seed=1)))
    again = id_bytes_of(all_transfers(make_ring(transfers=2000, seed=1)))
    other = id_bytes_of(all_transfers(make_ring(transfers=2000, seed=2)))
    assert first == again
    assert len(set(first + other)) == 4000


def test_rising_ids_are_like_uuid_version_7(make_ring) -> None:
    accounts = LoadAccounts(2)
    count, millisecond = IDS_PER_MILLISECOND + 10, 0x0199_1234_ABCD
    memory = np.zeros(FRAME_HEADER_SIZE + count * COMMAND.itemsize, np.uint8)
    random = np.array([seed_word(1)], np.int64)
    words, checksums = memory.view(np.int64), memory.view(np.uint64)
    build_commands(memory, words, checksums, 0, 1, count, count, millisecond, accounts.heads, accounts.tails, random)
    ids = id_bytes_of(memory[FRAME_HEADER_SIZE:].view(COMMAND))
    assert ids == sorted(ids)
    assert len(set(ids)) == count
    assert {identifier[:6] for identifier in ids[:IDS_PER_MILLISECOND]} == {millisecond.to_bytes(6, "big")}
    assert {identifier[:6] for identifier in ids[IDS_PER_MILLISECOND:]} == {(millisecond + 1).to_bytes(6, "big")}
    assert all(identifier[6] >> 4 == 7 and identifier[8] >> 6 == 2 for identifier in ids)


def test_rising_ids_rise_over_the_whole_run(make_ring) -> None:
    ids = id_bytes_of(all_transfers(make_ring(transfers=3000, batch=100, rising_ids=True)))
    assert ids == sorted(ids)


def test_the_generator_is_never_zero_and_does_not_stick() -> None:
    random = np.array([seed_word(0)], np.int64)
    drawn = [int(draw(random)) for _ in range(1000)]
    assert 0 not in drawn
    assert len(set(drawn)) == 1000
    assert seed_word(0) != seed_word(1)


PROGRAM = """
import hashlib
import numpy as np
from bezant.perf.load.books import LoadAccounts
from bezant.perf.load.frames import build_commands
from bezant.perf.load.mixed import UNFUNDED_COUNT, build_parts, lay_out_parts
from bezant.perf.load.ring import seed_word
from bezant.perf.load.zipf import zipf_table
accounts, digest = LoadAccounts(5), hashlib.sha256()
for batch, millisecond in ((1, 0), (1, 1_700_000_000_000), (3, 1_700_000_000_000)):
    memory = np.zeros(8 * (32 + 128 * batch), np.uint8)
    random = np.array([seed_word(3)], np.int64)
    build_commands(
        memory, memory.view(np.int64), memory.view(np.uint64), 0, 6, 6 * batch - (batch > 1), batch, millisecond,
        accounts.heads, accounts.tails, random,
    )
    digest.update(memory)
heads, tails = (np.arange(5 + UNFUNDED_COUNT + 1) + first for first in (100, 200))
for millisecond in (0, 1_700_000_000_000):
    memory = np.zeros(4 * (32 + 128 * 40), np.uint8)
    parts, random = lay_out_parts(4, 40, 3), np.array([seed_word(3)], np.int64)
    for first in (0, 4, 8):
        build_parts(
            memory, memory.view(np.int64), memory.view(np.uint64), first, 4, 11 * 40 + 3, 40, millisecond,
            parts, zipf_table(5, 1.1), heads, tails, random,
        )
        digest.update(memory)
print(digest.hexdigest())
"""


def test_the_same_frames_come_out_uncompiled() -> None:
    digests = set()
    for disabled in ("0", "1"):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled}
        command = [sys.executable, "-W", "error", "-c", PROGRAM]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert run.returncode == 0, run.stderr
        digests.add(run.stdout)
    assert len(digests) == 1
