"""`bezant transfers`: finds events by account, currency, code, kind and time, or by id."""

import argparse

from bezant.cli.errors import InputWrong
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_history, run_async
from bezant.cli.statement import add_range_arguments
from bezant.cli.times import add_moment_arguments, moment_of
from bezant.protocol.kinds import CommandKind

_MOVES = (CommandKind.TRANSFER, CommandKind.TRANSFER_AVAILABLE, CommandKind.CAPTURE, CommandKind.CONFIRM)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant transfers`."""
    parser = subparsers.add_parser(
        "transfers",
        description="Find transfers and captures that match all of what is given, oldest first; or whatever has an id,"
        " with what became of it if it is a hold. With --json one line of JSON for each.",
    )
    parser.add_argument("--id", metavar="HEX", help="the id of a command; nothing but a moment goes with it")
    parser.add_argument("--account", metavar="NAME", help="paid or received; --currency says which of that name")
    parser.add_argument("--currency", metavar="CURRENCY", default="", help="as in EUR")
    parser.add_argument("--code", metavar="NUMBER", type=int, help="the code that its sender gave it")
    kinds = [kind.name.lower() for kind in CommandKind]
    parser.add_argument("--kind", dest="kinds", action="append", choices=kinds, help="events of this kind; repeatable")
    parser.add_argument("--refused", action="store_true", help="those that were refused, too")
    add_range_arguments(parser)
    add_moment_arguments(parser)
    add_ledger_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show what is found."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from bezant.cli.events import write_events
    from bezant.cli.outcomes import check_account, check_currency

    if arguments.account and not arguments.currency:
        raise InputWrong("a name alone names no account", "say which currency: --currency EUR")
    async with open_history(arguments) as wallet:
        if arguments.id is not None:
            found = wallet.history.by_id(_read_id(arguments.id), **moment_of(arguments))
        else:
            if arguments.currency:
                await check_currency(wallet, arguments.currency)
            if arguments.account and not arguments.refused:  # What was refused may be because there is no such account.
                await check_account(wallet, arguments.account, arguments.currency, moment_of(arguments))
            found = wallet.history.transfers(
                account=(arguments.account, arguments.currency) if arguments.account else None,
                currency=arguments.currency,
                code=arguments.code,
                kinds=[CommandKind[kind.upper()] for kind in arguments.kinds] if arguments.kinds else _MOVES,
                refused=arguments.refused,
                start=arguments.start,
                end=arguments.end,
                reverse=arguments.reverse,
                limit=arguments.limit,
                **moment_of(arguments),
            )
        await write_events(wallet, found, as_json=arguments.json)
    return 0


def _read_id(text: str) -> bytes:
    try:
        identifier = bytes.fromhex(text)
    except ValueError:
        identifier = b""
    if len(identifier) != 16:
        raise InputWrong(f"{text!r} is not an id", "an id is 32 hexadecimal digits, as the commands print it")
    return identifier
