"""`bezant release`: lets what is held be free again."""

import argparse

from bezant.cli.commanding import add_command_arguments, execute, tell


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant release`."""
    parser = subparsers.add_parser("release", description="Let what is left of a hold be free again.")
    parser.add_argument("hold", metavar="HOLD", help="the id that `bezant hold` printed")
    parser.add_argument("debit", metavar="FROM", help="the account that it is held on")
    parser.add_argument("currency", metavar="CURRENCY", help="as in EUR")
    add_command_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Release; 0 if it is committed."""
    from bezant.cli.outcomes import parse_id

    debit, currency = arguments.debit, arguments.currency
    hold_id = parse_id(arguments.hold)
    result = execute(
        arguments,
        ["release", arguments.hold, debit, currency],
        lambda wallet, identifier: wallet.release(
            hold_id, debit, currency, id=identifier, timeout_s=arguments.timeout_s
        ),
    )
    tell(arguments, result, f"{result.amount_text} {currency} of {debit} free again")
    return 0
