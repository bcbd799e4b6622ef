"""`bezant transactions`: lists transactions and transfers between shards that have not ended, and what is in flight."""

import argparse
import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.output import write_json, write_line, write_remark, write_table
from bezant.cli.session import DEFAULT_ADDRESS, add_json_argument, addresses, positive_seconds, run_async
from bezant.cli.shards import DEFAULT_TIMEOUT_S, NoSlotMap, ask_map
from bezant.protocol.errors import BezantError
from bezant.protocol.frames import Operation

if TYPE_CHECKING:
    from bezant.protocol.placement import ShardPlace

_HEADINGS: Final = ("id", "kind", "phase", "led by shard", "shards", "legs", "amount", "currency", "age")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant transactions`."""
    parser = subparsers.add_parser(
        "transactions",
        description="List the transactions and transfers between shards that have not ended: how far each is, and "
        "since when (parked: somebody has to see to an account); and, for each currency, what is in flight.",
    )
    parser.add_argument(
        "--connect",
        metavar="HOST:PORT,...",
        type=addresses,
        default=DEFAULT_ADDRESS,
        help="nodes of any shard (default: %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        dest="timeout_s",
        type=positive_seconds,
        default=DEFAULT_TIMEOUT_S,
        help="how long to wait for each shard (default: %(default)s)",
    )
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """List them; the exit status is 0 whether there are any or not, and 1 if a shard did not answer."""
    return run_async(_list(arguments))


async def _list(arguments: argparse.Namespace) -> int:
    import msgspec

    from bezant.net.client.connection import TcpChannel
    from bezant.protocol.messages import decode_message
    from bezant.protocol.money import format_amount
    from bezant.protocol.transactions import TransactionsUnderWay

    places = await _places(arguments)
    decimals: dict[str, int] = {}

    async def ask(place: "ShardPlace") -> TransactionsUnderWay:
        channel = await TcpChannel.open(",".join(place.addresses), arguments.timeout_s)
        try:
            decimals.update(await _decimals(channel))
            return decode_message(await channel.request(Operation.TRANSACTIONS, b""), TransactionsUnderWay)
        finally:
            await channel.close()

    unanswered: list[int] = []

    async def ask_or_tell(place: "ShardPlace") -> TransactionsUnderWay:
        """What a shard tells; nothing, and a remark, if it does not: whoever looks for what hangs needs the others."""
        try:
            return await ask(place)
        except BezantError as error:
            unanswered.append(place.shard)
            write_remark(f"what shard {place.shard} has under way is missing here: {error}")
            return TransactionsUnderWay([], 0)

    answers = await asyncio.gather(*(ask_or_tell(place) for place in places))
    in_flight: Counter[str] = Counter()
    rows: list[dict[str, Any]] = []
    transactions: list[dict[str, Any]] = []
    cells: list[tuple[int, tuple[str, ...]]] = []
    for place, answer in zip(places, answers, strict=True):
        for transfer in answer.transfers:
            in_flight[transfer.currency] += transfer.amount
            amount = format_amount(transfer.amount, decimals[transfer.currency])
            rows.append(
                {
                    "id": transfer.id,
                    "phase": transfer.phase,
                    "from_shard": place.shard,
                    "to_shard": transfer.shard,
                    "amount": amount,
                    "currency": transfer.currency,
                    "age_ms": transfer.age_ms,
                }
            )
            shards = f"{place.shard}, {transfer.shard}"
            told = ("transfer", transfer.phase, str(place.shard), shards, "1", amount, transfer.currency)
            cells.append((transfer.age_ms, (transfer.id, *told)))
        for one in answer.transactions:
            amounts = {code: format_amount(units, decimals[code]) for code, units in sorted(one.amounts.items())}
            in_flight.update(one.amounts)
            transactions.append(msgspec.structs.asdict(one) | {"amounts": amounts, "led_by_shard": place.shard})
            shards = ", ".join(str(shard) for shard in one.shards)
            for code, amount in amounts.items():
                told = (one.mode, one.phase, str(place.shard), shards, str(one.legs), amount, code)
                cells.append((one.age_ms, (one.id, *told)))
    for listed in (rows, transactions):
        listed.sort(key=lambda row: -int(row["age_ms"]))
    totals = {currency: format_amount(units, decimals[currency]) for currency, units in sorted(in_flight.items())}
    count = sum(answer.count for answer in answers)
    if arguments.json:
        told_all = {"count": count, "in_flight": totals, "transfers": rows, "transactions": transactions}
        write_json(told_all | {"unanswered": sorted(unanswered)})
        return 1 if unanswered else 0
    cells.sort(key=lambda row: -row[0])
    table = [(*row, f"{age_ms / 1000:.1f} s") for age_ms, row in cells]
    write_table(_HEADINGS, table, right=frozenset({"legs", "amount", "age"}))
    sums = ", ".join(f"{amount} {currency}" for currency, amount in totals.items()) or "nothing"
    shown = len(rows) + len(transactions)
    write_line(f"{count} under way; in flight: {sums}" + (f" in the {shown} shown" if shown < count else ""))
    return 1 if unanswered else 0


async def _places(arguments: argparse.Namespace) -> "list[ShardPlace]":
    """The shards; none, and a remark, where one group has every slot: a script need not know which sort it asks."""
    try:
        return (await ask_map(arguments.connect.split(","), arguments.timeout_s)).shards
    except NoSlotMap as none:
        write_remark(f"bezant: {none}; without shards each transaction is done, or not, as it comes")
        return []


async def _decimals(channel: Any) -> dict[str, int]:
    """The decimals of the currencies that a shard knows."""
    from bezant.protocol.messages import Currencies, decode_message

    found = decode_message(await channel.request(Operation.LIST_CURRENCIES, b""), Currencies)
    return {currency.code: currency.decimals for currency in found.currencies}
