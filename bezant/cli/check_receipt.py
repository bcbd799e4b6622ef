"""`bezant check-receipt`: checks a receipt with nothing but the file; asks no node."""

import argparse
from pathlib import Path
from typing import Final

from bezant.cli.errors import InputFileError
from bezant.cli.output import write_json, write_line, write_remark
from bezant.cli.receipt import read_receipt
from bezant.cli.receipt_text import describe_receipt, receipt_fields
from bezant.cli.session import add_json_argument
from bezant.protocol.receipts import KEY_SIZE, check_receipt

_KEY_FILE_SIZE_MAX: Final = 4096


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant check-receipt`."""
    parser = subparsers.add_parser(
        "check-receipt",
        description="Check a receipt: the event in it is in the history of its log, as the node says that signed it. No"
        " node is asked. With --key it must be signed with that key, which you have had from the node's operator; else"
        " the key that it is signed with is shown. With --extends it must also prove that the history has only grown"
        " since the older receipt. The exit status is 0 if all of this holds.",
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="the receipt")
    parser.add_argument("--key", metavar="KEYFILE", type=Path, help="a file with the public key, 64 hexadecimal digits")
    parser.add_argument("--log", metavar="LOG_ID", help="the id of the log, 16 hexadecimal digits")
    parser.add_argument("--extends", metavar="OLDER", type=Path, help="an earlier receipt of the same log")
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check; 0 if it holds. `ReceiptInvalid` says what does not."""
    key = None if arguments.key is None else _read_key(arguments.key)
    older = None if arguments.extends is None else read_receipt(arguments.extends)
    found = check_receipt(read_receipt(arguments.file), key=key, log_id=arguments.log, extends=older)
    if arguments.json:
        write_json({"ok": True, "key_checked": key is not None, **receipt_fields(found)})
        return 0
    write_line("the receipt holds: its event is in the history")
    for line in describe_receipt(found):
        write_line(line)
    if key is None:
        write_remark("whose key that is was not checked: give it with --key")
    return 0


def _read_key(path: Path) -> bytes:
    """Raises `InputFileError`."""
    try:
        with path.open("rb") as file:
            text = file.read(_KEY_FILE_SIZE_MAX).decode("ascii", "replace").strip()
    except OSError as error:
        raise InputFileError(f"{path}: {error.strerror}") from error
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_SIZE or len(text) != 2 * KEY_SIZE:
        raise InputFileError(f"{path}: a public key is {2 * KEY_SIZE} hexadecimal digits")
    return key
