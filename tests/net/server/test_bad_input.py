"""Claim: what must not be asked is answered over the wire with its code and field, and changes nothing that may not.

A code that leaves no event leaves the whole state as it was, and the log; one that leaves an event leaves every account
and every hold as it was. Chains, holds, limits and imported rows; the rules themselves have tables of their own.
"""

import time
from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
import pytest

from bezant.protocol.codes import CODE_ROW
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CHAIN_COMMANDS_MAX, CommandField, CommandFlag, CommandKind
from bezant.protocol.names import account_id
from bezant.protocol.records import LIMIT_UNLIMITED, Records, id_words

from .books import COMMITTED, CURRENCY, WORLD, opening, transfers
from .node import Client, Node, until

ANN, BOB, EVE = "{t}ann", "{t}bob", "{t}eve"
"""They share a slot, so that the id of a hold of one is found from another."""
OPEN_HOLD, CAPTURED, RELEASED, EXPIRED, TRANSFER, CHAIN = 101, 102, 103, 104, 105, 110
HELD: Final = 100
MAX: Final = (1 << 63) - 1


def command(kind: CommandKind, identifier: int, debit: str = ANN, credit: str | None = BOB, **fields: int) -> Records:
    """One command; what `fields` do not say is zero."""
    made = transfers(1, identifier, debit, credit or BOB, 0)
    if credit is None:
        made["credit_head"] = made["credit_tail"] = 0
    made["kind"] = kind
    for field, value in fields.items():
        made[field] = value
    return made


def transfer(identifier: int, amount: int = 1, **fields: int) -> Records:
    return command(CommandKind.TRANSFER, identifier, amount=amount, **fields)


def hold(identifier: int, timeout_ms: int = 0) -> Records:
    return command(CommandKind.HOLD, identifier, amount=HELD, timeout_ms=timeout_ms)


def capture(named: int, amount: int = 0, debit: str = ANN, credit: str = BOB, **fields: int) -> Records:
    reference = {"reference_head": named, "reference_tail": int(named > 0)}
    return command(CommandKind.CAPTURE, 200, debit, credit, amount=amount, **reference, **fields)


def release(named: int, debit: str = ANN) -> Records:
    reference = {"reference_head": named, "reference_tail": 1}
    return command(CommandKind.RELEASE, 200, debit, None, **reference)


def leg(kind: CommandKind) -> Records:
    """What a coordinator would send."""
    is_try = kind in (CommandKind.TRY_DEBIT, CommandKind.TRY_CREDIT)
    return command(kind, 200, amount=int(is_try), reference_head=OPEN_HOLD, reference_tail=1)


def transit_opening(flags: int) -> Records:
    opened = opening("transit:0:1").copy()
    opened["flags"] = flags
    return opened


def limit(amount: int) -> Records:
    return command(CommandKind.SET_LIMIT, 200, ANN, None, amount=amount)


def chain(*commands: Records, closed: bool = True) -> Records:
    linked = np.concatenate(commands)
    linked["flags"] |= CommandFlag.LINKED
    if closed:
        linked["flags"][-1] &= ~int(CommandFlag.LINKED)
    return linked


def imported(timestamp_ns: int, identifier: int = 200) -> Records:
    return transfer(identifier, flags=CommandFlag.IMPORTED, client_timestamp_ns=timestamp_ns)


class Case(NamedTuple):
    """What is sent, and for each command the code, and `detail` where that is not 0."""

    name: str
    make: Callable[[int], Records]
    """The commands, made from the time of the last event in nanoseconds."""
    expected: list[Code | tuple[Code, CommandField]]


NOT_EXECUTED, IN_PART = Code.CHAIN_MEMBER_NOT_EXECUTED, Code.CHAIN_REPEATED_IN_PART
YEAR_NS: Final = 365 * 86_400 * 10**9
CASES = [
    Case("unterminated", lambda _: chain(transfer(200), transfer(201), closed=False), [Code.CHAIN_UNTERMINATED] * 2),
    Case("unterminated alone", lambda _: chain(transfer(200), closed=False), [Code.CHAIN_UNTERMINATED]),
    Case(
        "too long",
        lambda _: chain(*(transfer(200 + number) for number in range(CHAIN_COMMANDS_MAX + 1))),
        [Code.CHAIN_TOO_LONG] * (CHAIN_COMMANDS_MAX + 1),
    ),
    Case(
        "too long and unterminated",
        lambda _: chain(*(transfer(200 + number) for number in range(CHAIN_COMMANDS_MAX + 1)), closed=False),
        [Code.CHAIN_UNTERMINATED] * (CHAIN_COMMANDS_MAX + 1),
    ),
    Case("an id twice", lambda _: chain(transfer(200), transfer(201), transfer(200)), [IN_PART] * 3),
    Case("a known id within", lambda _: chain(transfer(200), transfer(TRANSFER)), [IN_PART] * 2),
    Case(
        "a known chain with one more",
        lambda _: chain(transfer(CHAIN), transfer(CHAIN + 1), transfer(200)),
        [IN_PART] * 3,
    ),
    Case(
        "a known chain with other content",
        lambda _: chain(transfer(CHAIN), transfer(CHAIN + 1, 2)),
        [IN_PART, (Code.ID_CONFLICT, CommandField.AMOUNT)],
    ),
    Case(
        "a chain with a malformed command",
        lambda _: chain(transfer(200), transfer(201, timeout_ms=1), transfer(202)),
        [NOT_EXECUTED, (Code.FIELD_NOT_ALLOWED, CommandField.TIMEOUT_MS), NOT_EXECUTED],
    ),
    Case(
        "a chain that falls",
        lambda _: chain(transfer(200), capture(OPEN_HOLD, HELD + 1, id_head=201), transfer(202)),
        [Code.CHAIN_MEMBER_REFUSED, Code.CAPTURE_EXCEEDS_HOLD, Code.CHAIN_MEMBER_REFUSED],
    ),
    Case("more than is held", lambda _: capture(OPEN_HOLD, HELD + 1), [Code.CAPTURE_EXCEEDS_HOLD]),
    Case("far more than is held", lambda _: capture(OPEN_HOLD, MAX), [Code.CAPTURE_EXCEEDS_HOLD]),
    Case("less than nothing", lambda _: capture(OPEN_HOLD, -1), [Code.AMOUNT_NOT_POSITIVE]),
    Case("a captured hold", lambda _: capture(CAPTURED), [Code.HOLD_CAPTURED]),
    Case("a released hold", lambda _: capture(RELEASED), [Code.HOLD_RELEASED]),
    Case("an expired hold", lambda _: capture(EXPIRED), [Code.HOLD_EXPIRED]),
    Case("release of a captured hold", lambda _: release(CAPTURED), [Code.HOLD_CAPTURED]),
    Case("release of an expired hold", lambda _: release(EXPIRED), [Code.HOLD_EXPIRED]),
    Case("a transfer is no hold", lambda _: capture(TRANSFER), [Code.HOLD_UNKNOWN]),
    Case("no such hold", lambda _: capture(9999), [Code.HOLD_UNKNOWN]),
    Case("no hold named", lambda _: capture(0), [Code.REFERENCE_MISSING]),
    Case("another's hold", lambda _: capture(OPEN_HOLD, 1, debit=EVE), [Code.HOLD_OF_OTHER_ACCOUNTS]),
    Case("a hold for another", lambda _: capture(OPEN_HOLD, 1, credit=EVE), [Code.HOLD_OF_OTHER_ACCOUNTS]),
    Case("release of another's hold", lambda _: release(OPEN_HOLD, debit=EVE), [Code.HOLD_OF_OTHER_ACCOUNTS]),
    Case("a hold of another slot", lambda _: capture(OPEN_HOLD, 1, debit=WORLD), [Code.HOLD_UNKNOWN]),
    Case(
        "a capture with other content under a known id",
        lambda _: capture(OPEN_HOLD, HELD + 1, id_head=TRANSFER),
        [(Code.ID_CONFLICT, CommandField.KIND)],
    ),
    *(
        Case(f"what nodes alone may ask: {kind.name}", lambda _, kind=kind: leg(kind), [Code.KIND_UNKNOWN])
        for kind in (CommandKind.TRY_DEBIT, CommandKind.TRY_CREDIT, CommandKind.CONFIRM, CommandKind.CANCEL)
    ),
    Case(
        "a chain of what nodes alone may ask and what anyone may",
        lambda _: chain(transfer(201), leg(CommandKind.TRY_DEBIT)),
        [Code.KIND_UNKNOWN] * 2,
    ),
    Case("a transit account", lambda _: transit_opening(CommandFlag.TRANSIT), [Code.FLAGS_UNKNOWN]),
    Case("the name of a transit account", lambda _: transit_opening(0), [Code.NAME_INVALID]),
    Case("a limit below zero", lambda _: limit(-1), [Code.LIMIT_NEGATIVE]),
    Case("a limit that overflows", lambda _: limit(-(1 << 63)), [Code.LIMIT_NEGATIVE]),
    Case(
        "a limit for someone else as well",
        lambda _: command(CommandKind.SET_LIMIT, 200, amount=5),
        [(Code.FIELD_NOT_ALLOWED, CommandField.CREDIT)],
    ),
    Case("an amount that overflows", lambda _: transfer(200, -(1 << 63)), [Code.AMOUNT_NOT_POSITIVE]),
    Case("imported from before the last event", imported, [Code.IMPORTED_TIMESTAMP_NOT_RISING]),
    Case(
        "imported from years before",
        lambda last_ns: imported(last_ns - 30 * YEAR_NS),
        [Code.IMPORTED_TIMESTAMP_NOT_RISING],
    ),
    Case("imported from 1970", lambda _: imported(1), [Code.IMPORTED_TIMESTAMP_NOT_RISING]),
    Case("imported from before 1970", lambda _: imported(-1), [Code.TIMESTAMP_INVALID]),
    Case("imported without a time", lambda _: imported(0), [Code.TIMESTAMP_INVALID]),
    Case(
        "a time without being imported",
        lambda last_ns: transfer(200, client_timestamp_ns=last_ns),
        [Code.TIMESTAMP_INVALID],
    ),
    Case("imported from the future", lambda last_ns: imported(last_ns + YEAR_NS), [Code.IMPORTED_TIMESTAMP_IN_FUTURE]),
    Case("imported from the end of time", lambda _: imported(MAX), [Code.IMPORTED_TIMESTAMP_IN_FUTURE]),
    Case(
        "a chain that goes back in time",
        lambda last_ns: chain(imported(last_ns + 2), imported(last_ns + 1, 201)),
        [NOT_EXECUTED, Code.IMPORTED_TIMESTAMP_NOT_RISING],
    ),
]


@pytest.fixture
async def client(node: Node) -> Client:
    """A client of a node in which ann has 1000 without a hold, and in which there is a hold in every state."""
    client = await node.connect()
    done = [
        opening(ANN, BOB, EVE),
        command(CommandKind.SET_LIMIT, 100, ANN, None),
        transfers(1, 99, WORLD, ANN, 1000),
        *(hold(identifier) for identifier in (OPEN_HOLD, CAPTURED, RELEASED)),
        capture(CAPTURED, id_head=300),
        release(RELEASED),
        hold(EXPIRED, timeout_ms=1),
        transfer(TRANSFER),
        chain(transfer(CHAIN), transfer(CHAIN + 1)),
    ]
    done[7]["id_head"] = 301
    assert set((await client.execute(np.concatenate(done)))["code"].tolist()) == {COMMITTED}
    await until(lambda: node.replica.ledger.hold_count == 1 and node.replica.log.idle)
    return client


def accounts_of(node: Node) -> bytes:
    return bytes(node.replica.ledger.list_accounts(0, 100).tobytes())


def state_of(node: Node) -> tuple[object, ...]:
    return node.replica.ledger.digest(), node.replica.log.last_index, node.replica.log.chain_hash


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_bad_input(node: Node, client: Client, case: Case) -> None:
    commands = case.make(node.replica.ledger.last_timestamp_ns)
    expected = [code if isinstance(code, tuple) else (code, CommandField.NONE) for code in case.expected]
    accounts, state, holds = accounts_of(node), state_of(node), node.replica.ledger.hold_count
    results = await client.execute(commands)
    assert list(zip(results["code"].tolist(), results["detail"].tolist(), strict=True)) == expected
    assert accounts_of(node) == accounts
    assert node.replica.ledger.hold_count == holds
    assert node.replica.ledger.next_deadline_ns == 0
    leaves_event = {CODE_ROW[code].leaves_event for code, _ in expected}
    assert leaves_event in ({True}, {False})
    if leaves_event == {False}:
        assert state_of(node) == state
    else:
        # For ever: asked again, the same outcome, without another event.
        again = await client.execute(commands)
        assert again["code"].tolist() == results["code"].tolist()
        assert again["position"].tolist() == results["position"].tolist()
        assert node.replica.ledger.next_sequence == int(results["position"][-1]) + 1


async def test_the_largest_limits_and_amounts(node: Node, client: Client) -> None:
    """Where the sums leave 64 bits there is a refusal, and never a balance that came round."""
    asked = [
        (limit(MAX - 2000), COMMITTED),
        (transfer(201, MAX), Code.INSUFFICIENT_FUNDS),
        (command(CommandKind.SET_LIMIT, 202, ANN, None, amount=LIMIT_UNLIMITED), COMMITTED),
        (transfer(203, MAX), Code.BALANCE_OVERFLOW),
        (command(CommandKind.SET_LIMIT, 204, WORLD, None, amount=LIMIT_UNLIMITED), COMMITTED),
        (transfers(1, 205, WORLD, EVE, MAX - 1000), COMMITTED),
        (transfers(1, 206, WORLD, EVE, 1), Code.BALANCE_OVERFLOW),
    ]
    assert [int((await client.execute(made))["code"][0]) for made, _ in asked] == [code for _, code in asked]
    records = node.replica.ledger.list_accounts(0, 100)
    assert sum(int(balance) for balance in records["balance"]) == 0
    world = id_words(account_id(WORLD, CURRENCY))
    assert records[records["id_head"] == world[0]]["balance"].tolist() == [-MAX]


async def test_rows_are_imported_in_the_order_of_their_times(node: Node, client: Client) -> None:
    """The one that goes back is refused, and may be sent again with a time that does not."""
    first_ns = node.replica.ledger.last_timestamp_ns + 1
    await until(lambda: time.time_ns() > first_ns + 10_000)
    rows = [(200, first_ns + 5), (201, first_ns + 4), (202, first_ns + 5), (201, first_ns + 6), (203, first_ns + 7)]
    refused = Code.IMPORTED_TIMESTAMP_NOT_RISING
    codes = [int((await client.execute(imported(at_ns, identifier)))["code"][0]) for identifier, at_ns in rows]
    assert codes == [COMMITTED, refused, refused, COMMITTED, COMMITTED]
    assert node.replica.ledger.last_timestamp_ns == first_ns + 7
