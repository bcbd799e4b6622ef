"""Tables for ledger tests: one row per command, with the code and the balances that it must end in.

A `Books` runs the rows against one implementation, either all in one entry or each in an entry of its own, and checks
for every row what holds for all of them: whether an event was left, that event and result agree, that a repeat is
answered with the first outcome.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

import numpy as np

from bezant.protocol.codes import CODE_ROW
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CommandField, CommandFlag, CommandKind, ResultFlag
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.records import Records, Words, id_words, position_of, split_position

from .model_records import INTEGER_MAX, Command, encode_commands

MAX: Final = INTEGER_MAX
MIN: Final = -(2**63)
FIELDS_OF_OUTCOME: Final = (
    "timestamp_ns",
    "effective_amount",
    "debit_balance",
    "debit_held",
    "credit_balance",
    "credit_held",
)
_ENTRY_GAP_NS: Final = 1_000
_fresh_numbers = itertools.count(1)


class Executed(Protocol):
    """What `execute` answers."""

    @property
    def events(self) -> Records: ...

    @property
    def results(self) -> Records: ...


class Subject(Protocol):
    """An implementation of the ledger: the kernel's or the model."""

    @property
    def next_sequence(self) -> int: ...

    @property
    def last_timestamp_ns(self) -> int: ...

    @property
    def account_count(self) -> int: ...

    @property
    def hold_count(self) -> int: ...

    @property
    def holds_with_deadline(self) -> int: ...

    @property
    def next_deadline_ns(self) -> int: ...

    def register_currency(self, code: str, decimals: int) -> None: ...

    def execute(self, commands: Records, entry_timestamp_ns: int, preset: Words = ...) -> Executed: ...

    def lookup_accounts(self, ids: Words) -> Records: ...

    def list_accounts(self, cursor: int, count: int) -> Records: ...

    def find_events(self, keys: Records) -> tuple[Words, Records]: ...

    def check_invariants(self) -> None: ...

    def switch_rules(self, version: int) -> None: ...

    def open_tries(self) -> Words: ...

    def unsettled(self) -> Records: ...

    def settle(self, try_sequences: Words) -> None: ...


def id_of(number: int) -> bytes:
    """A readable id for rows that speak of the same id more than once."""
    return b"id" + number.to_bytes(14, "big")


def fresh_id() -> bytes:
    """An id that no other row has."""
    return b"fresh" + next(_fresh_numbers).to_bytes(11, "big")


def account(name: str | bytes) -> bytes:
    """The id of an account: ``"ann"`` in EUR, ``"ann/USD"`` in another currency; bytes are an id already."""
    if isinstance(name, bytes):
        return name
    text, _, currency = name.partition("/")
    return account_id(text, currency or "EUR")


def words_of(ids: list[bytes]) -> Words:
    """Ids as look-ups take them."""
    return np.array([id_words(identifier) for identifier in ids], np.int64).reshape(-1, 2)


def named(name: bytes) -> dict[str, bytes]:
    """The three fields of an OPEN that its name occupies."""
    padded = name.ljust(48, b"\0")
    return {"credit": padded[:16], "reference": padded[16:32], "user_data": padded[32:]}


def word(currency: bytes) -> int:
    """The signed word of a currency that may be an impossible one."""
    return int.from_bytes(currency.ljust(8, b"\0"), "little", signed=True)


def open_account(name: str, limit: int = 0, **fields: bytes | int) -> Command:
    text, _, currency = name.partition("/")
    command = Command(
        kind=CommandKind.OPEN,
        id=fresh_id(),
        debit=account(name),
        amount=limit,
        currency=word((currency or "EUR").encode()),
        **named(text.encode()),
    )
    return replace(command, **fields)


def transfer(debit: str | bytes, credit: str | bytes, amount: int, **fields: bytes | int) -> Command:
    command = Command(
        kind=CommandKind.TRANSFER, id=fresh_id(), debit=account(debit), credit=account(credit), amount=amount
    )
    return replace(command, **fields)


def transfer_available(debit: str | bytes, credit: str | bytes, amount: int, **fields: bytes | int) -> Command:
    return replace(transfer(debit, credit, amount, kind=CommandKind.TRANSFER_AVAILABLE), **fields)


def set_limit(name: str | bytes, limit: int, **fields: bytes | int) -> Command:
    return replace(of_one_account(CommandKind.SET_LIMIT, name), amount=limit, **fields)


def hold(debit: str | bytes, credit: str | bytes, amount: int, timeout_ms: int = 0, **fields: bytes | int) -> Command:
    return replace(transfer(debit, credit, amount, kind=CommandKind.HOLD, timeout_ms=timeout_ms), **fields)


def capture(
    debit: str | bytes, credit: str | bytes, reference: bytes, amount: int = 0, **fields: bytes | int
) -> Command:
    """Captures a hold: all that remains, or an amount."""
    return replace(transfer(debit, credit, amount, kind=CommandKind.CAPTURE, reference=reference), **fields)


def capture_open(
    debit: str | bytes, credit: str | bytes, reference: bytes, amount: int = 0, **fields: bytes | int
) -> Command:
    """Captures a part of a hold and keeps the rest held."""
    return replace(capture(debit, credit, reference, amount), flags=int(CommandFlag.KEEP_OPEN), **fields)


def release(debit: str | bytes, reference: bytes, **fields: bytes | int) -> Command:
    return replace(of_one_account(CommandKind.RELEASE, debit), reference=reference, **fields)


def freeze(name: str | bytes, **fields: bytes | int) -> Command:
    return replace(of_one_account(CommandKind.FREEZE, name), **fields)


def unfreeze(name: str | bytes, **fields: bytes | int) -> Command:
    return replace(of_one_account(CommandKind.UNFREEZE, name), **fields)


def close(name: str | bytes, **fields: bytes | int) -> Command:
    return replace(of_one_account(CommandKind.CLOSE, name), **fields)


def forbid(name: str | bytes, identifier: bytes, **fields: bytes | int) -> Command:
    """Forbids an id in the slot of an account, which need not exist."""
    return replace(of_one_account(CommandKind.FORBID, name), id=identifier, **fields)


def open_transit(name: str, **fields: bytes | int) -> Command:
    return replace(open_account(name, MAX), flags=int(CommandFlag.TRANSIT), **fields)


def try_debit(
    debit: str | bytes, credit: str | bytes, amount: int, transit: str | bytes, **fields: bytes | int
) -> Command:
    """Holds an amount for an account in another shard."""
    return replace(transfer(debit, credit, amount, kind=CommandKind.TRY_DEBIT, reference=account(transit)), **fields)


def try_credit(transit: str | bytes, credit: str | bytes, amount: int, **fields: bytes | int) -> Command:
    """Reserves an amount that is to come in from another shard."""
    return replace(transfer(transit, credit, amount, kind=CommandKind.TRY_CREDIT), **fields)


def try_part(
    debit: str | bytes, credit: str | bytes, amount: int, transit: str | bytes, **fields: bytes | int
) -> Command:
    """Holds an amount for a transaction that another shard decides."""
    return replace(try_debit(debit, credit, amount, transit), kind=CommandKind.TRY_PART, **fields)


def plan(first: str | bytes, debit: str | bytes, credit: str | bytes, amount: int, **fields: bytes | int) -> Command:
    """Says what a further leg of a transaction is; `first` is the account that pays its first one."""
    planned = transfer(first, credit, amount, kind=CommandKind.PLAN, reference=account(debit), currency=word(b"EUR"))
    return replace(planned, **fields)


def confirm(debit: str | bytes, credit: str | bytes, reference: bytes, **fields: bytes | int) -> Command:
    """Moves what a try has reserved."""
    return replace(transfer(debit, credit, 0, kind=CommandKind.CONFIRM, reference=reference), **fields)


def cancel(debit: str | bytes, credit: str | bytes, reference: bytes, **fields: bytes | int) -> Command:
    """Gives back what a try has reserved."""
    return replace(confirm(debit, credit, reference), kind=CommandKind.CANCEL, **fields)


def of_one_account(kind: CommandKind, name: str | bytes) -> Command:
    return Command(kind=kind, id=fresh_id(), debit=account(name))


def linked(*commands: Command) -> list[Command]:
    """The commands as a chain: all but the last are linked to the next."""
    return [*(replace(one, flags=one.flags | CommandFlag.LINKED) for one in commands[:-1]), commands[-1]]


def imported(command: Command, timestamp_ns: int) -> Command:
    return replace(command, flags=command.flags | CommandFlag.IMPORTED, client_timestamp_ns=timestamp_ns)


@dataclass(frozen=True)
class Row:
    """A command, and what it must be answered with: the code, and balances and held sums after it of both accounts.

    `effective` is the effective amount of a commit, if it is not the command's.
    """

    command: Command
    code: Code
    debit: int = 0
    credit: int = 0
    held: int = 0
    credit_held: int = 0
    effective: int | None = None
    field: CommandField = CommandField.NONE
    repeated: bool = False


def row(
    command: Command,
    code: Code = Code.COMMITTED,
    debit: int = 0,
    credit: int = 0,
    *,
    held: int = 0,
    credit_held: int = 0,
    effective: int | None = None,
    field: CommandField = CommandField.NONE,
    repeated: bool = False,
) -> Row:
    """A row; amounts that are left out are zero, as they are where there is no account."""
    return Row(command, code, debit, credit, held, credit_held, effective, field, repeated)


def chain(rows: Sequence[Row]) -> list[Row]:
    """The rows with their commands linked to a chain."""
    commands = linked(*(one.command for one in rows))
    return [replace(one, command=command) for one, command in zip(rows, commands, strict=True)]


def chains_of(rows: Sequence[Row]) -> list[list[Row]]:
    """Cut rows into chains; a row that is linked to none is a chain of one."""
    chains: list[list[Row]] = [[]]
    for one in rows:
        chains[-1].append(one)
        if not one.command.is_linked:
            chains.append([])
    return [each for each in chains if each]


@dataclass(frozen=True)
class Expiry:
    """A hold that must expire, what remained of it, and then the balances and held sums of its two accounts."""

    hold: Command
    remaining: int
    debit: int = 0
    credit: int = 0
    held: int = 0
    credit_held: int = 0


def expect(what: str, found: object, wanted: object) -> None:
    """Fail with a sentence if what was found is not what was wanted."""
    if found != wanted:
        raise AssertionError(f"{what}: {found!r}, not {wanted!r}")


def outcome_of(record: np.void) -> list[int]:
    """The fields that results and events share."""
    return [int(record[field]) for field in FIELDS_OF_OUTCOME]


class Books:
    """One implementation under test, with EUR, USD and JPY registered and a clock that only goes forward."""

    def __init__(self, subject: Subject, *, apart: bool, shard: int = 0) -> None:
        self.subject = subject
        self.apart = apart
        self.shard = shard
        self._first_results: dict[tuple[int, bytes], np.void] = {}
        for code, decimals in (("EUR", 2), ("USD", 2), ("JPY", 0)):
            subject.register_currency(code, decimals)

    def next_timestamp_ns(self) -> int:
        """The timestamp that the next entry gets unless it is given one."""
        return self.subject.last_timestamp_ns + _ENTRY_GAP_NS

    def fund(self, **balances: int) -> None:
        """Open ``world`` without limit and the named accounts in EUR with limit 0, and pay each its balance."""
        self.run(open_account("world", MAX), *(open_account(name) for name in balances))
        self.run(*(transfer("world", name, balance) for name, balance in balances.items() if balance))

    def run(self, *commands: Command, at: int | None = None) -> Executed:
        """Execute commands that must all commit, in one entry."""
        return self.check_entry([row(command) for command in commands], at=at, balances=False)

    def check(self, *rows: Row) -> None:
        """Execute the rows, in one entry or in one each, and compare every outcome with what the row says."""
        for entry in chains_of(rows) if self.apart else [list(rows)]:
            self.check_entry(entry)

    def check_entry(
        self,
        rows: Sequence[Row],
        *,
        at: int | None = None,
        balances: bool = True,
        preset: list[int] | None = None,
        expired: Sequence[Expiry] = (),
    ) -> Executed:
        """Execute the rows in one entry whose timestamp is `at`, at whose start these holds expire; see `check`.

        Without `balances` neither they nor the effective amounts of commits are compared with the rows.
        """
        first_sequence = self.subject.next_sequence
        commands = encode_commands([one.command for one in rows])
        sent = commands.tobytes()
        timestamp_ns = self.next_timestamp_ns() if at is None else at
        if preset is None:
            executed = self.subject.execute(commands, timestamp_ns)
        else:
            executed = self.subject.execute(commands, timestamp_ns, np.array(preset, np.int64))
        expect("the bytes of the commands, afterwards", commands.tobytes(), sent)
        expect("number of results", len(executed.results), len(rows))
        expect("number of events at least", len(executed.events) >= len(expired), True)
        events = iter(executed.events)
        for expiry, event in zip(expired, events, strict=False):
            self._check_expiry(expiry, event)
        sequence = first_sequence + len(expired)
        is_chain = False
        for number, (expected, result) in enumerate(zip(rows, executed.results, strict=True)):
            where = f"of row {number}, {expected.command}"
            expect(f"code {where}", Code(int(result["code"])), expected.code)
            expect(f"flags {where}", int(result["flags"]), ResultFlag.REPEATED if expected.repeated else 0)
            expect(f"detail {where}", int(result["detail"]), expected.field)
            if balances:
                wanted = [expected.debit, expected.held, expected.credit, expected.credit_held]
                expect(f"balances {where}", outcome_of(result)[2:], wanted)
            is_chain, was_chain = expected.command.is_linked, is_chain
            if expected.repeated or not CODE_ROW[expected.code].leaves_event:
                self._check_without_event(expected, result, where, is_chain=is_chain or was_chain)
                continue
            expect(f"position {where}", split_position(int(result["position"])), (self.shard, sequence))
            self._check_event(expected, result, next(events), where, amounts=balances)
            sequence += 1
        expect("events that no row should have left", list(events), [])
        expect("next sequence", self.subject.next_sequence, sequence)
        if sequence > first_sequence:
            expect("last timestamp", self.subject.last_timestamp_ns, int(executed.events["timestamp_ns"][-1]))
        self.subject.check_invariants()
        return executed

    def _check_expiry(self, expected: Expiry, event: np.void) -> None:
        """An event that nobody asked for: its command has nothing but the kind, the accounts, the hold and the rest."""
        where = f"of the expiry of {expected.hold}"
        command = Command(
            kind=CommandKind.EXPIRE,
            debit=expected.hold.debit,
            credit=expected.hold.credit,
            reference=expected.hold.id,
            amount=expected.remaining,
        )
        expect(f"command in the event {where}", event.tobytes()[:120], encode_commands([command]).tobytes()[:120])
        expect(f"result in the event {where}", int(event["result"]), Code.COMMITTED)
        wanted = [expected.remaining, expected.debit, expected.held, expected.credit, expected.credit_held]
        expect(f"outcome in the event {where}", outcome_of(event)[1:], wanted)
        expect(f"credit back-pointer {where}", int(event["credit_previous"]), 0)

    def _check_event(self, expected: Row, result: np.void, event: np.void, where: str, *, amounts: bool) -> None:
        """The event repeats the command and the result, and one of a refusal is on no account's chain."""
        # A TRY_DEBIT that stands has happened, and what its transfer will come to is not in its event.
        code = Code.COMMITTED if expected.code == Code.UNDECIDED else expected.code
        is_committed = code == Code.COMMITTED
        amount = expected.command.amount if expected.effective is None else expected.effective
        if amounts or not is_committed:
            expect(f"effective amount {where}", int(result["effective_amount"]), amount * is_committed)
        expect(f"result in the event {where}", int(event["result"]), code)
        expect(f"outcome in the event {where}", outcome_of(event), outcome_of(result))
        asked = encode_commands([expected.command])[0]
        expect(f"command in the event {where}", event.tobytes()[:120], asked.tobytes()[:120])
        expect(f"reserved bytes of the event {where}", int(event["event_reserved"]), 0)
        if not is_committed:
            expect(f"back-pointers {where}", (int(event["debit_previous"]), int(event["credit_previous"])), (0, 0))
        self._first_results[slot_of(expected.command.debit), expected.command.id] = result.copy()

    def _check_without_event(self, expected: Row, result: np.void, where: str, *, is_chain: bool) -> None:
        """A repeat is the first outcome, a conflict outside chains has its position, and all others have nothing."""
        position, outcome = 0, [0] * len(FIELDS_OF_OUTCOME)
        if expected.repeated or (expected.code == Code.ID_CONFLICT and not is_chain):
            first = self._first_results[slot_of(expected.command.debit), expected.command.id]
            position = int(first["position"])
            if expected.repeated:
                outcome = outcome_of(first)
        expect(f"position {where}", int(result["position"]), position)
        expect(f"outcome {where}", outcome_of(result), outcome)

    def position(self, sequence: int) -> int:
        return position_of(self.shard, sequence)

    def find(self, name: str | bytes) -> np.void:
        """The row of one account."""
        rows = self.subject.lookup_accounts(words_of([account(name)]))
        expect("number of accounts found", len(rows), 1)
        return rows[0]
