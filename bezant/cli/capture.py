"""`bezant capture`: moves what is held, or a part of it."""

import argparse

from bezant.cli.commanding import add_command_arguments, execute, tell


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant capture`."""
    parser = subparsers.add_parser(
        "capture",
        description="Move what is held to the account that it is held for. What a part leaves over is free again.",
    )
    parser.add_argument("hold", metavar="HOLD", help="the id that `bezant hold` printed")
    parser.add_argument("debit", metavar="FROM", help="the account that it is held on")
    parser.add_argument("credit", metavar="TO", help="the account that it is held for")
    parser.add_argument("currency", metavar="CURRENCY", help="as in EUR")
    parser.add_argument("--amount", metavar="AMOUNT", help="a part of it (default: all that is held)")
    parser.add_argument(
        "--keep-open", action="store_true", help="keep holding what the part leaves over, for further captures"
    )
    add_command_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Capture; 0 if it is committed."""
    from bezant.cli.outcomes import parse_id

    debit, credit, currency, amount = arguments.debit, arguments.credit, arguments.currency, arguments.amount
    hold_id = parse_id(arguments.hold)
    words = ["capture", arguments.hold, debit, credit, currency]
    words += ["--amount", amount] if amount is not None else []
    words += ["--keep-open"] if arguments.keep_open else []
    result = execute(
        arguments,
        words,
        lambda wallet, identifier: wallet.capture(
            hold_id,
            debit,
            credit,
            currency,
            amount=amount,
            keep_open=arguments.keep_open,
            id=identifier,
            timeout_s=arguments.timeout_s,
        ),
    )
    tell(arguments, result, f"{result.amount_text} {currency} from {debit} to {credit}")
    return 0
