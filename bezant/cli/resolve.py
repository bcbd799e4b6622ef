"""`bezant resolve`: settles what became of a command, by giving it up unless it was executed."""

import argparse
import shlex
from typing import TYPE_CHECKING

from bezant.cli.errors import InputWrong, OutcomeNotKnown
from bezant.cli.output import write_json, write_line
from bezant.cli.session import add_json_argument, add_ledger_arguments, ledger_words, open_wallet, run_async

if TYPE_CHECKING:
    import bezant


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant resolve`."""
    parser = subparsers.add_parser(
        "resolve",
        description="Settle what became of a command when no answer came. If it was executed, its outcome is told. If"
        " not, it is given up for ever: should it still arrive, it is refused. Either way the exit status is 0.",
    )
    parser.add_argument("id", metavar="ID", help="32 hexadecimal digits: the id of the command")
    parser.add_argument("debit", metavar="FROM", help="the account that the command was to debit, or was about")
    parser.add_argument("currency", metavar="CURRENCY", help="as in EUR")
    add_ledger_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Resolve; 0 if it is settled."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from bezant.cli.outcomes import check_currency, parse_id, result_fields

    identifier = parse_id(arguments.id)
    async with open_wallet(arguments) as wallet:
        await check_currency(wallet, arguments.currency)
        if await wallet.account(arguments.debit, arguments.currency) is None:
            # Ids belong to accounts: to be told of a mistyped one that nothing was done would be true, and mislead.
            raise InputWrong(
                f"there is no account {arguments.debit!r} in {arguments.currency}",
                "name the account that the command was to debit, or was about",
            )
        result = await wallet.resolve(identifier, arguments.debit, arguments.currency, timeout_s=arguments.timeout_s)
    if arguments.json:
        write_json(result_fields(result, arguments.currency))
    told = _outcome(arguments, result)
    if not arguments.json:
        write_line(told)
    return 0


def _outcome(arguments: argparse.Namespace, result: "bezant.Result") -> str:
    """What became of it, in words. Raises `OutcomeNotKnown` if that is not settled, `InputWrong` for no id at all."""
    from bezant.protocol.codes import CODE_ROW, ResultCode

    if result.code is None:
        words = ("bezant", "resolve", arguments.id, arguments.debit, arguments.currency, *ledger_words(arguments))
        raise OutcomeNotKnown("no answer came in time: nothing is settled yet", f"ask again: {shlex.join(words)}")
    row = CODE_ROW[result.code]
    meaning = row.meaning.partition(";")[0]
    if not row.leaves_event:
        raise InputWrong(f"{result.code.name}: {meaning}", "correct it and run the command again")
    if result.committed:
        return f"it was done: {result.amount_text} {arguments.currency}"
    if result.code is ResultCode.ID_FORBIDDEN:
        return "it was not done, and never will be"
    return f"it was refused: {result.code.name}: {meaning}"
