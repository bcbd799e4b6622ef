"""`bezant holds`: the holds that are open, or were."""

import argparse

from bezant.cli.errors import InputWrong
from bezant.cli.output import write_json, write_table
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_history, positive_count, run_async
from bezant.cli.times import add_moment_arguments, moment_of, time_text

_COLUMNS = ("time", "hold", "from", "to", "amount", "remaining", "expires")
_NS_PER_MS = 1_000_000


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant holds`."""
    parser = subparsers.add_parser(
        "holds",
        description="List the holds that are open, or were at a time, in the order in which they were made, with what"
        " remains of each. With --json one line of JSON for each.",
    )
    parser.add_argument("--account", metavar="NAME", help="those on this account; --currency says which of that name")
    parser.add_argument("--currency", metavar="CURRENCY", default="", help="as in EUR")
    parser.add_argument("--limit", metavar="COUNT", type=positive_count, help="so many at most (default: all)")
    add_moment_arguments(parser)
    add_ledger_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """List."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from bezant.cli.events import AccountNames
    from bezant.cli.outcomes import check_account, check_currency

    if bool(arguments.account) != bool(arguments.currency):
        raise InputWrong("a name and a currency name an account together", "give --account and --currency, or neither")
    async with open_history(arguments) as wallet:
        if arguments.currency:
            await check_currency(wallet, arguments.currency)
        account = (arguments.account, arguments.currency) if arguments.account else None
        if account is not None:
            await check_account(wallet, *account, moment_of(arguments))
        asked = wallet.history.holds(account=account, limit=arguments.limit, **moment_of(arguments))
        holds = [hold async for hold in asked]
        names = AccountNames(wallet)
        await names.learn(hold.event for hold in holds)
    rows = []
    for hold in holds:
        event = hold.event
        expires_ns = event.timestamp_ns + event.hold_timeout_ms * _NS_PER_MS if event.hold_timeout_ms else 0
        values = (
            time_text(event.timestamp_ns),
            event.id.hex(),
            names.of(event.debit),
            names.of(event.credit),
            event.amount_text,
            hold.remaining_text,
            time_text(expires_ns) if expires_ns else "",
        )
        if arguments.json:
            write_json({"position": event.position, **dict(zip(_COLUMNS, values, strict=True))})
        rows.append(values)
    if not arguments.json:
        write_table(_COLUMNS, rows, right=frozenset({"amount", "remaining"}))
    return 0
