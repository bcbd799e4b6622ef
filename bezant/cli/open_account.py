"""`bezant open`: opens an account."""

import argparse
from typing import Final

from bezant.cli.output import write_line
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_wallet, run_async

UNLIMITED_WORD: Final = "unlimited"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant open`."""
    parser = subparsers.add_parser(
        "open",
        description="Open an account. Its name is in the history for ever: prefer opaque ones to those of people.",
    )
    parser.add_argument("name", metavar="NAME", help="1 to 48 printable ASCII characters without spaces")
    parser.add_argument("currency", metavar="CURRENCY", help="as in EUR")
    parser.add_argument(
        "--limit",
        metavar="AMOUNT",
        default="0",
        help=f"how far below zero it may go, or `{UNLIMITED_WORD}` (default: %(default)s)",
    )
    add_ledger_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Open; 0 if the account is new."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    import bezant
    from bezant.cli.outcomes import check_currency, check_outcome

    limit = bezant.UNLIMITED if arguments.limit == UNLIMITED_WORD else arguments.limit
    async with open_wallet(arguments) as wallet:
        await check_currency(wallet, arguments.currency)
        result = await wallet.open_account(
            arguments.name, arguments.currency, limit=limit, timeout_s=arguments.timeout_s
        )
    check_outcome(result, arguments, retry=("bezant", "balance", arguments.name, arguments.currency))
    if not arguments.json:
        write_line(f"{arguments.name} is open in {arguments.currency}")
    return 0
