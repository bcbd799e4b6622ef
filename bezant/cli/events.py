"""Events as commands print them: a line of a table for eyes, an object for programs."""

import sys
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.output import write_json, write_line
from bezant.cli.times import as_of_text, time_text
from bezant.protocol.records import LIMIT_UNLIMITED

if TYPE_CHECKING:
    import bezant
    from bezant.net.client.history import Statement

NAMES_CACHED_MAX: Final = 100_000
"""Accounts whose names are remembered while a list is printed."""
LINES_AT_A_TIME: Final = 200
"""Events whose accounts are looked up together."""
_COLUMNS: Final = (("time", 30), ("kind", 18), ("from", 24), ("to", 24), ("amount", 16), ("balance", 16), ("held", 12))
_RIGHT: Final = frozenset({"amount", "balance", "held"})
_LIMITS: Final = frozenset({"OPEN", "SET_LIMIT"})
_WITHOUT_AMOUNT: Final = frozenset({"FREEZE", "UNFREEZE", "CLOSE", "FORBID"})
_MOVING: Final = frozenset({"TRANSFER", "TRANSFER_AVAILABLE", "CAPTURE", "CONFIRM"})


class AccountNames:
    """Names of accounts by their ids, asked for in batches."""

    def __init__(self, wallet: "bezant.Wallet") -> None:
        self._wallet = wallet
        self._names: dict[bytes, str] = {bytes(16): ""}

    async def learn(self, events: Iterable["bezant.Event"]) -> None:
        """Ask for the names that are not known yet of the accounts in these events."""
        ids = {identifier for event in events for identifier in (event.debit, event.credit)}
        unknown = sorted(ids - self._names.keys())
        if len(self._names) > NAMES_CACHED_MAX:
            self._names = {bytes(16): ""}
            unknown = sorted(ids - self._names.keys())
        for identifier, account in zip(unknown, await self._wallet.accounts_by_id(unknown), strict=True):
            self._names[identifier] = identifier.hex() if account is None else account.name

    def of(self, identifier: bytes) -> str:
        """The name, or the id in hexadecimal of an account that is not there."""
        return self._names[identifier]


def event_fields(event: "bezant.Event", names: AccountNames) -> dict[str, Any]:
    """An event for ``--json``; amounts are decimal strings."""
    return {
        "position": event.position,
        "time": time_text(event.timestamp_ns),
        "kind": event.kind.name,
        "result": event.result.name,
        "id": event.id.hex(),
        "debit": names.of(event.debit),
        "credit": names.of(event.credit),
        "amount": event.effective_amount_text if event.committed else event.amount_text,
        "code": event.code,
        "reference": event.reference.hex() if event.reference != bytes(16) else None,
        "debit_balance": event.debit_balance_text,
        "debit_held": event.debit_held_text,
        "credit_balance": event.credit_balance_text,
        "credit_held": event.credit_held_text,
    }


def amount_words(event: "bezant.Event", amount: str) -> str:
    """An event's amount for eyes: of a limit that it is one, and nothing where an amount says nothing."""
    if event.kind.name in _WITHOUT_AMOUNT:
        return ""
    if event.kind.name in _LIMITS:
        return "unlimited" if event.amount == LIMIT_UNLIMITED else f"limit {amount}"
    return amount


async def write_events(
    wallet: "bezant.Wallet", events: "Statement", *, as_json: bool, account: bytes | None = None
) -> None:
    """Write events as they come: a line of JSON each, or a table. With `account` its own balances are shown."""
    names, count = AccountNames(wallet), 0
    if not as_json:
        _write_row([name for name, _ in _COLUMNS])
    async for chunk in _chunks(events):
        await names.learn(chunk)
        for event in chunk:
            if as_json:
                write_json(event_fields(event, names))
            else:
                _write_row(_cells(event, names, account))
        count += len(chunk)
        sys.stdout.flush()
    if not as_json and events.as_of is not None:
        write_line(f"{count:,} events, {as_of_text(events.as_of)}")


async def _chunks(events: AsyncIterator["bezant.Event"]) -> AsyncIterator[list["bezant.Event"]]:
    chunk: list[bezant.Event] = []
    async for event in events:
        chunk.append(event)
        if len(chunk) == LINES_AT_A_TIME:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _cells(event: "bezant.Event", names: AccountNames, account: bytes | None) -> list[str]:
    amount = amount_words(event, event.effective_amount_text if event.committed else event.amount_text)
    balance, held = event.debit_balance_text, event.debit_held_text
    if account is not None and event.credit == account:
        balance, held = event.credit_balance_text, event.credit_held_text
    elif account is not None and event.credit != bytes(16) and event.kind.name in _MOVING and event.committed:
        amount = f"-{amount}"
    kind = event.kind.name.lower() if event.committed else f"{event.kind.name.lower()} refused"
    credit = names.of(event.credit)
    return [time_text(event.timestamp_ns), kind, names.of(event.debit), credit, amount, balance, held]


def _write_row(cells: list[str]) -> None:
    """A row in columns of fixed widths, because rows are written before the last one is known."""
    padded = (
        cell.rjust(width) if name in _RIGHT else cell.ljust(width)
        for cell, (name, width) in zip(cells, _COLUMNS, strict=True)
    )
    write_line("  ".join(padded).rstrip())
