"""Claim: it is found out if anything of what clients were told is lost, repeated or otherwise in the logs."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.log.log import open_log
from bezant.engine.replica import shard_directory
from bezant.perf.crash.faults import FaultKind, Faults
from bezant.perf.failover.book import FAILED, OUTCOME_FIELDS, UNANSWERED, UNKNOWN, Book
from bezant.perf.failover.check import Checked, check
from bezant.perf.failover.history import History, read_history
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.records import EVENT, Records

ACCOUNTS = 4
TRANSFERS = 40
ASKED_EVERY_NS = 1000


class Run:
    """A book and the history that goes with it: every transfer is answered before the next is asked for."""

    def __init__(self) -> None:
        self.book = Book(ACCOUNTS, seed=3)
        self.events: Records = np.zeros(ACCOUNTS + TRANSFERS, EVENT)
        self.positions = np.arange(1, len(self.events) + 1)
        words = self.book.account_words
        openings = self.events[:ACCOUNTS]
        openings["kind"] = CommandKind.OPEN
        openings["debit_head"], openings["debit_tail"] = words[:, 0], words[:, 1]
        balances = [0] * ACCOUNTS
        debited, credited, amounts = self.book.asked(np.arange(TRANSFERS))
        for number in range(TRANSFERS):
            debit, credit, amount = int(debited[number]), int(credited[number]), int(amounts[number])
            balances[debit] -= amount
            balances[credit] += amount
            event = self.events[ACCOUNTS + number : ACCOUNTS + number + 1]
            event["id_head"], event["id_tail"] = self.book.prefix, number
            event["kind"] = CommandKind.TRANSFER
            event["debit_head"], event["debit_tail"] = words[debit]
            event["credit_head"], event["credit_tail"] = words[credit]
            event["amount"] = event["effective_amount"] = amount
            event["debit_balance"], event["credit_balance"] = balances[debit], balances[credit]
            event["timestamp_ns"] = 5_000 + number
            row = self.book.begin(number * ASKED_EVERY_NS)
            self.answer(row, int(event["result"][0]))

    def answer(self, row: int, code: int) -> None:
        """Have a client told what its event says."""
        number = ACCOUNTS + row
        event = self.events[number]
        told = (int(self.positions[number]), *(int(event[name]) for name in OUTCOME_FIELDS))
        answered_ns = row * ASKED_EVERY_NS + ASKED_EVERY_NS // 2
        if code < 0:
            told = (0,) * len(told)
        self.book.end(row, answered_ns, (code, *told))

    def tell(self, row: int, **changes: int) -> None:
        """Have a client told something else."""
        for name, value in changes.items():
            self.book.answers[name][row] = value

    def remove(self, row: int) -> None:
        number = ACCOUNTS + row
        self.events = np.delete(self.events, number)
        self.positions = np.delete(self.positions, number)

    def repeat(self, row: int) -> None:
        self.events = np.concatenate([self.events, self.events[ACCOUNTS + row : ACCOUNTS + row + 1]])
        self.positions = np.append(self.positions, self.positions[-1] + 1)

    def check(self) -> tuple[Checked, dict[FaultKind, int]]:
        faults = Faults()
        history = History(self.events, self.positions, len(self.events), {1: 1, 2: 1, 3: 1}, 1)
        checked = check(self.book, history, faults)
        return checked, {kind: count for kind, count in faults.counts.items() if count}


@pytest.fixture
def run() -> Run:
    return Run()


def test_what_is_right_has_no_fault(run: Run) -> None:
    checked, faults = run.check()
    assert faults == {}
    assert (checked.acknowledged, checked.events) == (TRANSFERS, ACCOUNTS + TRANSFERS)
    assert (checked.unknown_found, checked.unknown_absent) == (0, 0)


def test_unknown_ones_may_be_there_or_not(run: Run) -> None:
    run.answer(TRANSFERS - 1, UNKNOWN)
    run.answer(TRANSFERS - 2, UNANSWERED)
    run.answer(7, UNKNOWN)
    run.remove(TRANSFERS - 1)
    checked, faults = run.check()
    assert faults == {}
    assert (checked.acknowledged, checked.unknown_found, checked.unknown_absent) == (TRANSFERS - 3, 2, 1)


def test_one_that_failed_must_not_be_there(run: Run) -> None:
    run.answer(TRANSFERS - 1, FAILED)
    assert run.check()[1] == {FaultKind.CHANGED: 1}
    run.remove(TRANSFERS - 1)
    assert run.check()[1] == {}


def swap_results(run: Run) -> None:
    """Two answers of the same moment change places, as if replies were sent to the wrong requests."""
    first, second = run.book.answers[5].copy(), run.book.answers[6].copy()
    for name in ("position", *OUTCOME_FIELDS):
        run.tell(5, **{name: int(second[name])})
        run.tell(6, **{name: int(first[name])})


def swap_events(run: Run) -> None:
    """The log has two transfers in the other order than that in which they were asked and answered, and so told."""
    numbers = [ACCOUNTS + 5, ACCOUNTS + 6]
    run.positions[numbers] = run.positions[numbers[::-1]]
    run.tell(5, position=int(run.positions[numbers[0]]))
    run.tell(6, position=int(run.positions[numbers[1]]))


def change(field: str, by: int = 1) -> Callable[[Run], None]:
    def plant(run: Run) -> None:
        run.events[field][ACCOUNTS + 9] += by

    plant.__name__ = f"change_{field}"
    return plant


def never_asked(run: Run) -> None:
    run.repeat(3)
    run.events["id_tail"][-1] = TRANSFERS + 1


def of_somebody_else(run: Run) -> None:
    run.repeat(3)
    run.events["id_head"][-1] += 1


def opened_twice(run: Run) -> None:
    run.events = np.concatenate([run.events, run.events[:1]])
    run.positions = np.append(run.positions, run.positions[-1] + 1)


def not_opened(run: Run) -> None:
    run.events, run.positions = run.events[1:], run.positions[1:]


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lambda run: run.remove(9), FaultKind.MISSING),
        (lambda run: run.remove(TRANSFERS - 1), FaultKind.MISSING),
        (lambda run: run.repeat(9), FaultKind.REPEATED),
        (change("amount"), FaultKind.CHANGED),
        (change("effective_amount"), FaultKind.CHANGED),
        (change("credit_head"), FaultKind.CHANGED),
        (change("debit_tail"), FaultKind.CHANGED),
        (change("flags"), FaultKind.CHANGED),
        (change("result", int(ResultCode.INSUFFICIENT_FUNDS)), FaultKind.CHANGED),
        (change("debit_balance"), FaultKind.CHANGED),
        (change("credit_balance"), FaultKind.CHANGED),
        (change("timestamp_ns"), FaultKind.CHANGED),
        (lambda run: run.tell(9, position=1000), FaultKind.CHANGED),
        (lambda run: run.tell(9, code=int(ResultCode.INSUFFICIENT_FUNDS)), FaultKind.CHANGED),
        (lambda run: run.tell(9, code=int(ResultCode.OVERLOADED)), FaultKind.CHANGED),
        (lambda run: run.tell(9, debit_balance=123_456), FaultKind.CHANGED),
        (swap_results, FaultKind.CHANGED),
        (swap_events, FaultKind.REORDERED),
        (never_asked, FaultKind.UNEXPLAINED),
        (of_somebody_else, FaultKind.UNEXPLAINED),
        (opened_twice, FaultKind.REPEATED),
        (not_opened, FaultKind.MISSING),
    ],
)
def test_a_planted_fault_is_found(run: Run, plant: Callable[[Run], None], kind: FaultKind) -> None:
    plant(run)
    assert run.check()[1].get(kind, 0) > 0


def test_what_was_asked_before_an_answer_came_may_lie_either_way(run: Run) -> None:
    swap_events(run)
    run.tell(6, sent_ns=5 * ASKED_EVERY_NS)
    assert FaultKind.REORDERED not in run.check()[1]


# ---- the logs


class Logs:
    """Three folders with logs that are written by hand."""

    def __init__(self, folder: Path) -> None:
        self.folders = {node: folder / f"node-{node}" for node in (1, 2, 3)}
        self._logs = {}
        for node, data in self.folders.items():
            directory = shard_directory(data, 0)
            directory.create()
            log = open_log(directory, segment_size=1 << 20, free_space_floor=0)
            log.log_id = 77
            assert list(log.open()) == []
            log.term = 1
            self._logs[node] = log

    def append(self, amount: int, *nodes: int, kind: EntryKind = EntryKind.EVENTS) -> None:
        events = np.zeros(2, EVENT)
        events["amount"] = amount
        for node in nodes or (1, 2, 3):
            log = self._logs[node]
            index = log.last_index + 1
            log.append(
                kind, events.tobytes(), first_sequence=2 * index - 1, count=2, timestamp_ns=index, rules_version=1
            )
            group = log.begin_group()
            assert group is not None
            group.write_and_sync()
            log.finish_group(group)

    def read(self, committed: int = 0) -> tuple[History, list[str]]:
        for log in self._logs.values():
            log.commit_index = min(committed, log.last_index)
            log.close()
        faults = Faults()
        history = read_history(self.folders, faults)
        return history, [f"{fault.kind}: {fault.text}" for fault in faults.told]


@pytest.fixture
def logs(tmp_path: Path) -> Iterator[Logs]:
    return Logs(tmp_path)


def test_logs_that_are_the_same_are_read_once(logs: Logs) -> None:
    for amount in (5, 6, 7):
        logs.append(amount)
    history, faults = logs.read(3)
    assert faults == []
    assert (history.entries, history.ends, history.committed) == (3, {1: 3, 2: 3, 3: 3}, 3)
    assert history.events["amount"].tolist() == [5, 5, 6, 6, 7, 7]
    assert history.positions.tolist() == [1, 2, 3, 4, 5, 6]


def test_a_tail_that_only_one_has_is_no_history(logs: Logs) -> None:
    logs.append(5)
    logs.append(6, 2)
    history, faults = logs.read(1)
    assert faults == []
    assert (history.entries, len(history.events), history.ends) == (1, 2, {1: 1, 2: 2, 3: 1})


def test_what_a_majority_has_is_history(logs: Logs) -> None:
    logs.append(5)
    logs.append(6, 1, 3)
    logs.append(9, 2)
    history, faults = logs.read(1)
    assert faults == []
    assert history.events["amount"].tolist() == [5, 5, 6, 6]


def test_a_committed_entry_that_differs_is_a_fault(logs: Logs) -> None:
    logs.append(5)
    logs.append(6, 1, 3)
    logs.append(9, 2)
    history, faults = logs.read(2)
    assert history.entries == 2
    assert faults == ["changed: entry 2 was committed, and is not the same on all nodes: nodes [1, 3] and nodes [2]"]


def test_a_committed_entry_that_no_majority_has_is_a_fault(logs: Logs) -> None:
    logs.append(5)
    for node in (1, 2, 3):
        logs.append(node, node)
    _, faults = logs.read(2)
    assert any(fault.startswith("missing: entry 2 was committed") for fault in faults)
