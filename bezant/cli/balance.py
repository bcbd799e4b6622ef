"""`bezant balance`: shows one account, as it is or as it was."""

import argparse

from bezant.cli.output import write_json, write_line
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_history, open_wallet, run_async
from bezant.cli.times import add_moment_arguments, as_of_fields, as_of_text, moment_of


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant balance`."""
    parser = subparsers.add_parser(
        "balance",
        description="Show the balance, the held sum and the limit of an account, and whether it is frozen or closed.",
    )
    parser.add_argument("name", metavar="NAME", help="the account's name")
    parser.add_argument("currency", metavar="CURRENCY", help="as in EUR")
    add_moment_arguments(parser)
    add_ledger_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show; 1 if there is no such account."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from bezant.cli.accounts import account_fields
    from bezant.cli.outcomes import check_currency, no_account

    name, currency = arguments.name, arguments.currency
    is_past = arguments.at is not None or arguments.position is not None
    async with open_history(arguments) if is_past else open_wallet(arguments) as wallet:
        await check_currency(wallet, currency)
        as_of = None
        if not is_past:
            account = await wallet.account(name, currency)
        else:
            as_of, account = await wallet.history.account(name, currency, **moment_of(arguments))
    if account is None:
        raise no_account(name, currency, as_of)
    fields = account_fields(account)
    states = {"frozen": account.frozen, "closed": account.closed}
    if arguments.json:
        write_json({**fields, **states, **({} if as_of is None else as_of_fields(as_of))})
    else:
        words = "".join(f"  {state}" for state, is_so in states.items() if is_so)
        write_line(f"{fields['balance']} {currency}  held {fields['held']}  limit {fields['limit']}{words}")
        if as_of is not None:
            write_line(as_of_text(as_of))
    return 0
