"""`bezant receipt`: a proof, for whoever is to have it, that a transfer is in the history, or was refused."""

import argparse
import os
from pathlib import Path
from typing import Final

from bezant.cli.errors import CommandFailed, InputFileError, InputWrong
from bezant.cli.output import write_json, write_line
from bezant.cli.progress import progress
from bezant.cli.receipt_text import describe_receipt, receipt_fields
from bezant.cli.session import add_json_argument, add_ledger_arguments, check_data_folder, open_history, run_async
from bezant.protocol.receipts import EXTENDING_RECEIPT_SIZE_MAX, check_receipt

POSITION_DIGITS_MAX: Final = 20


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant receipt`."""
    parser = subparsers.add_parser(
        "receipt",
        description="Write a receipt to a file: with it, and the public key of the node that signed it, anyone can"
        " check that the transfer is in the history, without asking a node (`bezant check-receipt`). It holds the event"
        " as it is in the history, with the balances after it, and tells nothing of other events. A refused transfer"
        " has one, too. It can be had some milliseconds after the result. With --data the folder may be that of a"
        " node that runs or not; nothing is changed there but that a key to sign with is made.",
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("id", metavar="TRANSFER_ID", nargs="?", help="32 hexadecimal digits: the id of the transfer")
    which.add_argument(
        "--position", metavar="P", type=position_argument, help="the position of its event, in place of the id"
    )
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="where to write the receipt")
    parser.add_argument(
        "--extends",
        metavar="OLDER",
        type=Path,
        help="an earlier receipt of this ledger: prove as well that nothing before it has changed since",
    )
    add_ledger_arguments(parser)
    add_json_argument(parser)


def position_argument(text: str) -> int:
    """Read a position; for argparse."""
    digits = text.removeprefix("-")
    if not (
        digits.isascii() and digits.isdigit() and len(digits) <= POSITION_DIGITS_MAX and -(2**63) <= int(text) < 2**63
    ):
        raise argparse.ArgumentTypeError(f"a position is a whole number of 64 bits, not {text!r}")
    return int(text)


def run(arguments: argparse.Namespace) -> int:
    """Write the receipt; 0 if it is there."""
    from bezant.cli.outcomes import parse_id

    identifier = parse_id(arguments.id) if arguments.id is not None else None
    older = None if arguments.extends is None else read_receipt(arguments.extends)
    if arguments.data is not None:
        receipt = _from_folder(arguments, identifier, older)
    else:
        receipt = run_async(_from_node(arguments, identifier, older))
    found = check_receipt(receipt, extends=older)
    _write(arguments.out, receipt)
    if arguments.json:
        write_json({"file": str(arguments.out), **receipt_fields(found)})
    else:
        write_line(f"{arguments.out}: {len(receipt):,} bytes")
        for line in describe_receipt(found):
            write_line(line)
    return 0


async def _from_node(arguments: argparse.Namespace, identifier: bytes | None, older: bytes | None) -> bytes:
    async with open_history(arguments) as wallet:
        position = arguments.position
        if identifier is not None:
            events = await wallet.history.transfer(identifier)
            position = only_position([event.position for event in events if event.id == identifier], arguments.id)
        return await wallet.receipts.receipt(position, extends=older)


def _from_folder(arguments: argparse.Namespace, identifier: bytes | None, older: bytes | None) -> bytes:
    from bezant.engine.proofs.offline import FolderIssuer

    check_data_folder(arguments.data)
    folder = FolderIssuer(arguments.data)
    try:
        with progress("reading", total=0, unit="events") as bar:
            issuer, found = folder.read(identifier, lambda done: bar.update(done, max(done, 1)))
        position = arguments.position if identifier is None else only_position(found, arguments.id)
        return issuer.receipt(position, 0 if older is None else check_receipt(older).head.size)
    finally:
        folder.close()


def only_position(positions: list[int], identifier: str) -> int:
    """The position of the one event with an id."""
    if not positions:
        raise InputWrong(
            f"no event has the id {identifier}", "check the id; a command that was malformed left no event"
        )
    if len(positions) > 1:
        listed = ", ".join(map(str, positions))
        raise InputWrong(f"several accounts have used the id {identifier}", f"choose one with --position: {listed}")
    return positions[0]


def read_receipt(path: Path) -> bytes:
    """The bytes of a file, no more of them than a receipt has. Raises `InputFileError`."""
    try:
        with path.open("rb") as file:
            return file.read(EXTENDING_RECEIPT_SIZE_MAX + 1)
    except OSError as error:
        raise InputFileError(f"{path}: {error.strerror}") from error


def _write(path: Path, receipt: bytes) -> None:
    """Write the file, durably and all at once. Raises `CommandFailed`."""
    made = path.with_name(f"{path.name}.unfinished")
    try:
        with made.open("wb") as file:
            file.write(receipt)
            file.flush()
            os.fsync(file.fileno())
        made.replace(path)
    except OSError as error:
        raise CommandFailed(f"{path}: the receipt cannot be written: {error.strerror}", "give another --out") from error
