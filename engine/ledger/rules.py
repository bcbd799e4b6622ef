"""What each kind of command does, once nothing but the state can refuse it: the fifth step of ``README.md``.

Every function takes the event under construction, whose first 120 bytes are the command, writes what came of it into
the event and the state, and returns the result's code. Sums are compared before they are formed, so nothing overflows.
"""

from typing import Any, Final

import numpy as np

from bezant.engine.compiled import called, inlined
from bezant.engine.ledger.checks import HOLD, KEEP_OPEN, TRANSIT
from bezant.engine.ledger.holds import make_hold
from bezant.engine.ledger.index import insert
from bezant.engine.ledger.lookups import find_account, hash_of_account, look_up_account, look_up_hold, place_of_named
from bezant.engine.ledger.state import (
    COUNTER_ACCOUNTS,
    COUNTER_CURRENCIES,
    COUNTER_ENTRY_TIMESTAMP_NS,
    FATE_CAPTURED,
    FATE_EXPIRED,
    FATE_OPEN,
    FATE_RELEASED,
    LedgerArrays,
)
from bezant.engine.ledger.undo import close_hold, keep_account, keep_hold, keep_made, keep_opened
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import AccountFlag, CommandKind
from bezant.protocol.records import LIMIT_UNLIMITED, Words

AMOUNT_MAX: Final = 2**63 - 1
NS_PER_MS: Final = 1_000_000

_FROZEN: Final = int(AccountFlag.FROZEN)
_CLOSED: Final = int(AccountFlag.CLOSED)
_HAS_INCOMING: Final = int(AccountFlag.HAS_INCOMING)
_TRANSIT: Final = int(AccountFlag.TRANSIT)
_UNLIMITED: Final = LIMIT_UNLIMITED
_FREEZE: Final = int(CommandKind.FREEZE)

_COMMITTED: Final = int(ResultCode.COMMITTED)
_CURRENCY_UNKNOWN: Final = int(ResultCode.CURRENCY_UNKNOWN)
_ACCOUNT_EXISTS: Final = int(ResultCode.ACCOUNT_EXISTS)
_DEBIT_UNKNOWN: Final = int(ResultCode.DEBIT_ACCOUNT_UNKNOWN)
_CREDIT_UNKNOWN: Final = int(ResultCode.CREDIT_ACCOUNT_UNKNOWN)
_CURRENCY_MISMATCH: Final = int(ResultCode.CURRENCY_MISMATCH)
_DEBIT_CLOSED: Final = int(ResultCode.DEBIT_ACCOUNT_CLOSED)
_CREDIT_CLOSED: Final = int(ResultCode.CREDIT_ACCOUNT_CLOSED)
_DEBIT_FROZEN: Final = int(ResultCode.DEBIT_ACCOUNT_FROZEN)
_CREDIT_FROZEN: Final = int(ResultCode.CREDIT_ACCOUNT_FROZEN)
_INSUFFICIENT: Final = int(ResultCode.INSUFFICIENT_FUNDS)
_OVERFLOW: Final = int(ResultCode.BALANCE_OVERFLOW)
_HELD_OVERFLOW: Final = int(ResultCode.HELD_OVERFLOW)
_HOLD_UNKNOWN: Final = int(ResultCode.HOLD_UNKNOWN)
_HOLD_CAPTURED: Final = int(ResultCode.HOLD_CAPTURED)
_HOLD_RELEASED: Final = int(ResultCode.HOLD_RELEASED)
_HOLD_EXPIRED: Final = int(ResultCode.HOLD_EXPIRED)
_CAPTURE_EXCEEDS_HOLD: Final = int(ResultCode.CAPTURE_EXCEEDS_HOLD)
_HOLD_OF_OTHERS: Final = int(ResultCode.HOLD_OF_OTHER_ACCOUNTS)
_NOT_EMPTY: Final = int(ResultCode.ACCOUNT_NOT_EMPTY)
_NOTHING_AVAILABLE: Final = int(ResultCode.NOTHING_AVAILABLE)
_TRANSIT_ACCOUNT: Final = int(ResultCode.TRANSIT_ACCOUNT)
_FATE_CODES: Final = np.array(
    [_HOLD_UNKNOWN, _HOLD_CAPTURED, _HOLD_RELEASED, _HOLD_EXPIRED] + [_HOLD_UNKNOWN] * 6, np.int64
)
"""The code for a hold that is not open, by its fate. Tries are no holds."""


# ---- what several kinds share ----


@inlined
def show_accounts(arrays: LedgerArrays, event: Any, debit_row: int, credit_row: int) -> None:
    """Write the balances of both accounts, as they are now, into an event that has no effect (yet)."""
    event["effective_amount"] = 0
    event["debit_previous"] = 0
    event["credit_previous"] = 0
    event["debit_balance"] = 0
    event["debit_held"] = 0
    event["credit_balance"] = 0
    event["credit_held"] = 0
    if debit_row >= 0:
        event["debit_balance"] = arrays.rows[debit_row]["balance"]
        event["debit_held"] = arrays.rows[debit_row]["held"]
    if credit_row >= 0:
        event["credit_balance"] = arrays.rows[credit_row]["balance"]
        event["credit_held"] = arrays.rows[credit_row]["held"]


@inlined
def touch(row: Any, position: int) -> int:
    """Make an event the last one of an account; returns the position of the one before it."""
    previous = row["last_position"]
    row["last_position"] = position
    row["event_count"] += 1
    return previous


@inlined
def touch_debit(arrays: LedgerArrays, event: Any, number: int, position: int, amount: int) -> None:
    """Finish an event that changed the debit account alone."""
    row = arrays.rows[number]
    event["effective_amount"] = amount
    event["debit_balance"] = row["balance"]
    event["debit_held"] = row["held"]
    event["debit_previous"] = touch(row, position)


@inlined
def touch_both(arrays: LedgerArrays, event: Any, debit_row: int, credit_row: int, position: int, amount: int) -> None:
    """Finish an event that changed both accounts."""
    touch_debit(arrays, event, debit_row, position, amount)
    row = arrays.rows[credit_row]
    event["credit_balance"] = row["balance"]
    event["credit_held"] = row["held"]
    event["credit_previous"] = touch(row, position)


@inlined
def check_debit(row: Any, amount: int) -> int:
    """Whether an amount can leave an account or be held on it: COMMITTED, INSUFFICIENT_FUNDS or BALANCE_OVERFLOW."""
    available = row["balance"] - row["held"]
    limit = row["limit"]
    if available < amount - AMOUNT_MAX:
        return _OVERFLOW if limit == _UNLIMITED else _INSUFFICIENT
    if limit != _UNLIMITED and available - amount < -limit:
        return _INSUFFICIENT
    return _COMMITTED


@inlined
def check_credit(arrays: LedgerArrays, number: int, amount: int) -> int:
    """Whether an amount can be added to an account: COMMITTED or BALANCE_OVERFLOW."""
    row = arrays.rows[number]
    reserved = row["balance"]
    if row["flags"] & _HAS_INCOMING != 0:
        reserved += arrays.rows_cold[number]["incoming"]
    return _OVERFLOW if reserved > AMOUNT_MAX - amount else _COMMITTED


@inlined
def check_flags(debit: Any, credit: Any) -> int:
    """Whether two accounts may take part: COMMITTED, or which of them is closed or frozen, or TRANSIT_ACCOUNT."""
    if (debit["flags"] | credit["flags"]) & (_CLOSED | _FROZEN | _TRANSIT) == 0:
        return _COMMITTED
    if (debit["flags"] | credit["flags"]) & _TRANSIT != 0:
        return _TRANSIT_ACCOUNT
    if debit["flags"] & _CLOSED != 0:
        return _DEBIT_CLOSED
    if credit["flags"] & _CLOSED != 0:
        return _CREDIT_CLOSED
    return _DEBIT_FROZEN if debit["flags"] & _FROZEN != 0 else _CREDIT_FROZEN


@inlined
def check_pair(arrays: LedgerArrays, debit_row: int, credit_row: int) -> int:
    """Whether money may go from one row to another at all (-1: unknown account)."""
    if debit_row < 0:
        return _DEBIT_UNKNOWN
    if credit_row < 0:
        return _CREDIT_UNKNOWN
    debit, credit = arrays.rows[debit_row], arrays.rows[credit_row]
    if debit["currency_number"] != credit["currency_number"]:
        return _CURRENCY_MISMATCH
    return check_flags(debit, credit)


@inlined
def move(arrays: LedgerArrays, event: Any, debit_row: int, credit_row: int, position: int, amount: int) -> None:
    """Move an amount that has been checked."""
    keep_account(arrays, debit_row)
    keep_account(arrays, credit_row)
    arrays.rows[debit_row]["balance"] -= amount
    arrays.rows[credit_row]["balance"] += amount
    touch_both(arrays, event, debit_row, credit_row, position, amount)


# ---- accounts ----


@inlined
def find_currency(arrays: LedgerArrays, word: int) -> int:
    """Number of a registered currency, or -1. Only an OPEN asks, so a walk over the registry will do."""
    for number in range(arrays.counters[COUNTER_CURRENCIES]):
        if arrays.currencies[number] == word:
            return number
    return -1


@called
def execute_open(arrays: LedgerArrays, event: Any, words: Words, position: int) -> int:
    """Add an account; the caller has made sure that there is room for one."""
    number = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    show_accounts(arrays, event, number, -1)
    currency_number = find_currency(arrays, event["currency"])
    if currency_number < 0:
        return _CURRENCY_UNKNOWN
    if number >= 0:
        return _ACCOUNT_EXISTS
    number = arrays.counters[COUNTER_ACCOUNTS]
    arrays.counters[COUNTER_ACCOUNTS] = number + 1
    row, cold = arrays.rows[number], arrays.rows_cold[number]
    row["id_head"] = event["debit_head"]
    row["id_tail"] = event["debit_tail"]
    row["limit"] = event["amount"]
    row["currency_number"] = currency_number
    row["flags"] = _TRANSIT if event["flags"] & TRANSIT != 0 else 0
    row["last_position"] = position
    row["event_count"] = 1
    cold["opened_position"] = position
    for index in range(6):
        cold["name"][index] = words[4 + index]
    event["effective_amount"] = event["amount"]
    keep_opened(arrays, number)
    accounts = arrays.account_index
    insert(accounts, hash_of_account(arrays, row["id_head"], row["id_tail"]), number + 1)
    return _COMMITTED


@inlined
def find_open_account(arrays: LedgerArrays, event: Any) -> tuple[int, int]:
    """(row number, code) of the debit account of a kind that has no other; shows it in the event."""
    number = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    show_accounts(arrays, event, number, -1)
    if number < 0:
        return number, _DEBIT_UNKNOWN
    if arrays.rows[number]["flags"] & _TRANSIT != 0:
        return number, _TRANSIT_ACCOUNT
    if arrays.rows[number]["flags"] & _CLOSED != 0:
        return number, _DEBIT_CLOSED
    return number, _COMMITTED


@called
def execute_set_limit(arrays: LedgerArrays, event: Any, position: int) -> int:
    """Replace the limit of an account."""
    number, code = find_open_account(arrays, event)
    if code == _COMMITTED:
        keep_account(arrays, number)
        arrays.rows[number]["limit"] = event["amount"]
        touch_debit(arrays, event, number, position, event["amount"])
    return code


@called
def execute_freeze(arrays: LedgerArrays, event: Any, position: int) -> int:
    """Freeze an account, or unfreeze it; one that is so already stays so."""
    number, code = find_open_account(arrays, event)
    if code == _COMMITTED:
        keep_account(arrays, number)
        row = arrays.rows[number]
        row["flags"] = row["flags"] | _FROZEN if event["kind"] == _FREEZE else row["flags"] & ~_FROZEN
        touch_debit(arrays, event, number, position, 0)
    return code


@called
def execute_close(arrays: LedgerArrays, event: Any, position: int) -> int:
    """Close an account for ever."""
    number, code = find_open_account(arrays, event)
    if code != _COMMITTED:
        return code
    row = arrays.rows[number]
    if row["balance"] != 0 or row["held"] != 0 or row["flags"] & _HAS_INCOMING != 0:
        return _NOT_EMPTY
    keep_account(arrays, number)
    row["flags"] = row["flags"] | _CLOSED
    touch_debit(arrays, event, number, position, 0)
    return _COMMITTED


# ---- money ----


@inlined
def execute_transfer(arrays: LedgerArrays, event: Any, position: int) -> int:
    """Move an amount from one account to another."""
    debit_row = find_account(arrays, event["debit_head"], event["debit_tail"])
    credit_row = find_account(arrays, event["credit_head"], event["credit_tail"])
    amount = event["amount"]
    code = check_pair(arrays, debit_row, credit_row)
    if code == _COMMITTED:
        code = check_debit(arrays.rows[debit_row], amount)
    if code == _COMMITTED:
        code = check_credit(arrays, credit_row, amount)
    if code != _COMMITTED:
        show_accounts(arrays, event, debit_row, credit_row)
        return code
    move(arrays, event, debit_row, credit_row, position, amount)
    return _COMMITTED


@inlined
def available_amount(row: Any, amount: int) -> int:
    """How much of an amount can leave an account: all of it, or what balance, held and limit leave."""
    available = row["balance"] - row["held"]
    limit = row["limit"]
    # No limit is above 2^63 - 1, so the balance stays at or above -(2^63 - 1).
    room = AMOUNT_MAX if limit > AMOUNT_MAX - max(available, 0) else available + limit
    return min(room, amount)


@called
def execute_transfer_available(arrays: LedgerArrays, event: Any, position: int) -> int:
    """Move at most an amount: as much of it as is available."""
    debit_row = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    credit_row = look_up_account(arrays, event["credit_head"], event["credit_tail"])
    code = check_pair(arrays, debit_row, credit_row)
    amount = event["amount"]
    if code == _COMMITTED:
        amount = available_amount(arrays.rows[debit_row], amount)
        code = _NOTHING_AVAILABLE if amount <= 0 else check_credit(arrays, credit_row, amount)
    if code != _COMMITTED:
        show_accounts(arrays, event, debit_row, credit_row)
        return code
    move(arrays, event, debit_row, credit_row, position, amount)
    return _COMMITTED


# ---- holds ----


@called
def execute_hold(arrays: LedgerArrays, event: Any, hash_value: int, sequence: int, position: int) -> int:
    """Reserve an amount on the debit account for the credit account; the caller has made sure of room for a hold."""
    debit_row = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    credit_row = look_up_account(arrays, event["credit_head"], event["credit_tail"])
    amount = event["amount"]
    show_accounts(arrays, event, debit_row, credit_row)
    code = check_pair(arrays, debit_row, credit_row)
    if code == _COMMITTED:
        code = check_debit(arrays.rows[debit_row], amount)
    if code == _COMMITTED and arrays.rows[debit_row]["held"] > AMOUNT_MAX - amount:
        code = _HELD_OVERFLOW
    if code != _COMMITTED:
        return code
    deadline_ns = 0
    if event["timeout_ms"] != 0:
        deadline_ns = event["timestamp_ns"] + event["timeout_ms"] * NS_PER_MS
    number = make_hold(
        arrays,
        event["id_head"],
        event["id_tail"],
        hash_value,
        sequence,
        amount,
        deadline_ns,
        debit_row,
        credit_row,
        HOLD,
    )
    keep_made(arrays, number)
    keep_account(arrays, debit_row)
    arrays.rows[debit_row]["held"] += amount
    touch_debit(arrays, event, debit_row, position, amount)
    return _COMMITTED


@inlined
def check_hold(arrays: LedgerArrays, hold_row: int, fate: int, debit_row: int, credit_row: int) -> int:
    """Whether a capture or release may have a hold (-1: not open; its fate says why). `credit_row` -1: any."""
    if hold_row < 0:
        return _FATE_CODES[fate]
    hold = arrays.holds.rows[hold_row]
    if hold["kind"] != HOLD:
        return _HOLD_UNKNOWN
    if hold["fate"] != FATE_OPEN:
        return _FATE_CODES[hold["fate"]]
    if hold["debit_row"] != debit_row or (credit_row >= 0 and hold["credit_row"] != credit_row):
        return _HOLD_OF_OTHERS
    if hold["deadline_ns"] != 0 and hold["deadline_ns"] <= arrays.counters[COUNTER_ENTRY_TIMESTAMP_NS]:
        return _HOLD_EXPIRED
    return _COMMITTED


@inlined
def check_capture(arrays: LedgerArrays, event: Any, hold_row: int, debit_row: int, credit_row: int) -> int:
    """Whether an open hold can be captured, as far as amount and accounts go."""
    remaining = arrays.holds.rows[hold_row]["remaining"]
    if event["amount"] > remaining:
        return _CAPTURE_EXCEEDS_HOLD
    code = check_flags(arrays.rows[debit_row], arrays.rows[credit_row])
    if code != _COMMITTED:
        return code
    return check_credit(arrays, credit_row, event["amount"] if event["amount"] != 0 else remaining)


@called
def execute_capture(arrays: LedgerArrays, event: Any, fate: int, position: int) -> int:
    """Move the held amount, or a part of it; the rest is released, or stays held with KEEP_OPEN."""
    debit_row = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    credit_row = look_up_account(arrays, event["credit_head"], event["credit_tail"])
    show_accounts(arrays, event, debit_row, credit_row)
    if debit_row < 0:
        return _DEBIT_UNKNOWN
    if credit_row < 0:
        return _CREDIT_UNKNOWN
    hold_row = look_up_hold(arrays, event["reference_head"], event["reference_tail"], place_of_named(arrays, event))
    code = check_hold(arrays, hold_row, fate, debit_row, credit_row)
    if code == _COMMITTED:
        code = check_capture(arrays, event, hold_row, debit_row, credit_row)
    if code != _COMMITTED:
        return code
    hold = arrays.holds.rows[hold_row]
    remaining = hold["remaining"]
    amount = event["amount"] if event["amount"] != 0 else remaining
    stays_open = event["flags"] & KEEP_OPEN != 0 and amount < remaining
    keep_hold(arrays, hold_row)
    keep_account(arrays, debit_row)
    keep_account(arrays, credit_row)
    arrays.rows[debit_row]["balance"] -= amount
    arrays.rows[debit_row]["held"] -= amount if stays_open else remaining
    arrays.rows[credit_row]["balance"] += amount
    touch_both(arrays, event, debit_row, credit_row, position, amount)
    if stays_open:
        hold["remaining"] = remaining - amount
    else:
        close_hold(arrays, hold_row, FATE_CAPTURED)
    return _COMMITTED


@called
def execute_release(arrays: LedgerArrays, event: Any, fate: int, position: int) -> int:
    """Give back what is left of a hold."""
    debit_row = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    show_accounts(arrays, event, debit_row, -1)
    if debit_row < 0:
        return _DEBIT_UNKNOWN
    hold_row = look_up_hold(arrays, event["reference_head"], event["reference_tail"], place_of_named(arrays, event))
    code = check_hold(arrays, hold_row, fate, debit_row, -1)
    if code != _COMMITTED:
        return code
    remaining = arrays.holds.rows[hold_row]["remaining"]
    keep_hold(arrays, hold_row)
    keep_account(arrays, debit_row)
    arrays.rows[debit_row]["held"] -= remaining
    touch_debit(arrays, event, debit_row, position, remaining)
    close_hold(arrays, hold_row, FATE_RELEASED)
    return _COMMITTED


@called
def execute_expire(arrays: LedgerArrays, event: Any, hold_row: int, position: int) -> None:
    """Give back what is left of a hold whose time is up; the event names its accounts, its id and the amount."""
    hold = arrays.holds.rows[hold_row]
    debit_row, credit_row, remaining = hold["debit_row"], hold["credit_row"], hold["remaining"]
    debit, credit = arrays.rows[debit_row], arrays.rows[credit_row]
    event["debit_head"] = debit["id_head"]
    event["debit_tail"] = debit["id_tail"]
    event["credit_head"] = credit["id_head"]
    event["credit_tail"] = credit["id_tail"]
    event["reference_head"] = hold["id_head"]
    event["reference_tail"] = hold["id_tail"]
    event["amount"] = remaining
    show_accounts(arrays, event, debit_row, credit_row)
    debit["held"] -= remaining
    touch_debit(arrays, event, debit_row, position, remaining)
    close_hold(arrays, hold_row, FATE_EXPIRED)
