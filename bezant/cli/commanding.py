"""What the commands that change the ledger share: an id that is known before anything is sent, and one outcome."""

import argparse
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from bezant.cli.output import write_line
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_wallet, run_async

if TYPE_CHECKING:
    import bezant

    Ask = Callable[[bezant.Wallet, bytes], Awaitable[bezant.Result]]


def add_command_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--id``, and what every command that asks a ledger has."""
    parser.add_argument(
        "--id", metavar="HEX", help="32 hexadecimal digits that name this command for ever (default: new ones)"
    )
    add_ledger_arguments(parser)
    add_json_argument(parser)


def add_account_arguments(parser: argparse.ArgumentParser) -> None:
    """Add those of a command that is about one account."""
    parser.add_argument("name", metavar="NAME", help="the account's name")
    parser.add_argument("currency", metavar="CURRENCY", help="as in EUR")
    add_command_arguments(parser)


def execute(arguments: argparse.Namespace, words: Sequence[str], ask: "Ask") -> "bezant.Result":
    """Ask for one command by an id, and return its result if it is committed.

    `words` are the command line that repeats it, without the id and the ledger. Raises what `check_outcome` does.
    """
    return run_async(_execute(arguments, words, ask))


async def _execute(arguments: argparse.Namespace, words: Sequence[str], ask: "Ask") -> "bezant.Result":
    from bezant.cli.outcomes import check_currency, check_outcome, parse_id
    from bezant.protocol.names import IdMaker

    # The id is made here, not in the SDK, so that it can be told when no answer comes.
    identifier = parse_id(arguments.id) if arguments.id is not None else IdMaker().make()
    async with open_wallet(arguments) as wallet:
        await check_currency(wallet, arguments.currency)
        result = await ask(wallet, identifier)
    check_outcome(result, arguments, retry=("bezant", *words, "--id", identifier.hex()))
    return result


def tell(arguments: argparse.Namespace, result: "bezant.Result", done: str) -> None:
    """Say in words what was done, unless JSON has said so, and under which id."""
    if not arguments.json:
        write_line(f"{done} (done before: nothing was changed now)" if result.repeated else done)
        write_line(f"id {result.id.hex()}")
