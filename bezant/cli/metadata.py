"""`bezant metadata`: JSON on accounts and transfers, which can be erased."""

import argparse
import json
from typing import Any

from bezant.cli.errors import CommandFailed, InputWrong
from bezant.cli.output import write_json, write_line
from bezant.cli.receipt import only_position, position_argument
from bezant.cli.session import add_json_argument, add_ledger_arguments, open_history, open_wallet, run_async

_DESCRIPTION = (
    "Set, show or erase the metadata of an account or a transfer: a JSON object of up to 1024 bytes. Setting it takes"
    " the place of what was there; erasing overwrites it on the disk of every node, and leaves the history as it was."
    " What snapshots and archives have of it stays in them."
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant metadata`."""
    parser = subparsers.add_parser("metadata", description=_DESCRIPTION)
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in (
        ("set", "set it, in place of what was there"),
        ("show", "print what was set last"),
        ("erase", "have it erased on the disk of every node"),
    ):
        action = actions.add_parser(name, help=summary, description=_DESCRIPTION)
        which = action.add_mutually_exclusive_group(required=True)
        which.add_argument("--account", nargs=2, metavar=("NAME", "CURRENCY"), help="that of this account")
        which.add_argument("--transfer", metavar="ID", help="that of the transfer with this id, 32 hexadecimal digits")
        which.add_argument("--position", metavar="P", type=position_argument, help="that of the event at this position")
        if name == "set":
            action.add_argument("content", metavar="JSON", help="a JSON object, such as '{\"order\": 117}'")
        add_ledger_arguments(action)
        add_json_argument(action)


def run(arguments: argparse.Namespace) -> int:
    """Set, show or erase; 0 if that was done, 1 if there is none to show."""
    return run_async(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    opens = open_wallet if arguments.action == "set" and arguments.transfer is None else open_history
    content = _parsed(arguments.content) if arguments.action == "set" else {}
    async with opens(arguments) as wallet:
        subject = await _subject(wallet, arguments)
        if arguments.action == "set":
            told = {"version": await wallet.set_metadata(subject, content)}
            line = "it is set"
        elif arguments.action == "erase":
            told = {"version": await wallet.erase_metadata(subject)}
            line = "it is erased" if told["version"] else "there was none"
        else:
            found = await wallet.metadata(subject)
            if found is None:
                raise CommandFailed("there is no metadata", "set some: bezant metadata set")
            write_line(json.dumps(found, ensure_ascii=False))
            return 0
    if arguments.json:
        write_json(told)
    else:
        write_line(line)
    return 0


async def _subject(wallet: Any, arguments: argparse.Namespace) -> "tuple[str, str] | int":
    if arguments.account is not None:
        name, currency = arguments.account
        return name, currency
    if arguments.transfer is None:
        found: int = arguments.position
        return found
    from bezant.cli.outcomes import parse_id

    identifier = parse_id(arguments.transfer)
    events = await wallet.history.transfer(identifier)
    return only_position([event.position for event in events if event.id == identifier], arguments.transfer)


def _parsed(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputWrong(f"metadata is a JSON object, and this is none: {error}", "see to its quotes") from error
    if not isinstance(content, dict):
        raise InputWrong("metadata is a JSON object, and this is other JSON", 'write it as {"name": "value"}')
    return content
