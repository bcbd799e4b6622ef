"""`bezant totals`: the sums of each currency."""

import argparse

from bezant.cli.output import write_json, write_line, write_table
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_history, run_async
from bezant.cli.times import add_moment_arguments, as_of_fields, as_of_text, moment_of

_COLUMNS = ("currency", "accounts", "closed", "transfers", "moved", "positive", "negative", "held", "in flight")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant totals`."""
    parser = subparsers.add_parser(
        "totals",
        description="Show for each currency in use: accounts opened and closed; transfers and captures, and what they"
        " moved; the sums of the balances above and below zero; what is held; and what is in flight between shards."
        " What is above zero, below, and in flight is nothing together. A transfer between shards is counted, and what"
        " it moved, in each of the two.",
    )
    add_moment_arguments(parser)
    add_ledger_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from bezant.protocol.money import format_amount

    async with open_history(arguments) as wallet:
        sums = await wallet.history.totals(**moment_of(arguments))
    rows = []
    for total in sums.currencies:
        amounts = (total.moved, total.positive, total.negative, total.held, total.in_flight)
        counts = (total.accounts_opened, total.accounts_closed, total.moves)
        told = (format_amount(amount, total.decimals) for amount in amounts)
        rows.append((total.currency, *map(str, counts), *told))
    if arguments.json:
        keys = [column.replace(" ", "_") for column in _COLUMNS]
        named: list[dict[str, object]] = [dict(zip(keys, row, strict=True)) for row in rows]
        for fields, total in zip(named, sums.currencies, strict=True):
            fields |= {"accounts": total.accounts_opened, "closed": total.accounts_closed, "transfers": total.moves}
        write_json({**as_of_fields(sums.as_of), "currencies": named})
    else:
        write_table(_COLUMNS, rows, right=frozenset(_COLUMNS[1:]))
        write_line(as_of_text(sums.as_of))
    return 0
