"""`bezant currencies`: lists the registry, or adds a currency to it."""

import argparse

from bezant.cli.output import write_json, write_line, write_table
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_wallet, run_async
from bezant.protocol.money import DECIMALS_MAX


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant currencies`."""
    parser = subparsers.add_parser("currencies", description="List the registered currencies, or register another.")
    actions = parser.add_subparsers(dest="action", metavar="list|add", required=True)
    listing = actions.add_parser("list", description="List the registered currencies and their decimals.")
    adding = actions.add_parser(
        "add", description="Register a currency, for ever. Registering it again with the same decimals does nothing."
    )
    adding.add_argument("code", metavar="CODE", help="1 to 8 capital letters and digits, as in POINTS")
    adding.add_argument(
        "decimals",
        metavar="DECIMALS",
        type=int,
        choices=range(DECIMALS_MAX + 1),
        help=f"decimals of its minor unit, 0 to {DECIMALS_MAX}",
    )
    for action in (listing, adding):
        add_ledger_arguments(action)
        add_json_argument(action)


def run(arguments: argparse.Namespace) -> int:
    """List or add."""
    return run_async(_add(arguments) if arguments.action == "add" else _list(arguments))


async def _list(arguments: argparse.Namespace) -> int:
    async with open_wallet(arguments) as wallet:
        currencies = await wallet.currencies()
    if arguments.json:
        write_json(currencies)
    else:
        rows = [(code, str(decimals)) for code, decimals in sorted(currencies.items())]
        write_table(("currency", "decimals"), rows, right=frozenset({"decimals"}))
    return 0


async def _add(arguments: argparse.Namespace) -> int:
    async with open_wallet(arguments) as wallet:
        await wallet.register_currency(arguments.code, arguments.decimals)
    if arguments.json:
        write_json({"currency": arguments.code, "decimals": arguments.decimals})
    else:
        write_line(f"{arguments.code} is registered with {arguments.decimals} decimals")
    return 0
