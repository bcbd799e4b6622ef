"""A change of rules: old history replays as it was, and a ledger is switched at one point, which is replicated.

The version after the latest lives here: under its rules a transfer may go a little below the limit. It is
written as later rules would be, in a branch on the version in force, in place of a rule that only the uncompiled kernel
lets us replace.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numba
import pytest

from bezant.engine import node_file as node_file_module
from bezant.engine import replay as replay_module
from bezant.engine.ledger import command as command_module
from bezant.engine.ledger import ledger as ledger_module
from bezant.engine.ledger.ledger import Execution, Ledger
from bezant.engine.ledger.lookups import find_account
from bezant.engine.ledger.state import COUNTER_RULES_VERSION, RULES_VERSION_FIRST, LedgerArrays
from bezant.engine.log import checking as checking_module
from bezant.engine.log.log import open_log
from bezant.engine.replay import replay_entry
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, Replica, ReplicaSettings, open_replica, shard_directory
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import CorruptLog, LedgerError, UnsupportedFormat, UsageError
from bezant.protocol.messages import ControlEntry, encode_message
from bezant.protocol.records import LIMIT_UNLIMITED, RULES_VERSION

from .model_records import Command, encode_commands
from .pair import commands_of
from .tables import MAX, open_account, transfer

FAVOUR: Final = 10
"""Minor units that a transfer may go below a limit under the later rules."""
NOW: Final = RULES_VERSION
LATER: Final = RULES_VERSION + 1
CLOCK_NS: Final = 1_800_000_000 * 10**9
needs_other_rules: Final = pytest.mark.skipif(
    not numba.config.DISABLE_JIT, reason="a compiled kernel keeps the rules it has"
)


@pytest.fixture
def knows_later_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """A later Bezant. Where kernels are compiled its rules are no others than those before."""
    rules_before = command_module.execute_transfer

    def execute_transfer(arrays: LedgerArrays, event: Any, position: int) -> int:
        number = find_account(arrays, event["debit_head"], event["debit_tail"])
        if arrays.counters[COUNTER_RULES_VERSION] < LATER or number < 0:
            return rules_before(arrays, event, position)
        row = arrays.rows[number]
        limit = row["limit"]
        if limit != LIMIT_UNLIMITED:
            row["limit"] = limit + FAVOUR
        code = rules_before(arrays, event, position)
        row["limit"] = limit
        return code

    if numba.config.DISABLE_JIT:
        monkeypatch.setattr(command_module, "execute_transfer", execute_transfer)
    monkeypatch.setattr(ledger_module, "RULES_VERSION", LATER)
    monkeypatch.setattr(node_file_module, "RULES_VERSION", LATER)
    monkeypatch.setattr(checking_module, "RULES_VERSION", LATER)
    monkeypatch.setattr(replay_module, "RULES_VERSION", LATER)


class Book:
    """A ledger, and its history as (rules in force, time, execution)."""

    def __init__(self) -> None:
        self.ledger = new_ledger()
        self.history: list[tuple[int, int, Execution]] = []

    def run(self, *commands: Command) -> list[int]:
        timestamp_ns = self.ledger.last_timestamp_ns + 1_000
        executed = self.ledger.execute(encode_commands(commands), timestamp_ns)
        self.history.append((self.ledger.rules_version, timestamp_ns, executed))
        codes: list[int] = executed.results["code"].tolist()
        return codes

    def replay(self, *, switches: bool = True) -> bool:
        """Whether the history gives the same bytes again, with or without the switch of rules in it."""
        again = new_ledger()
        is_same = True
        for version, timestamp_ns, executed in self.history:
            if switches:
                again.switch_rules(version)
            replayed = again.execute(commands_of(executed.events), timestamp_ns)
            is_same &= replayed.events.tobytes() == executed.events.tobytes()
        return is_same and again.digest() == self.ledger.digest()


def new_ledger() -> Ledger:
    ledger = Ledger(accounts_max=16, holds_max=16, ids_capacity_initial=16)
    ledger.register_currency("EUR", 2)
    return ledger


# --- Rules that are known, and unknown ones


def test_the_versions_that_this_bezant_knows() -> None:
    assert RULES_VERSION_FIRST == 1
    assert RULES_VERSION >= RULES_VERSION_FIRST
    assert new_ledger().rules_version == RULES_VERSION_FIRST


@pytest.mark.parametrize("version", [-1, 0, RULES_VERSION + 1, 2**40])
def test_unknown_rules_cannot_be_switched_on(version: int) -> None:
    ledger = new_ledger()
    before = ledger.digest()
    with pytest.raises(UsageError, match="rules"):
        ledger.switch_rules(version)
    assert (ledger.rules_version, ledger.digest()) == (RULES_VERSION_FIRST, before)


def test_switching_to_the_rules_in_force_changes_nothing() -> None:
    ledger = new_ledger()
    before = ledger.digest()
    ledger.switch_rules(RULES_VERSION_FIRST)
    assert ledger.digest() == before


def test_rules_are_not_switched_back(knows_later_rules: None) -> None:
    ledger = new_ledger()
    before = ledger.digest()
    ledger.switch_rules(LATER)
    assert ledger.digest() != before
    with pytest.raises(UsageError, match="cannot follow"):
        ledger.switch_rules(1)


def test_nothing_is_executed_under_rules_that_are_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a state of a later Bezant is loaded by an earlier one."""
    ledger = new_ledger()
    with monkeypatch.context() as later:
        later.setattr(ledger_module, "RULES_VERSION", LATER)
        ledger.switch_rules(LATER)
    with pytest.raises(LedgerError, match=f"rules {LATER}"):
        ledger.execute(encode_commands([open_account("ann")]), 1_000)
    assert ledger.account_count == 0


# --- Other rules


@needs_other_rules
def test_old_history_is_executed_as_it_was_by_a_later_bezant(request: pytest.FixtureRequest) -> None:
    book = Book()
    book.run(open_account("world", MAX), open_account("ann"))
    assert book.run(transfer("ann", "world", FAVOUR)) == [Code.INSUFFICIENT_FUNDS]
    request.getfixturevalue("knows_later_rules")
    assert book.replay()
    assert book.run(transfer("ann", "world", FAVOUR)) == [Code.INSUFFICIENT_FUNDS]
    assert book.replay()


@needs_other_rules
def test_new_rules_count_from_the_switch_on(knows_later_rules: None) -> None:
    """Refusals before it stand when they are repeated, and the history says where it was."""
    book = Book()
    refused = transfer("ann", "world", FAVOUR)
    book.run(open_account("world", MAX), open_account("ann"))
    assert book.run(refused) == [Code.INSUFFICIENT_FUNDS]
    book.ledger.switch_rules(LATER)
    assert book.run(refused, transfer("ann", "world", FAVOUR + 1)) == [Code.INSUFFICIENT_FUNDS] * 2
    assert book.run(transfer("ann", "world", FAVOUR), transfer("ann", "world", 1)) == [0, Code.INSUFFICIENT_FUNDS]
    assert book.replay()
    assert not book.replay(switches=False)


# --- In the log


@pytest.fixture
def open_here(tmp_path: Path) -> Callable[[], Replica]:
    """Opens the one replica of this test."""
    settings = ReplicaSettings(free_space_floor=0, accounts_max=16, holds_max=16, ids_memory_bytes=IDS_MEMORY_BYTES_MIN)
    return lambda: open_replica(tmp_path, settings=settings, clock_ns=lambda: CLOCK_NS)


def run(replica: Replica, *commands: Command) -> list[int]:
    codes: list[int] = replica.execute(encode_commands(commands)).results["code"].tolist()
    return codes


def switched_history(replica: Replica) -> None:
    """The same refusal before and after a switch to later rules, where these forgive it."""
    run(replica, open_account("world", MAX), open_account("ann"), transfer("ann", "world", FAVOUR))
    index = replica.switch_rules(LATER)
    assert (index, replica.switch_rules(LATER), replica.log.last_index) == (3, 3, 3)
    code = Code.COMMITTED if numba.config.DISABLE_JIT else Code.INSUFFICIENT_FUNDS
    assert run(replica, transfer("ann", "world", FAVOUR)) == [code]
    replica.write_group()


def test_a_switch_is_replicated(
    request: pytest.FixtureRequest, open_here: Callable[[], Replica], tmp_path: Path
) -> None:
    """A replica that is opened again is under the rules that it was under, and took those before up to the switch."""
    open_here().close()
    request.getfixturevalue("knows_later_rules")
    replica = open_here()
    assert replica.ledger.rules_version == NOW
    switched_history(replica)
    digest = replica.ledger.digest()
    replica.close()
    again = open_here()
    assert (again.ledger.rules_version, again.ledger.digest()) == (LATER, digest)
    again.close()
    # Each header says the rules that its entry was made under: the switch counts from the next entry on.
    log = open_log(shard_directory(tmp_path, 0), writable=False)
    assert [entry.header.rules_version for entry in log.open()] == [1, NOW, NOW, LATER]
    log.close()


def test_a_new_log_starts_with_the_latest_rules(knows_later_rules: None, open_here: Callable[[], Replica]) -> None:
    for _ in range(2):
        replica = open_here()
        assert replica.ledger.rules_version == LATER
        replica.close()


def test_an_earlier_bezant_refuses_a_log_with_later_rules(
    monkeypatch: pytest.MonkeyPatch, open_here: Callable[[], Replica]
) -> None:
    replica = open_here()
    with monkeypatch.context() as later:
        later.setattr(ledger_module, "RULES_VERSION", LATER)
        later.setattr(node_file_module, "RULES_VERSION", LATER)
        replica.switch_rules(LATER)
        replica.write_group()
    replica.close()
    with pytest.raises(UnsupportedFormat, match=f"rules {LATER}"):
        open_here()


def test_a_log_that_goes_back_to_earlier_rules_is_corrupt(
    request: pytest.FixtureRequest, open_here: Callable[[], Replica], tmp_path: Path
) -> None:
    """No node writes that, so its history is not to be believed."""
    open_here().close()
    request.getfixturevalue("knows_later_rules")
    log = open_log(shard_directory(tmp_path, 0), writable=False)
    (first,) = log.open()
    log.close()
    ledger = Ledger(accounts_max=16, holds_max=16, ids_capacity_initial=16)
    replay_entry(ledger, first)

    def replay(version: int, made_under: int) -> None:
        header = first.header._replace(rules_version=made_under)
        replay_entry(ledger, first._replace(header=header, body=encode_message(ControlEntry(rules_version=version))))

    for version, made_under in ((LATER, NOW), (0, LATER)):
        replay(version, made_under)
        assert ledger.rules_version == LATER
    with pytest.raises(CorruptLog, match="cannot follow"):
        replay(NOW, LATER)
    with pytest.raises(CorruptLog, match=f"made under rules {NOW}; in force there are rules {LATER}"):
        replay(0, NOW)
