"""What kinds from TRY_DEBIT on do: the halves of transfers between shards, and of transactions; see ``README.md``.

A try is a hold that reserves the money on both sides: `held` of the account that pays, `incoming` of the one that
receives, one of the two a transit account. So nothing but its own end can stand in the way of a CONFIRM. The fate of a
try that has ended stays with its id, as that of a hold does.
"""

from typing import Any, Final

from bezant.engine.compiled import called, inlined
from bezant.engine.ledger.checks import CONFIRM, PLAN, SETTLED, TRY_CREDIT, TRY_DEBIT, TRY_PART
from bezant.engine.ledger.holds import make_hold, settle_hold
from bezant.engine.ledger.index import insert
from bezant.engine.ledger.lookups import PLACE_OF_LEGS, hash_of_key, look_up_account, look_up_hold, place_of_named
from bezant.engine.ledger.rules import (
    AMOUNT_MAX,
    check_credit,
    check_debit,
    show_accounts,
    touch_both,
    touch_debit,
)
from bezant.engine.ledger.state import (
    COUNTER_TRY_DEBITS,
    COUNTER_UNSETTLED,
    FATE_CANCELLED,
    FATE_CONFIRMED,
    FATE_NO_CREDIT,
    FATE_NO_DEBIT,
    FATE_REFUSED,
    FATE_UNUSED,
    LedgerArrays,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import AccountFlag
from bezant.protocol.records import SEQUENCE_BITS

_CLOSED: Final = int(AccountFlag.CLOSED)
_FROZEN: Final = int(AccountFlag.FROZEN)
_HAS_INCOMING: Final = int(AccountFlag.HAS_INCOMING)
_TRANSIT: Final = int(AccountFlag.TRANSIT)

_COMMITTED: Final = int(ResultCode.COMMITTED)
_DEBIT_UNKNOWN: Final = int(ResultCode.DEBIT_ACCOUNT_UNKNOWN)
_CREDIT_UNKNOWN: Final = int(ResultCode.CREDIT_ACCOUNT_UNKNOWN)
_CURRENCY_MISMATCH: Final = int(ResultCode.CURRENCY_MISMATCH)
_TRANSIT_ACCOUNT: Final = int(ResultCode.TRANSIT_ACCOUNT)
_DEBIT_CLOSED: Final = int(ResultCode.DEBIT_ACCOUNT_CLOSED)
_CREDIT_CLOSED: Final = int(ResultCode.CREDIT_ACCOUNT_CLOSED)
_DEBIT_FROZEN: Final = int(ResultCode.DEBIT_ACCOUNT_FROZEN)
_CREDIT_FROZEN: Final = int(ResultCode.CREDIT_ACCOUNT_FROZEN)
_OVERFLOW: Final = int(ResultCode.BALANCE_OVERFLOW)
_HELD_OVERFLOW: Final = int(ResultCode.HELD_OVERFLOW)
_HOLD_UNKNOWN: Final = int(ResultCode.HOLD_UNKNOWN)
_HOLD_CAPTURED: Final = int(ResultCode.HOLD_CAPTURED)
_HOLD_RELEASED: Final = int(ResultCode.HOLD_RELEASED)
_HOLD_OF_OTHERS: Final = int(ResultCode.HOLD_OF_OTHER_ACCOUNTS)


# ---- a try ----


@inlined
def check_wallet(arrays: LedgerArrays, number: int, transit: int, closed: int, frozen: int) -> int:
    """Whether the account on the near side of a try may take part: COMMITTED or why not."""
    wallet = arrays.rows[number]
    if wallet["currency_number"] != arrays.rows[transit]["currency_number"]:
        return _CURRENCY_MISMATCH
    if wallet["flags"] & _TRANSIT != 0:
        return _TRANSIT_ACCOUNT
    if wallet["flags"] & _CLOSED != 0:
        return closed
    return frozen if wallet["flags"] & _FROZEN != 0 else _COMMITTED


@inlined
def check_reserve(arrays: LedgerArrays, debit_row: int, credit_row: int, amount: int) -> int:
    """Whether an amount can be reserved on both sides: COMMITTED or why not."""
    code = check_debit(arrays.rows[debit_row], amount)
    if code != _COMMITTED:
        return code
    if arrays.rows[debit_row]["held"] > AMOUNT_MAX - amount:
        return _HELD_OVERFLOW
    if arrays.rows_cold[credit_row]["incoming"] > AMOUNT_MAX - amount:
        return _OVERFLOW
    return check_credit(arrays, credit_row, amount)


@inlined
def reserve(arrays: LedgerArrays, event: Any, hash_value: int, sequence: int, debit_row: int, credit_row: int) -> None:
    """Reserve an amount that has been checked, and remember it as an open try."""
    amount = event["amount"]
    make_hold(
        arrays,
        event["id_head"],
        event["id_tail"],
        hash_value,
        sequence,
        amount,
        0,
        debit_row,
        credit_row,
        event["kind"],
    )
    arrays.rows[debit_row]["held"] += amount
    arrays.rows_cold[credit_row]["incoming"] += amount
    arrays.rows[credit_row]["flags"] = arrays.rows[credit_row]["flags"] | _HAS_INCOMING


@called
def execute_try_debit(arrays: LedgerArrays, event: Any, hash_value: int, sequence: int, position: int) -> int:
    """Hold an amount that is to leave through a transit account: the caller has seen to that, and to room.

    Of a TRY_PART another try decides.
    """
    debit_row = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    show_accounts(arrays, event, debit_row, -1)
    if debit_row < 0:
        return _DEBIT_UNKNOWN
    transit = look_up_account(arrays, event["reference_head"], event["reference_tail"])
    code = check_wallet(arrays, debit_row, transit, _DEBIT_CLOSED, _DEBIT_FROZEN)
    if code == _COMMITTED:
        code = check_reserve(arrays, debit_row, transit, event["amount"])
    if code == _COMMITTED:
        reserve(arrays, event, hash_value, sequence, debit_row, transit)
        touch_debit(arrays, event, debit_row, position, event["amount"])
        arrays.counters[COUNTER_TRY_DEBITS] += event["kind"] == TRY_DEBIT
    return code


@called
def execute_try_credit(arrays: LedgerArrays, event: Any, hash_value: int, sequence: int, position: int) -> int:
    """Reserve what is to come in from another shard. The caller has seen to room, and to the transit account."""
    transit = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    credit_row = look_up_account(arrays, event["credit_head"], event["credit_tail"])
    show_accounts(arrays, event, transit, credit_row)
    if credit_row < 0:
        return _CREDIT_UNKNOWN
    code = check_wallet(arrays, credit_row, transit, _CREDIT_CLOSED, _CREDIT_FROZEN)
    if code == _COMMITTED:
        code = check_reserve(arrays, transit, credit_row, event["amount"])
    if code == _COMMITTED:
        reserve(arrays, event, hash_value, sequence, transit, credit_row)
        touch_both(arrays, event, transit, credit_row, position, event["amount"])
    return code


# ---- its end ----


@inlined
def find_try(arrays: LedgerArrays, event: Any, debit_row: int, credit_row: int) -> tuple[int, int]:
    """(row, code) of the open try that a CONFIRM or CANCEL names: -1 if there is none; a code if it is another's."""
    number = look_up_hold(arrays, event["reference_head"], event["reference_tail"], place_of_named(arrays, event))
    if number < 0:
        return number, _COMMITTED
    row = arrays.holds.rows[number]
    if row["kind"] not in (TRY_DEBIT, TRY_CREDIT, TRY_PART):
        return number, _HOLD_UNKNOWN
    if row["debit_row"] != debit_row or row["credit_row"] != credit_row:
        return number, _HOLD_OF_OTHERS
    return number, _COMMITTED


@inlined
def end_try(arrays: LedgerArrays, number: int, fate: int, sequence: int, is_settled: bool) -> int:
    """Take a try off both accounts, and note what the other shard is to be told; returns the amount."""
    row = arrays.holds.rows[number]
    amount, credit_row = row["remaining"], row["credit_row"]
    arrays.rows[row["debit_row"]]["held"] -= amount
    arrays.rows_cold[credit_row]["incoming"] -= amount
    if arrays.rows_cold[credit_row]["incoming"] == 0:
        arrays.rows[credit_row]["flags"] = arrays.rows[credit_row]["flags"] & ~_HAS_INCOMING
    if row["kind"] == TRY_DEBIT:
        arrays.counters[COUNTER_TRY_DEBITS] -= 1
        if not is_settled:
            place = arrays.counters[COUNTER_UNSETTLED]
            arrays.counters[COUNTER_UNSETTLED] = place + 1
            arrays.holds.unsettled[place, 0] = row["sequence"]
            arrays.holds.unsettled[place, 1] = sequence
            arrays.holds.unsettled[place, 2] = fate == FATE_CONFIRMED
    row["fate"] = fate
    settle_hold(arrays, number)
    return amount


@called
def execute_confirm(arrays: LedgerArrays, event: Any, fate: int, sequence: int, position: int) -> int:
    """Move what a try has reserved, whatever became of the accounts meanwhile."""
    debit_row = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    credit_row = look_up_account(arrays, event["credit_head"], event["credit_tail"])
    show_accounts(arrays, event, debit_row, credit_row)
    number, code = find_try(arrays, event, debit_row, credit_row)
    if code != _COMMITTED:
        return code
    if number < 0:
        if fate == FATE_CONFIRMED:
            return _HOLD_CAPTURED
        return _HOLD_RELEASED if fate in (FATE_CANCELLED, FATE_NO_DEBIT, FATE_NO_CREDIT) else _HOLD_UNKNOWN
    amount = end_try(arrays, number, FATE_CONFIRMED, sequence, False)
    arrays.rows[debit_row]["balance"] -= amount
    arrays.rows[credit_row]["balance"] += amount
    touch_both(arrays, event, debit_row, credit_row, position, amount)
    return _COMMITTED


@called
def forbid_try(arrays: LedgerArrays, event: Any, sequence: int) -> None:
    """Use up the id of a try that has not come, so that it never will."""
    place = place_of_named(arrays, event)
    fate: Any = FATE_NO_CREDIT if place & PLACE_OF_LEGS != 0 else FATE_NO_DEBIT
    hash_value = hash_of_key(arrays, event["reference_head"], event["reference_tail"], place)
    insert(arrays.id_index, hash_value, sequence | fate << SEQUENCE_BITS)


@called
def execute_cancel(arrays: LedgerArrays, event: Any, fate: int, sequence: int, position: int) -> int:
    """Give back what a try has reserved; or, if it has not come, see to it that it never reserves anything."""
    debit_row = look_up_account(arrays, event["debit_head"], event["debit_tail"])
    credit_row = look_up_account(arrays, event["credit_head"], event["credit_tail"])
    show_accounts(arrays, event, debit_row, credit_row)
    number, code = find_try(arrays, event, debit_row, credit_row)
    if code != _COMMITTED:
        return code
    if number < 0:
        if fate == FATE_UNUSED:
            forbid_try(arrays, event, sequence)
        elif fate == FATE_CONFIRMED:
            return _HOLD_CAPTURED
        elif fate not in (FATE_REFUSED, FATE_CANCELLED, FATE_NO_DEBIT, FATE_NO_CREDIT):
            return _HOLD_UNKNOWN
        return _COMMITTED
    kind = arrays.holds.rows[number]["kind"]
    amount = end_try(arrays, number, FATE_CANCELLED, sequence, event["flags"] & SETTLED != 0)
    if kind == TRY_CREDIT:
        touch_both(arrays, event, debit_row, credit_row, position, amount)
    else:
        touch_debit(arrays, event, debit_row, position, amount)
    return _COMMITTED


@called
def execute_leg(arrays: LedgerArrays, event: Any, fate: int, hash_value: int, sequence: int, position: int) -> int:
    """Do what a command of a kind from TRY_DEBIT on asks; returns the code. A PLAN is there to be read again."""
    kind = event["kind"]
    if kind == PLAN:
        show_accounts(arrays, event, look_up_account(arrays, event["debit_head"], event["debit_tail"]), -1)
        return _COMMITTED
    if kind in (TRY_DEBIT, TRY_PART):
        return execute_try_debit(arrays, event, hash_value, sequence, position)
    if kind == TRY_CREDIT:
        return execute_try_credit(arrays, event, hash_value, sequence, position)
    if kind == CONFIRM:
        return execute_confirm(arrays, event, fate, sequence, position)
    return execute_cancel(arrays, event, fate, sequence, position)
