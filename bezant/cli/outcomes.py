"""Tells the outcome of one command that changes the ledger: done, refused, or not known. Exit status 0 or 1."""

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from bezant.cli.errors import CommandRefused, InputWrong, OutcomeNotKnown
from bezant.cli.output import write_json
from bezant.cli.session import ledger_words
from bezant.cli.times import as_of_text
from bezant.protocol.codes import CODE_ROW, ResultCode
from bezant.protocol.errors import InvalidAmountOrName
from bezant.protocol.kinds import CommandField

if TYPE_CHECKING:
    import bezant
    from bezant.net.client.history import AsOf

ID_DIGITS: Final = 32

_MALFORMED_STATUS: Final = 400
_BALANCES: Final = "see what they have: bezant balance {debit} {currency}{where}"
_LOOK: Final = "see what it has: bezant balance {debit} {currency}{where}"
_CLOSED_FOR_EVER: Final = "it is closed for ever: use another account"
_HOLD_AGAIN: Final = "make another: bezant hold FROM TO AMOUNT {currency}{where}"
NEXT_STEPS: Final[dict[ResultCode, str]] = {
    ResultCode.ID_CONFLICT: "use another id for another command",
    ResultCode.CURRENCY_UNKNOWN: "register it: bezant currencies add CODE DECIMALS{where}",
    ResultCode.ACCOUNT_EXISTS: "see which it is: bezant balance {debit} {currency}{where}",
    ResultCode.DEBIT_ACCOUNT_UNKNOWN: "open it first: bezant open {debit} {currency}{where}",
    ResultCode.CREDIT_ACCOUNT_UNKNOWN: "open it first: bezant open {credit} {currency}{where}",
    ResultCode.CURRENCY_MISMATCH: "money moves within one currency: name two accounts that have the same",
    ResultCode.DEBIT_ACCOUNT_CLOSED: _CLOSED_FOR_EVER,
    ResultCode.CREDIT_ACCOUNT_CLOSED: _CLOSED_FOR_EVER,
    ResultCode.DEBIT_ACCOUNT_FROZEN: "let it take part again: bezant unfreeze {debit} {currency}{where}",
    ResultCode.CREDIT_ACCOUNT_FROZEN: "let it take part again: bezant unfreeze {credit} {currency}{where}",
    ResultCode.INSUFFICIENT_FUNDS: _LOOK,
    ResultCode.BALANCE_OVERFLOW: f"move less; {_BALANCES}",
    ResultCode.HELD_OVERFLOW: f"hold less; {_LOOK}",
    ResultCode.HOLD_UNKNOWN: "a hold is named by the id that `bezant hold` printed and the account that it is on",
    ResultCode.HOLD_CAPTURED: _HOLD_AGAIN,
    ResultCode.HOLD_RELEASED: _HOLD_AGAIN,
    ResultCode.HOLD_EXPIRED: _HOLD_AGAIN,
    ResultCode.CAPTURE_EXCEEDS_HOLD: "leave --amount out to capture all that is held",
    ResultCode.HOLD_OF_OTHER_ACCOUNTS: "name the accounts that it was made with",
    ResultCode.ACCOUNT_NOT_EMPTY: _LOOK,
    ResultCode.CHAIN_MEMBER_REFUSED: "see to the command of the chain that was refused, and use new ids",
    ResultCode.ID_FORBIDDEN: "it was given up with `bezant resolve`; to do it after all, use another id",
    ResultCode.NOTHING_AVAILABLE: _LOOK,
    ResultCode.UNDECIDED: "ask again with the same --id; see what is under way: bezant transactions{where}",
    ResultCode.TRANSIT_ACCOUNT: "name the accounts between which money is to move; what is between shards is theirs",
    ResultCode.SHARD_UNREACHABLE: "see which shard does not answer: bezant shards{where}; then use another id",
}
"""For each code that refuses; in braces what the command line named, and the words that lead to the same ledger."""


def parse_id(text: str) -> bytes:
    """Read an id of 32 hexadecimal digits. Raises `InvalidAmountOrName`."""
    try:
        identifier = bytes.fromhex(text)
    except ValueError:
        identifier = b""
    if len(text) != ID_DIGITS or len(identifier) * 2 != ID_DIGITS:
        raise InvalidAmountOrName(f"an id is {ID_DIGITS} hexadecimal digits, not {text!r}")
    return identifier


def result_fields(result: "bezant.Result", currency: str) -> dict[str, Any]:
    """A result as `--json` prints it; amounts are decimal strings."""
    is_known = result.code is not None
    return {
        "outcome": result.outcome.name.lower(),
        "code": result.code.name if result.code is not None else None,
        "conflict_field": result.conflict_field.name.lower() if result.conflict_field is not None else None,
        "repeated": result.repeated,
        "id": result.id.hex(),
        "position": result.position,
        "timestamp_ns": result.timestamp_ns if is_known else None,
        "currency": currency,
        "amount": result.amount_text if is_known else None,
        "debit_balance": result.debit_balance_text if is_known else None,
        "debit_held": result.debit_held_text if is_known else None,
        "credit_balance": result.credit_balance_text if is_known else None,
        "credit_held": result.credit_held_text if is_known else None,
    }


def check_outcome(result: "bezant.Result", arguments: argparse.Namespace, *, retry: Sequence[str]) -> None:
    """Print the result if JSON is asked for, and raise unless it was committed.

    `retry` are the words that settle an outcome that is not known, without those that lead to the ledger. Raises
    `InputWrong` for a command that could never be done, `CommandRefused` for one that the ledger refused and
    `OutcomeNotKnown` if no answer came.
    """
    if arguments.json:
        write_json(result_fields(result, arguments.currency))
    if result.committed:
        return
    if result.code is None:
        again = shlex.join((*retry, *ledger_words(arguments)))
        raise OutcomeNotKnown("no answer came in time: it may be done or not", f"settle it, never twice: {again}")
    refuse(result.code, result.conflict_field, arguments, retry=retry)


def refuse(
    code: ResultCode,
    conflict_field: CommandField | None,
    arguments: argparse.Namespace,
    *,
    retry: Sequence[str],
    where: str = "",
) -> NoReturn:
    """Raise `InputWrong` or `CommandRefused` for a code, as `check_outcome` does; `where` goes before the reason."""
    row = CODE_ROW[code]
    told = f"{where}{code.name}: {row.meaning.partition(';')[0]}"
    if conflict_field is not None:
        told += f" (the field is {conflict_field.name.lower()})"
    if row.http_status == _MALFORMED_STATUS:
        raise InputWrong(told, "correct it and run the command again")
    again = shlex.join((*retry, *ledger_words(arguments)))
    raise CommandRefused(told, _next_step(code, arguments) or (f"try again: {again}" if row.retry_helps else ""))


def _next_step(code: ResultCode, arguments: argparse.Namespace) -> str:
    """What to do about a refusal, with the names of this command line; "" if the code is not one of a refusal."""
    named = vars(arguments)
    return NEXT_STEPS.get(code, "").format(
        debit=shlex.quote(named.get("debit", named.get("name", "NAME"))),
        credit=shlex.quote(named.get("credit", "NAME")),
        currency=shlex.quote(arguments.currency),
        where="".join(f" {shlex.quote(word)}" for word in ledger_words(arguments)),
    )


def no_account(name: str, currency: str, as_of: "AsOf | None") -> InputWrong:
    """What is wrong with a question about an account that is not there, or was not then."""
    if as_of is not None:
        return InputWrong(f"there was no account {name!r} in {currency}, {as_of_text(as_of)}", "ask for a later time")
    return InputWrong(
        f"there is no account {name!r} in {currency}", f"open it: {shlex.join(('bezant', 'open', name, currency))}"
    )


async def check_account(wallet: "bezant.Wallet", name: str, currency: str, moment: dict[str, Any]) -> None:
    """Raise `InputWrong` unless there is such an account, or was at the moment that is asked about."""
    as_of, found = await wallet.history.account(name, currency, **moment)
    if found is None:
        raise no_account(name, currency, as_of if any(value is not None for value in moment.values()) else None)


async def check_currency(wallet: "bezant.Wallet", currency: str) -> None:
    """Raise `InputWrong` unless the currency is registered."""
    if currency not in await wallet.currencies():
        raise InputWrong(
            f"the currency {currency!r} is not registered",
            "see which are: bezant currencies list; or register it: bezant currencies add CODE DECIMALS",
        )
