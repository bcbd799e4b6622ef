"""`bezant close`: closes an account, for ever."""

import argparse

from bezant.cli.commanding import add_account_arguments, execute, tell


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant close`."""
    parser = subparsers.add_parser(
        "close",
        description="Close an account, for ever. It must have no balance and nothing held.",
    )
    add_account_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Close; 0 if it is committed."""
    name, currency = arguments.name, arguments.currency
    result = execute(
        arguments,
        ["close", name, currency],
        lambda wallet, identifier: wallet.close_account(name, currency, id=identifier, timeout_s=arguments.timeout_s),
    )
    tell(arguments, result, f"{name} is closed in {currency}")
    return 0
