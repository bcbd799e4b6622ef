"""`bezant hold`: sets an amount aside, to be captured or released."""

import argparse
from typing import Final

from bezant.cli.commanding import add_command_arguments, execute, tell
from bezant.protocol.errors import InvalidAmountOrName
from bezant.protocol.kinds import TIMEOUT_MS_MAX
from bezant.protocol.money import parse_amount

_DECIMALS_OF_SECONDS: Final = 3


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant hold`."""
    parser = subparsers.add_parser(
        "hold",
        description="Set AMOUNT of one account aside for another. It stays where it is, and nothing else can have it,"
        " until it is captured or released. The id that is printed names the hold.",
    )
    parser.add_argument("debit", metavar="FROM", help="the account that would pay")
    parser.add_argument("credit", metavar="TO", help="the account that would be paid")
    parser.add_argument("amount", metavar="AMOUNT", help="an exact decimal, as in 12.50")
    parser.add_argument("currency", metavar="CURRENCY", help="as in EUR")
    parser.add_argument(
        "--expires-in",
        metavar="SECONDS",
        dest="hold_timeout_ms",
        type=hold_timeout_ms,
        default=0,
        help="release it by itself after so long (default: never)",
    )
    add_command_arguments(parser)


def hold_timeout_ms(text: str) -> int:
    """Read seconds, with up to three decimals, as milliseconds; for argparse."""
    try:
        timeout_ms = parse_amount(text, _DECIMALS_OF_SECONDS)
    except InvalidAmountOrName:
        timeout_ms = 0
    if not 0 < timeout_ms <= TIMEOUT_MS_MAX:
        raise argparse.ArgumentTypeError(
            f"a number of seconds above zero, of up to three decimals and a hundred years, is needed, not {text!r}"
        )
    return timeout_ms


def run(arguments: argparse.Namespace) -> int:
    """Hold; 0 if it is committed."""
    debit, credit, amount, currency = arguments.debit, arguments.credit, arguments.amount, arguments.currency
    timeout_ms = arguments.hold_timeout_ms
    words = ["hold", debit, credit, amount, currency]
    if timeout_ms:
        words += ["--expires-in", f"{timeout_ms / 1000:.3f}"]
    result = execute(
        arguments,
        words,
        lambda wallet, identifier: wallet.hold(
            debit,
            credit,
            amount,
            currency,
            hold_timeout_ms=timeout_ms,
            id=identifier,
            timeout_s=arguments.timeout_s,
        ),
    )
    tell(arguments, result, f"{result.amount_text} {currency} of {debit} held for {credit}")
    return 0
