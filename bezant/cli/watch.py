"""`bezant watch`: prints what happens to accounts, as it is committed, a line each."""

import argparse
from collections import OrderedDict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.events import amount_words
from bezant.cli.outcomes import check_currency
from bezant.cli.output import write_at_once, write_remark
from bezant.cli.session import (
    DEFAULT_ADDRESS,
    DEFAULT_TIMEOUT_S,
    addresses,
    positive_count,
    positive_seconds,
    run_async,
)
from bezant.protocol.names import account_id
from bezant.protocol.records import split_position

if TYPE_CHECKING:
    import bezant

NAMES_REMEMBERED_MAX: Final = 10_000
"""Names of accounts that are not asked for again."""
UNKNOWN_TOLD_MAX: Final = 10
"""Accounts that there are not, of which each is named."""
_NS_PER_S: Final = 1_000_000_000


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant watch`."""
    parser = subparsers.add_parser(
        "watch",
        description="Print what happens to accounts, as soon as it is committed, until Ctrl-C. It goes on by itself"
        " when a node fails, and misses nothing.",
    )
    parser.add_argument("names", metavar="NAME", nargs="*", help="the accounts' names (default: all accounts)")
    parser.add_argument(
        "--currency", metavar="CODE", default="", help="only in this currency, as in EUR (default: all)"
    )
    parser.add_argument("--kind", metavar="KIND", action="append", default=[], help="only this kind, such as transfer")
    parser.add_argument("--refused", action="store_true", help="also what was refused")
    parser.add_argument(
        "--after",
        metavar="POSITION",
        type=_position,
        help="begin behind this position, as results and lines have it; 0 is the beginning (default: from now on). Of"
        " several shards that of the last line of each, with commas between",
    )
    parser.add_argument(
        "--remember",
        metavar="NAME",
        default="",
        help="have the reader remember under this name how far the lines got, and begin there",
    )
    parser.add_argument("--count", metavar="N", type=positive_count, help="end after so many lines")
    parser.add_argument(
        "--connect",
        metavar="HOST:PORT,...",
        type=addresses,
        default=DEFAULT_ADDRESS,
        help="a node, or some nodes of a group, beside one of which a reader is (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        dest="timeout_s",
        type=positive_seconds,
        default=DEFAULT_TIMEOUT_S,
        help="how long to wait for a connection, and to look for another reader (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each event")


def _position(text: str) -> int | str:
    """Read a position, or a token of several; for argparse."""
    try:
        if "," in text:
            return ",".join(str(int(part)) for part in text.split(","))
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"a position is a whole number, not {text!r}") from None


def run(arguments: argparse.Namespace) -> int:
    """Print until interrupted, or until there are as many lines as asked for."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    import bezant

    left = arguments.count
    async with bezant.connect(arguments.connect, timeout_s=arguments.timeout_s) as wallet:
        if arguments.currency:
            await check_currency(wallet, arguments.currency)
        names = _Names(wallet)
        subscription = wallet.subscribe(
            accounts=arguments.names,
            currency=arguments.currency,
            kinds=arguments.kind,
            refused=arguments.refused,
            after=arguments.after,
            name=arguments.remember,
            lost_s_max=arguments.timeout_s,
        )
        await _tell_unknown(wallet, arguments.names, arguments.currency)
        async with subscription:
            while left is None or left > 0:
                events = (await subscription.next_events())[:left]
                for event in events:
                    fields = await _fields_of(event, names)
                    write_at_once(_json(fields) if arguments.json else _text(event, fields))
                left = None if left is None else left - len(events)
                if arguments.remember:
                    last = {split_position(event.position)[0]: event.position for event in events}
                    for position in last.values():
                        await subscription.acknowledge(position)
    return 0


async def _tell_unknown(wallet: "bezant.Wallet", names: list[str], currency: str) -> None:
    """Say which accounts there are not: one may be waited for, or be misspelt, and nothing would ever come."""
    currencies = [currency] if currency else [*await wallet.currencies()]
    where = f" in {currency}" if currency else ""
    found = iter(await wallet.accounts_by_id([account_id(name, code) for name in names for code in currencies]))
    unknown = [name for name, known in [(name, [next(found) for _ in currencies]) for name in names] if not any(known)]
    for name in unknown[:UNKNOWN_TOLD_MAX]:
        write_remark(f"bezant: there is no account {name!r}{where}; what happens to it is told once it is open")
    if len(unknown) > UNKNOWN_TOLD_MAX:
        write_remark(f"bezant: nor are there {len(unknown) - UNKNOWN_TOLD_MAX:,} others of those")


class _Names:
    """Names of accounts by their ids, asked for once."""

    def __init__(self, wallet: "bezant.Wallet") -> None:
        self._wallet = wallet
        self._known: OrderedDict[bytes, str] = OrderedDict()

    async def of(self, identifier: bytes) -> str:
        """The name of an account; "" for none, and the id in hexadecimal if there is no such account."""
        if not any(identifier):
            return ""
        if identifier not in self._known:
            (account,) = await self._wallet.accounts_by_id([identifier])
            self._known[identifier] = identifier.hex() if account is None else account.name
            if len(self._known) > NAMES_REMEMBERED_MAX:
                self._known.popitem(last=False)
        return self._known[identifier]


async def _fields_of(event: "bezant.Event", names: _Names) -> dict[str, Any]:
    """An event as `--json` prints it: amounts are decimal strings."""
    return {
        "position": event.position,
        "time": _time_text(event.timestamp_ns),
        "timestamp_ns": event.timestamp_ns,
        "kind": event.kind.name.lower(),
        "result": event.result.name,
        "id": event.id.hex(),
        "debit": event.name or await names.of(event.debit),
        "credit": await names.of(event.credit),
        "currency": event.currency,
        "amount": event.effective_amount_text if event.committed else event.amount_text,
        "debit_balance": event.debit_balance_text,
        "debit_held": event.debit_held_text,
        "credit_balance": event.credit_balance_text,
        "credit_held": event.credit_held_text,
        "code": event.code,
    }


def _time_text(timestamp_ns: int) -> str:
    seconds, rest_ns = divmod(timestamp_ns, _NS_PER_S)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"


def _json(fields: dict[str, Any]) -> str:
    import json

    return json.dumps(fields, ensure_ascii=False)


def _text(event: "bezant.Event", fields: dict[str, Any]) -> str:
    """An event as a line."""
    words = (fields["kind"], amount_words(event, fields["amount"]), fields["currency"])
    to = f" to {fields['credit']}" if fields["credit"] else ""
    balances = f"{fields['debit']} {fields['debit_balance']}"
    if fields["credit"]:
        balances += f"  {fields['credit']} {fields['credit_balance']}"
    if fields["result"] != "COMMITTED":
        balances = fields["result"]
    return (
        f"{fields['time']}  {' '.join(word for word in words if word)}  {fields['debit']}{to}  "
        f"[{balances}]  {fields['position']}"
    )
