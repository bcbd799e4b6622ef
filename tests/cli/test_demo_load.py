"""The demo's own books are right, or its promises would mean nothing."""

import time

import numpy as np

from bezant.cli.demo_load import AMOUNT_UNITS_MAX, CURRENCY, Batch, DemoLoad, is_same_outcome
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.names import account_id
from bezant.protocol.records import RESULT, id_bytes


def test_a_batch_is_transfers_between_two_wallets_each() -> None:
    load = DemoLoad(7)
    batch = load.make_batch(500)
    commands = batch.commands
    assert np.all(batch.payers != batch.payees)
    assert np.all((commands["amount"] >= 1) & (commands["amount"] <= AMOUNT_UNITS_MAX))
    assert set(commands["kind"].tolist()) == {int(CommandKind.TRANSFER)}
    for row in (0, 499):
        command = commands[row]
        payer, payee = load.names[batch.payers[row]], load.names[batch.payees[row]]
        assert id_bytes(command["debit_head"], command["debit_tail"]) == account_id(payer, CURRENCY)
        assert id_bytes(command["credit_head"], command["credit_tail"]) == account_id(payee, CURRENCY)


def test_ids_are_uuids_of_now_and_all_different() -> None:
    before_ms = time.time_ns() // 1_000_000
    commands = DemoLoad(2).make_batch(1000).commands
    ids = {id_bytes(command["id_head"], command["id_tail"]) for command in commands}
    assert len(ids) == 1000
    for identifier in ids:
        assert before_ms <= int.from_bytes(identifier[:6], "big") <= before_ms + 60_000
        assert identifier[6] >> 4 == 7
        assert identifier[8] >> 6 == 2


def test_batches_fill_frames_and_add_up() -> None:
    sizes = [len(batch.commands) for batch in DemoLoad(2).batches(2 * BATCH_COUNT_MAX + 3)]
    assert sizes == [BATCH_COUNT_MAX, BATCH_COUNT_MAX, 3]


def test_books_take_what_was_committed_and_nothing_else() -> None:
    load = DemoLoad(3)
    commands = load.make_batch(4).commands
    commands["amount"] = [10, 20, 40, 80]
    batch = Batch(commands, np.array([0, 0, 1, 2]), np.array([1, 1, 2, 0]))
    results = np.zeros(4, RESULT)
    results["code"][2] = ResultCode.INSUFFICIENT_FUNDS
    assert load.book(batch, results) == 3
    assert load.expected.tolist() == [50, 30, -80]


def test_the_same_outcome_is_a_repeat_that_differs_in_nothing() -> None:
    first = np.zeros(3, RESULT)
    first["position"] = [7, 8, 9]
    again = first.copy()
    assert not is_same_outcome(first, again), "not marked as repeats"
    again["flags"] = ResultFlag.REPEATED
    assert is_same_outcome(first, again)
    for name in ("code", "position", "timestamp_ns", "effective_amount", "debit_balance", "credit_held"):
        other = again.copy()
        other[name][1] += 1
        assert not is_same_outcome(first, other), name
