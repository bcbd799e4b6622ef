"""`bezant freeze`: keeps an account out of every transfer."""

import argparse

from bezant.cli.commanding import add_account_arguments, execute, tell


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant freeze`."""
    parser = subparsers.add_parser(
        "freeze",
        description="Keep an account out of every transfer, hold and capture. What is held of it can be released.",
    )
    add_account_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Freeze; 0 if it is committed."""
    name, currency = arguments.name, arguments.currency
    result = execute(
        arguments,
        ["freeze", name, currency],
        lambda wallet, identifier: wallet.freeze(name, currency, id=identifier, timeout_s=arguments.timeout_s),
    )
    tell(arguments, result, f"{name} is frozen in {currency}")
    return 0
