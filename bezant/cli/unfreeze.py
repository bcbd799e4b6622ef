"""`bezant unfreeze`: lets a frozen account take part again."""

import argparse

from bezant.cli.commanding import add_account_arguments, execute, tell


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant unfreeze`."""
    parser = subparsers.add_parser(
        "unfreeze",
        description="Let a frozen account take part again.",
    )
    add_account_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Unfreeze; 0 if it is committed."""
    name, currency = arguments.name, arguments.currency
    result = execute(
        arguments,
        ["unfreeze", name, currency],
        lambda wallet, identifier: wallet.unfreeze(name, currency, id=identifier, timeout_s=arguments.timeout_s),
    )
    tell(arguments, result, f"{name} is unfrozen in {currency}")
    return 0
