"""`bezant transaction`: several transfers, over any shards, that are done as a whole or not at all, exactly once."""

import argparse
import json
import shlex
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bezant.cli.errors import InputWrong, OutcomeNotKnown
from bezant.cli.output import write_json, write_line
from bezant.cli.session import add_json_argument, add_ledger_arguments, ledger_words, open_wallet, run_async

if TYPE_CHECKING:
    import bezant

_WORDS_OF_LEG: Final = 4
_KEYS: Final = frozenset({"debit", "credit", "amount", "currency", "user_data", "code"})
_KEYS_NEEDED: Final = ("debit", "credit", "amount", "currency")
FILE_BYTES_MAX: Final = 1 << 20
"""Bytes of a file of legs: over ten times what the largest transaction takes."""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant transaction`."""
    parser = subparsers.add_parser(
        "transaction",
        description="Do several transfers, between accounts of any shards: all of them, or none. With --id, running "
        "the same line again moves nothing.",
    )
    parser.add_argument(
        "words",
        metavar="FROM TO AMOUNT CURRENCY",
        nargs="*",
        help="the transfers, of four words each",
    )
    parser.add_argument(
        "--file",
        metavar="FILE",
        help='or a file with an object a line, {"debit": ..., "credit": ..., "amount": "12.50", "currency": ...}, and '
        'if need be "code" and, in hexadecimal, "user_data"; - is standard input',
    )
    parser.add_argument(
        "--mode",
        choices=("tcc", "saga"),
        default="tcc",
        help="tcc: try all at once, then confirm or cancel all; saga: one step after another, deductions first, taken "
        "back if one is refused (default: %(default)s)",
    )
    parser.add_argument(
        "--await",
        dest="awaited",
        choices=("decided", "applied"),
        default="decided",
        help="when to say so: when it is decided, for good, or when every transfer is done (default: %(default)s)",
    )
    parser.add_argument(
        "--id", metavar="HEX", help="32 hexadecimal digits that name this transaction for ever (default: new ones)"
    )
    add_ledger_arguments(parser)
    add_json_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Have it done; 0 if it is committed."""
    legs = read_legs(arguments.words, arguments.file)
    result = run_async(_ask(arguments, legs))
    if arguments.json:
        write_json(result_fields(result, legs))
    check(result, arguments, legs)
    if not arguments.json:
        sums: Counter[str] = Counter(leg["currency"] for leg in legs)
        told = f"{len(legs)} transfers" if len(legs) > 1 else "1 transfer"
        done = "done in every shard" if result.applied else "decided, and being done"
        write_line(f"{told} ({', '.join(sums)}): {done}" + (" (asked for before)" if result.repeated else ""))
        write_line(f"id {result.id.hex()}")
    return 0


async def _ask(arguments: argparse.Namespace, legs: list[dict[str, Any]]) -> "bezant.TransactionResult":
    import bezant
    from bezant.cli.outcomes import check_currency, parse_id
    from bezant.protocol.names import IdMaker

    # The id is made here, not in the SDK, so that it can be told when no answer comes.
    identifier = parse_id(arguments.id) if arguments.id is not None else IdMaker().make()
    async with open_wallet(arguments) as wallet:
        for currency in {leg["currency"] for leg in legs}:
            await check_currency(wallet, currency)
        return await wallet.transaction(
            [bezant.TransactionLeg(**leg) for leg in legs],
            mode=arguments.mode,
            await_applied=arguments.awaited == "applied",
            id=identifier,
            timeout_s=arguments.timeout_s,
        )


def read_legs(words: list[str], file: str | None) -> list[dict[str, Any]]:
    """The legs, as the fields of `TransactionLeg`. Raises `InputWrong`."""
    if (file is not None) == bool(words):
        raise InputWrong("the transfers are given as words or with --file", "see bezant transaction --help")
    if file is None:
        if len(words) % _WORDS_OF_LEG:
            raise InputWrong(
                f"{len(words)} words are no transfers of {_WORDS_OF_LEG}: FROM TO AMOUNT CURRENCY",
                "see what is missing",
            )
        rows = [words[first : first + _WORDS_OF_LEG] for first in range(0, len(words), _WORDS_OF_LEG)]
        return [dict(zip(_KEYS_NEEDED, row, strict=True)) for row in rows]
    lines = _read(file).splitlines()
    legs = [_parse(line, number) for number, line in enumerate(lines, start=1) if line.strip()]
    if not legs:
        raise InputWrong(f"there is no transfer in {file}", "write one a line")
    return legs


def _read(file: str) -> str:
    try:
        if file == "-":
            return sys.stdin.read(FILE_BYTES_MAX)
        with Path(file).open(encoding="utf-8") as opened:
            return opened.read(FILE_BYTES_MAX)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise InputWrong(f"{file} cannot be read: {why}", "name a file of text") from error


def _parse(line: str, number: int) -> dict[str, Any]:
    try:
        leg = json.loads(line)
        if not isinstance(leg, dict) or not set(_KEYS_NEEDED) <= set(leg) <= _KEYS:
            raise ValueError(f"it needs {', '.join(_KEYS_NEEDED)}, and knows {', '.join(sorted(_KEYS))}")
        if not all(isinstance(leg[key], str) for key in _KEYS_NEEDED):
            raise ValueError(f"{', '.join(_KEYS_NEEDED)} are text, the amount too")
        if not isinstance(leg.get("code", 0), int):
            raise ValueError("code is an integer")
        if "user_data" in leg:
            leg["user_data"] = bytes.fromhex(str(leg["user_data"]))
    except ValueError as error:
        raise InputWrong(
            f"line {number} is no transfer: {error}", "correct it; see bezant transaction --help"
        ) from error
    return leg


def result_fields(result: "bezant.TransactionResult", legs: list[dict[str, Any]]) -> dict[str, Any]:
    """A result as `--json` prints it."""
    from bezant.protocol.names import account_id
    from bezant.protocol.transactions import leg_ids

    ids = leg_ids(result.id, account_id(legs[0]["debit"], legs[0]["currency"]), len(legs))
    return {
        "outcome": result.outcome.name.lower(),
        "code": result.code.name if result.code is not None else None,
        "leg": result.leg,
        "conflict_field": result.conflict_field.name.lower() if result.conflict_field is not None else None,
        "repeated": result.repeated,
        "applied": result.applied,
        "id": result.id.hex(),
        "legs": len(legs),
        "leg_ids": [identifier.hex() for identifier in ids],
    }


def check(result: "bezant.TransactionResult", arguments: argparse.Namespace, legs: list[dict[str, Any]]) -> None:
    """Raise unless it was committed: as for a command, with the leg that was refused."""
    from bezant.cli.outcomes import refuse

    words = ["bezant", "transaction", *(["--file", arguments.file] if arguments.file else arguments.words)]
    again = (*words, "--mode", arguments.mode, "--id", result.id.hex())
    if result.committed:
        return
    if result.code is None:
        line = shlex.join((*again, *ledger_words(arguments)))
        raise OutcomeNotKnown("no answer came in time: it may be done or not", f"settle it, never twice: {line}")
    leg = legs[result.leg or 0]
    named = {key: leg[key] for key in ("debit", "credit", "currency")}
    where = "" if result.leg is None or len(legs) == 1 else f"transfer {result.leg + 1} of {len(legs)}: "
    refuse(
        result.code,
        result.conflict_field,
        argparse.Namespace(**vars(arguments) | named),
        retry=again,
        where=where,
    )
