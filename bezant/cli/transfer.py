"""`bezant transfer`: moves an amount, exactly once."""

import argparse
from typing import TYPE_CHECKING

from bezant.cli.commanding import add_command_arguments, execute, tell

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import bezant


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant transfer`."""
    parser = subparsers.add_parser(
        "transfer",
        description="Move AMOUNT from one account to another. With --id, running the same line again moves nothing.",
    )
    parser.add_argument("debit", metavar="FROM", help="the account that pays")
    parser.add_argument("credit", metavar="TO", help="the account that is paid")
    parser.add_argument("amount", metavar="AMOUNT", help="an exact decimal, as in 12.50")
    parser.add_argument("currency", metavar="CURRENCY", help="as in EUR")
    parser.add_argument(
        "--at-most", action="store_true", help="move as much of AMOUNT as is available, and not all or nothing"
    )
    add_command_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Transfer; 0 if it is committed."""
    debit, credit, amount, currency = arguments.debit, arguments.credit, arguments.amount, arguments.currency
    words = ["transfer", debit, credit, amount, currency, *(["--at-most"] if arguments.at_most else [])]

    def ask(wallet: "bezant.Wallet", identifier: bytes) -> "Awaitable[bezant.Result]":
        move = wallet.transfer_available if arguments.at_most else wallet.transfer
        return move(debit, credit, amount, currency, id=identifier, timeout_s=arguments.timeout_s)

    result = execute(arguments, words, ask)
    tell(arguments, result, f"{result.amount_text} {currency} from {debit} to {credit}")
    return 0
