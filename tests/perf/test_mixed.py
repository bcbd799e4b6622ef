"""Claim: a mixed load has the parts that were promised, and the outcome of each is known ahead."""

from collections import Counter

import numpy as np
import pytest

from bezant.perf.load.frames import AMOUNT_MAX
from bezant.perf.load.limits import check_mixed, mixed_slots, slots_max
from bezant.perf.load.mixed import HOLD_TIMEOUT_MS_MIN, UNFUNDED_COUNT, Part, lay_out_parts
from bezant.perf.load.ring import FrameRing, ReceiveBuffer
from bezant.perf.load.zipf import zipf_table
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import UsageError
from bezant.protocol.frames import FRAME_HEADER_SIZE, FrameFlag, Operation, check_frame, encode_frame
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.records import COMMAND, RESULT

ACCOUNTS = 50
UNFUNDED = range(ACCOUNTS, ACCOUNTS + UNFUNDED_COUNT)
UNKNOWN = ACCOUNTS + UNFUNDED_COUNT


def mixed_ring(**changes: object) -> FrameRing:
    """A ring whose accounts have their number as the head of their id, and that plus 1000 as its tail."""
    numbers = np.arange(UNKNOWN + 1)
    settings = {"transfers": 10_000, "batch": 100, "frames_in_flight_max": 4, "rising_ids": False, "seed": 7} | changes
    table = zipf_table(ACCOUNTS, 1.1)
    return FrameRing(**settings, account_heads=numbers, account_tails=numbers + 1000, table=table, mixed=True)


def expected_code(command: np.void) -> ResultCode:
    """What a node must answer, told from the command alone."""
    if command["debit_head"] in UNFUNDED:
        return ResultCode.INSUFFICIENT_FUNDS
    return ResultCode.CREDIT_ACCOUNT_UNKNOWN if command["credit_head"] == UNKNOWN else ResultCode.COMMITTED


def reply_to(frame: int, commands: np.ndarray) -> bytes:
    results = np.zeros(len(commands), RESULT)
    results["code"] = [expected_code(command) for command in commands]
    return encode_frame(Operation.COMMANDS, frame, results.tobytes(), flags=FrameFlag.REPLY)


def run_through(ring: FrameRing, in_flight: int = 4) -> list[np.ndarray]:
    """Send all frames, `in_flight` at a time, and answer them in the opposite order; the commands of each."""
    frames: list[np.ndarray] = []
    buffer = ReceiveBuffer(1 << 20)
    while not ring.finished:
        waiting = []
        while len(waiting) < in_flight and ring.sent < ring.frame_count:
            count, run = ring.take(1, 0, 1)
            if not count:
                break
            header = check_frame(run)
            assert header.request_id == len(frames)
            frames.append(np.frombuffer(bytes(run[FRAME_HEADER_SIZE:]), COMMAND))
            waiting.append(reply_to(header.request_id, frames[-1]))
        data = b"".join(reversed(waiting))
        buffer.room(len(data))[: len(data)] = data
        buffer.end += len(data)
        assert ring.take_replies(buffer, 0, 2) == len(waiting) > 0
    return frames


def ids(commands: np.ndarray, name: str = "id") -> list[tuple[int, int]]:
    return list(zip(commands[f"{name}_head"].tolist(), commands[f"{name}_tail"].tolist(), strict=True))


@pytest.mark.parametrize("batch", [8, 9, 40, 100, 8189])
def test_the_parts_have_the_shares_that_were_promised(batch: int) -> None:
    slots = 16
    parts = lay_out_parts(slots, batch, 1)
    counts = Counter(parts.tolist())
    total = slots * batch
    assert counts[Part.HOLD] == counts[Part.CAPTURE] == total // 10
    assert counts[Part.LINKED] == 3 * (total // 40)
    assert counts[Part.CHAIN_END] == total // 40
    assert counts[Part.UNFUNDED] + counts[Part.UNKNOWN] == total // 50
    assert 0 <= counts[Part.UNFUNDED] - counts[Part.UNKNOWN] <= 1
    assert counts.total() == total


@pytest.mark.parametrize("batch", [8, 9, 40, 100, 8189])
def test_chains_are_whole_and_captures_have_a_hold_behind_them(batch: int) -> None:
    for row in lay_out_parts(8, batch, 2).reshape(8, batch):
        chained = "".join({Part.LINKED: "L", Part.CHAIN_END: "E"}.get(part, " ") for part in row.tolist())
        assert set(chained.replace("LLLE", "").strip()) <= {" "}
        held = [part for part in row.tolist() if part in {Part.HOLD, Part.CAPTURE}]
        assert held == [Part.CAPTURE, Part.HOLD] * (len(held) // 2)


def test_parts_follow_the_seed_and_slots_differ() -> None:
    first = lay_out_parts(2, 500, 1)
    assert np.array_equal(first, lay_out_parts(2, 500, 1))
    assert not np.array_equal(first, lay_out_parts(2, 500, 2))
    assert not np.array_equal(first[:500], first[500:])


@pytest.mark.parametrize("rising_ids", [False, True])
@pytest.mark.parametrize(("transfers", "batch"), [(10_000, 100), (10_055, 100), (3000, 8), (900, 100), (10_000, 999)])
def test_every_hold_is_captured_once_by_a_later_frame(transfers: int, batch: int, rising_ids: bool) -> None:
    ring = mixed_ring(transfers=transfers, batch=batch, rising_ids=rising_ids)
    frames = run_through(ring)
    made: dict[tuple[int, int], tuple[int, np.void]] = {}
    captured: set[tuple[int, int]] = set()
    whole = partly = 0
    for number, commands in enumerate(frames):
        for command in commands[commands["kind"] == CommandKind.CAPTURE]:
            (reference,) = ids(command.reshape(1), "reference")
            frame, hold = made[reference]
            assert number - frame == ring.slots
            assert reference not in captured
            captured.add(reference)
            for name in ("debit_head", "debit_tail", "credit_head", "credit_tail"):
                assert command[name] == hold[name]
            assert 0 <= command["amount"] <= hold["amount"]
            whole += int(command["amount"] == 0)
            partly += int(0 < command["amount"] < hold["amount"])
        holds = commands[commands["kind"] == CommandKind.HOLD]
        assert np.all(holds["timeout_ms"] >= HOLD_TIMEOUT_MS_MIN)
        made |= {identifier: (number, hold) for identifier, hold in zip(ids(holds), holds, strict=True)}
    assert captured == set(made)
    kinds = ring.kinds()
    assert (kinds["hold"], kinds["capture"]) == (len(made), len(captured))
    # A tenth of all commands, but for the last frames: what these held nobody would capture.
    assert len(made) == pytest.approx(max(0, transfers // batch - ring.slots) * batch / 10, rel=0.05)
    if len(made) > 100:
        assert min(whole, partly) > 0.3 * len(made)


def test_every_command_is_one_of_the_plan_and_counted() -> None:
    ring = mixed_ring(transfers=10_055)
    frames = run_through(ring)
    commands = np.concatenate(frames)
    kinds = ring.kinds()
    assert sum(kinds.values()) == len(commands) == 10_055
    assert (kinds["chained"], kinds["refused"]) == (1000, 200)
    assert ring.rejected_codes() == {"INSUFFICIENT_FUNDS": 100, "CREDIT_ACCOUNT_UNKNOWN": 100}
    assert ring.accepted == 10_055 - 200
    linked = commands["flags"] == CommandFlag.LINKED
    assert np.all(linked | (commands["flags"] == 0))
    assert linked.sum() == 750
    assert all(frame["flags"][-1] == 0 for frame in frames)
    assert np.all(commands["kind"][linked] == CommandKind.TRANSFER)
    moves = commands[commands["kind"] != CommandKind.CAPTURE]
    assert set(moves["kind"]) == {CommandKind.TRANSFER, CommandKind.HOLD}
    assert set(moves["amount"]) == set(range(1, AMOUNT_MAX + 1))
    assert not moves["reference_head"].any()
    assert not moves["reference_tail"].any()
    assert not commands["timeout_ms"][commands["kind"] != CommandKind.HOLD].any()
    for name in ("user_data_head", "user_data_tail", "client_timestamp_ns", "currency", "code", "reserved"):
        assert not commands[name].any(), name
    assert len(set(ids(commands))) == len(commands)


def test_accounts_are_chosen_by_zipfs_law_and_differ() -> None:
    commands = np.concatenate(run_through(mixed_ring(transfers=40_000)))
    assert np.all(commands["debit_head"] != commands["credit_head"])
    assert np.all(commands["debit_tail"] == commands["debit_head"] + 1000)
    assert np.all(commands["credit_tail"] == commands["credit_head"] + 1000)
    funded = commands["debit_head"][commands["debit_head"] < ACCOUNTS]
    assert set(commands["debit_head"][commands["debit_head"] >= ACCOUNTS]) == set(UNFUNDED)
    # The debit account is drawn by the law; the credit account by the law among the others.
    law = np.arange(1, ACCOUNTS + 1) ** -1.1 / (np.arange(1, ACCOUNTS + 1) ** -1.1).sum()
    credited = commands["credit_head"][commands["credit_head"] < ACCOUNTS]
    credit_law = law * ((law / (1 - law)).sum() - law / (1 - law))
    for accounts, shares in ((funded, law), (credited, credit_law)):
        for account in range(10):
            assert (accounts == account).sum() == pytest.approx(shares[account] * len(accounts), rel=0.1)


def test_commands_follow_the_seed() -> None:
    first, again, other = (np.concatenate(run_through(mixed_ring(seed=seed))) for seed in (3, 3, 4))
    assert first.tobytes() == again.tobytes()
    assert not set(ids(first)) & set(ids(other))


@pytest.mark.parametrize("batch", [8, 64, 8189])
@pytest.mark.parametrize("in_flight", [1, 3, 4])
def test_the_ring_has_room_to_prepare_frames_and_no_more(batch: int, in_flight: int) -> None:
    ring = mixed_ring(transfers=1 << 40, batch=batch, frames_in_flight_max=in_flight)
    assert ring.slots == mixed_slots(in_flight, batch) <= slots_max(batch)
    assert 2 * in_flight <= ring.slots
    assert ring.slots >= 4 * ring.granule_frames


def test_a_load_without_room_for_its_parts_is_refused() -> None:
    least = (mixed_slots(2, 100) + 1) * 100
    check_mixed(least, 100, 2)
    with pytest.raises(UsageError, match=f"{least} --transfers"):
        check_mixed(least - 1, 100, 2)
    with pytest.raises(UsageError, match="--batch of 8"):
        check_mixed(1 << 30, 7, 2)


@pytest.mark.parametrize("more", [0, 55])
def test_the_least_load_has_holds(more: int) -> None:
    ring = mixed_ring(transfers=(mixed_slots(2, 100) + 1) * 100 + more, frames_in_flight_max=2)
    run_through(ring, 2)
    assert ring.kinds()["hold"] == ring.kinds()["capture"] > 0
