"""Tells the outcome of one command that changes the ledger: done, refused, or not known. Exit status 0 or 1."""

from typing import TYPE_CHECKING, Any, Final

from bezant.cli.errors import CommandRefused, InputWrong, OutcomeNotKnown
from bezant.cli.output import write_json
from bezant.protocol.codes import CODE_ROW, ResultCode
from bezant.protocol.errors import InvalidAmountOrName

if TYPE_CHECKING:
    import bezant

ID_DIGITS: Final = 32

_MALFORMED_STATUS: Final = 400
_NEXT_STEPS: Final[dict[ResultCode, str]] = {
    ResultCode.DEBIT_ACCOUNT_UNKNOWN: "open it first: bezant open NAME CURRENCY",
    ResultCode.CREDIT_ACCOUNT_UNKNOWN: "open it first: bezant open NAME CURRENCY",
    ResultCode.CURRENCY_UNKNOWN: "register it: bezant currencies add CODE DECIMALS",
    ResultCode.INSUFFICIENT_FUNDS: "see what it has: bezant balance NAME CURRENCY",
    ResultCode.NOTHING_AVAILABLE: "see what it has: bezant balance NAME CURRENCY",
    ResultCode.ACCOUNT_NOT_EMPTY: "see what it has: bezant balance NAME CURRENCY",
    ResultCode.DEBIT_ACCOUNT_FROZEN: "let it take part again: bezant unfreeze NAME CURRENCY",
    ResultCode.CREDIT_ACCOUNT_FROZEN: "let it take part again: bezant unfreeze NAME CURRENCY",
    ResultCode.HOLD_UNKNOWN: "a hold is named by the id that `bezant hold` printed and the account that it is on",
    ResultCode.HOLD_OF_OTHER_ACCOUNTS: "name the accounts that it was made with",
    ResultCode.HOLD_EXPIRED: "make another: bezant hold FROM TO AMOUNT CURRENCY",
    ResultCode.CAPTURE_EXCEEDS_HOLD: "leave --amount out to capture all that is held",
    ResultCode.ID_CONFLICT: "use another id for another command",
    ResultCode.ID_FORBIDDEN: "it was given up with `bezant resolve`; to do it after all, use another id",
    ResultCode.ACCOUNT_EXISTS: "nothing needs to be done",
}


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


def check_outcome(result: "bezant.Result", currency: str, *, as_json: bool, retry: str) -> None:
    """Print the result if JSON is asked for, and raise unless it was committed.

    `retry` is the command line that settles an outcome that is not known. Raises `InputWrong` for a command that could
    never be done, `CommandRefused` for one that the ledger refused and `OutcomeNotKnown` if no answer came.
    """
    if as_json:
        write_json(result_fields(result, currency))
    if result.committed:
        return
    if result.code is None:
        raise OutcomeNotKnown("no answer came in time: it may be done or not", f"settle it, never twice: {retry}")
    row = CODE_ROW[result.code]
    told = f"{result.code.name}: {row.meaning.partition(';')[0]}"
    if result.conflict_field is not None:
        told += f" (the field is {result.conflict_field.name.lower()})"
    if row.http_status == _MALFORMED_STATUS:
        raise InputWrong(told, "correct it and run the command again")
    raise CommandRefused(told, _NEXT_STEPS.get(result.code, f"try again: {retry}" if row.retry_helps else ""))


async def check_currency(wallet: "bezant.Wallet", currency: str) -> None:
    """Raise `InputWrong` unless the currency is registered."""
    if currency not in await wallet.currencies():
        raise InputWrong(
            f"the currency {currency!r} is not registered",
            "see which are: bezant currencies list; or register it: bezant currencies add CODE DECIMALS",
        )
