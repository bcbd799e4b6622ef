"""`bezant statement`: the events that touched an account."""

import argparse

from bezant.cli.session import add_json_argument, add_ledger_arguments, open_history, positive_count, run_async
from bezant.cli.times import add_moment_arguments, end_ns, moment_of, start_ns


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant statement`."""
    parser = subparsers.add_parser(
        "statement",
        description="Show the events that touched an account, oldest first, with the balance and the held sum after"
        " each. With --json one line of JSON for each.",
    )
    parser.add_argument("name", metavar="NAME", help="the account's name")
    parser.add_argument("currency", metavar="CURRENCY", help="as in EUR")
    add_range_arguments(parser)
    add_moment_arguments(parser)
    add_ledger_arguments(parser)
    add_json_argument(parser)


def add_range_arguments(parser: argparse.ArgumentParser) -> None:
    """Add which part of a list is wanted, and in which order."""
    parser.add_argument("--from", dest="start", metavar="TIME", type=start_ns, help="from this time on")
    parser.add_argument("--to", dest="end", metavar="TIME", type=end_ns, help="up to before this time; a date whole")
    parser.add_argument("--reverse", action="store_true", help="newest first")
    parser.add_argument("--limit", metavar="COUNT", type=positive_count, help="so many at most (default: all)")


def run(arguments: argparse.Namespace) -> int:
    """Show; 1 if there is no such account."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from bezant.cli.events import write_events
    from bezant.cli.outcomes import check_account, check_currency
    from bezant.protocol.names import account_id

    name, currency = arguments.name, arguments.currency
    async with open_history(arguments) as wallet:
        await check_currency(wallet, currency)
        moment = moment_of(arguments)
        await check_account(wallet, name, currency, moment)
        lines = wallet.history.statement(
            name,
            currency,
            start=arguments.start,
            end=arguments.end,
            reverse=arguments.reverse,
            limit=arguments.limit,
            **moment,
        )
        await write_events(wallet, lines, as_json=arguments.json, account=account_id(name, currency))
    return 0
