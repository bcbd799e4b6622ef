"""`bezant transfer`: moves an amount, exactly once."""

import argparse
import shlex

from bezant.cli.output import write_line
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_wallet, run_async


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
    parser.add_argument("--id", metavar="HEX", help="32 hexadecimal digits that name this transfer for ever")
    add_ledger_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Transfer; 0 if it is committed."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from bezant.cli.outcomes import check_currency, check_outcome, parse_id
    from bezant.protocol.names import IdMaker

    # The id is made here, not in the SDK, so that it can be told when no answer comes.
    identifier = parse_id(arguments.id) if arguments.id is not None else IdMaker().make()
    async with open_wallet(arguments) as wallet:
        await check_currency(wallet, arguments.currency)
        result = await wallet.transfer(
            arguments.debit,
            arguments.credit,
            arguments.amount,
            arguments.currency,
            id=identifier,
            timeout_s=arguments.timeout_s,
        )
    words = ("bezant", "transfer", arguments.debit, arguments.credit, arguments.amount, arguments.currency)
    retry = f"{shlex.join(words)} --id {identifier.hex()}"
    check_outcome(result, arguments.currency, as_json=arguments.json, retry=retry)
    if not arguments.json:
        repeated = " (done before: nothing was moved now)" if result.repeated else ""
        write_line(f"{arguments.amount} {arguments.currency} from {arguments.debit} to {arguments.credit}{repeated}")
        write_line(f"id {identifier.hex()}")
    return 0
