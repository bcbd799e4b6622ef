"""The model's fifth step: what each kind is refused for and what it does, over accounts and holds in dictionaries."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Final

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import AccountFlag, CommandFlag, CommandKind

from .model_malformed import name_of
from .model_records import INTEGER_MAX, UNLIMITED, Account, Command, Hold, Key

Faults = Iterator[tuple[bool, Code]]
"""Whether each reason for a refusal is there, in order of precedence. Nothing behind the first that is may be asked."""

KINDS_WITH_CREDIT: Final = (
    CommandKind.TRANSFER,
    CommandKind.TRANSFER_AVAILABLE,
    CommandKind.HOLD,
    CommandKind.CAPTURE,
    CommandKind.EXPIRE,
    CommandKind.TRY_CREDIT,
    CommandKind.CONFIRM,
    CommandKind.CANCEL,
)
"""Kinds whose events show the credit account."""
KINDS_THAT_TOUCH_CREDIT: Final = (
    CommandKind.TRANSFER,
    CommandKind.TRANSFER_AVAILABLE,
    CommandKind.CAPTURE,
    CommandKind.TRY_CREDIT,
    CommandKind.CONFIRM,
)
"""Kinds whose events are on the credit account's chain, too."""


@dataclass
class State:
    """What a chain that falls leaves as it was."""

    decimals: dict[int, int] = field(default_factory=dict)
    """Of each registered currency, by its word."""
    accounts: dict[bytes, Account] = field(default_factory=dict)
    """In the order in which they were opened."""
    holds: dict[Key, Hold] = field(default_factory=dict)
    """Open and closed, in the order in which they were made."""
    uses: dict[Key, tuple[int, Code]] = field(default_factory=dict)
    """Kind and code of the event that used an id; not taken back."""
    given_up: set[Key] = field(default_factory=set)
    """Ids of tries that a CANCEL used up."""
    unsettled: list[tuple[int, int, int]] = field(default_factory=list)

    def copy(self) -> "State":
        return State(
            self.decimals,
            {identifier: replace(account) for identifier, account in self.accounts.items()},
            {key: replace(hold) for key, hold in self.holds.items()},
            self.uses,
            self.given_up,
            self.unsettled,
        )

    @property
    def open_holds(self) -> list[Hold]:
        return [hold for hold in self.holds.values() if hold.is_open]


# --- What is refused


def code_of(state: State, command: Command, entry_timestamp_ns: int) -> Code:
    """COMMITTED, or the first reason why not."""
    for is_there, code in FAULTS[CommandKind(command.kind)](state, command, entry_timestamp_ns):
        if is_there:
            return code
    return Code.COMMITTED


def has_flag(account: Account, flag: AccountFlag) -> bool:
    return bool(account.flags & flag)


def faults_of_pair(state: State, command: Command) -> Faults:
    yield command.debit not in state.accounts, Code.DEBIT_ACCOUNT_UNKNOWN
    yield command.credit not in state.accounts, Code.CREDIT_ACCOUNT_UNKNOWN
    debit, credit = state.accounts[command.debit], state.accounts[command.credit]
    yield debit.currency != credit.currency, Code.CURRENCY_MISMATCH
    yield any(has_flag(one, AccountFlag.TRANSIT) for one in (debit, credit)), Code.TRANSIT_ACCOUNT
    yield from faults_of_flags(debit, credit)


def faults_of_flags(debit: Account, credit: Account) -> Faults:
    yield has_flag(debit, AccountFlag.CLOSED), Code.DEBIT_ACCOUNT_CLOSED
    yield has_flag(credit, AccountFlag.CLOSED), Code.CREDIT_ACCOUNT_CLOSED
    yield has_flag(debit, AccountFlag.FROZEN), Code.DEBIT_ACCOUNT_FROZEN
    yield has_flag(credit, AccountFlag.FROZEN), Code.CREDIT_ACCOUNT_FROZEN


def faults_of_leaving(account: Account, amount: int) -> Faults:
    """An amount leaves the account or is held on it."""
    left = account.balance - account.held - amount
    yield account.limit != UNLIMITED and left < -account.limit, Code.INSUFFICIENT_FUNDS
    yield left < -INTEGER_MAX, Code.BALANCE_OVERFLOW


def faults_of_arriving(account: Account, amount: int) -> Faults:
    yield account.balance + account.incoming + amount > INTEGER_MAX, Code.BALANCE_OVERFLOW


def faults_of_open(state: State, command: Command, _: int) -> Faults:
    yield command.currency not in state.decimals, Code.CURRENCY_UNKNOWN
    yield command.debit in state.accounts, Code.ACCOUNT_EXISTS


def faults_of_one_account(state: State, command: Command, _: int) -> Faults:
    yield command.debit not in state.accounts, Code.DEBIT_ACCOUNT_UNKNOWN
    yield has_flag(state.accounts[command.debit], AccountFlag.TRANSIT), Code.TRANSIT_ACCOUNT
    yield has_flag(state.accounts[command.debit], AccountFlag.CLOSED), Code.DEBIT_ACCOUNT_CLOSED


def faults_of_close(state: State, command: Command, entry_timestamp_ns: int) -> Faults:
    yield from faults_of_one_account(state, command, entry_timestamp_ns)
    account = state.accounts[command.debit]
    yield (account.balance, account.held, account.incoming) != (0, 0, 0), Code.ACCOUNT_NOT_EMPTY


def faults_of_transfer(state: State, command: Command, _: int) -> Faults:
    yield from faults_of_pair(state, command)
    yield from faults_of_leaving(state.accounts[command.debit], command.amount)
    yield from faults_of_arriving(state.accounts[command.credit], command.amount)


def available(account: Account, amount: int) -> int:
    """How much of an amount can leave an account; not above zero if nothing can."""
    free = account.balance - account.held
    bounds = [amount, free + INTEGER_MAX]
    if account.limit != UNLIMITED:
        bounds.append(free + account.limit)
    return min(bounds)


def faults_of_transfer_available(state: State, command: Command, _: int) -> Faults:
    yield from faults_of_pair(state, command)
    amount = available(state.accounts[command.debit], command.amount)
    yield amount <= 0, Code.NOTHING_AVAILABLE
    yield from faults_of_arriving(state.accounts[command.credit], amount)


def faults_of_hold(state: State, command: Command, _: int) -> Faults:
    yield from faults_of_pair(state, command)
    debit = state.accounts[command.debit]
    yield from faults_of_leaving(debit, command.amount)
    yield debit.held + command.amount > INTEGER_MAX, Code.HELD_OVERFLOW


def faults_of_the_hold(state: State, command: Command, entry_timestamp_ns: int) -> Faults:
    """Reasons that lie in the hold which a capture or a release names."""
    yield command.hold_key not in state.holds, Code.HOLD_UNKNOWN
    hold = state.holds[command.hold_key]
    yield hold.kind != CommandKind.HOLD, Code.HOLD_UNKNOWN
    yield not hold.is_open, hold.fate or Code.COMMITTED
    yield hold.debit != command.debit, Code.HOLD_OF_OTHER_ACCOUNTS
    yield command.kind == CommandKind.CAPTURE and hold.credit != command.credit, Code.HOLD_OF_OTHER_ACCOUNTS
    yield hold.is_due(entry_timestamp_ns), Code.HOLD_EXPIRED


def faults_of_capture(state: State, command: Command, entry_timestamp_ns: int) -> Faults:
    yield command.debit not in state.accounts, Code.DEBIT_ACCOUNT_UNKNOWN
    yield command.credit not in state.accounts, Code.CREDIT_ACCOUNT_UNKNOWN
    yield from faults_of_the_hold(state, command, entry_timestamp_ns)
    remaining = state.holds[command.hold_key].remaining
    yield command.amount > remaining, Code.CAPTURE_EXCEEDS_HOLD
    debit, credit = state.accounts[command.debit], state.accounts[command.credit]
    yield from faults_of_flags(debit, credit)
    yield from faults_of_arriving(credit, command.amount or remaining)


def faults_of_release(state: State, command: Command, entry_timestamp_ns: int) -> Faults:
    yield command.debit not in state.accounts, Code.DEBIT_ACCOUNT_UNKNOWN
    yield from faults_of_the_hold(state, command, entry_timestamp_ns)


def faults_of_forbid(_: State, __: Command, ___: int) -> Faults:
    yield True, Code.ID_FORBIDDEN


# --- Tries

TRIES: Final = (CommandKind.TRY_DEBIT, CommandKind.TRY_CREDIT, CommandKind.TRY_PART)
TRIES_OF_DEBIT: Final = (CommandKind.TRY_DEBIT, CommandKind.TRY_PART)


def is_transit(state: State, identifier: bytes) -> bool:
    return identifier in state.accounts and has_flag(state.accounts[identifier], AccountFlag.TRANSIT)


def try_key(state: State, command: Command) -> Key:
    """The key of the try that a CONFIRM or CANCEL names."""
    slot, identifier, _ = command.hold_key
    return slot, identifier, is_transit(state, command.debit) or bool(command.flags & CommandFlag.PART)


def lacks_transit(state: State, command: Command) -> bool:
    """Whether a leg cannot be executed, for want of its transit account."""
    if command.kind == CommandKind.PLAN:
        return False
    if command.kind in TRIES_OF_DEBIT:
        return command.debit in state.accounts and not is_transit(state, command.reference)
    if command.kind == CommandKind.TRY_CREDIT:
        return not is_transit(state, command.debit)
    return not is_transit(state, command.debit) and not is_transit(state, command.credit)


def faults_of_reserving(debit: Account, credit: Account, amount: int) -> Faults:
    yield from faults_of_leaving(debit, amount)
    yield debit.held + amount > INTEGER_MAX, Code.HELD_OVERFLOW
    yield credit.incoming + amount > INTEGER_MAX, Code.BALANCE_OVERFLOW
    yield from faults_of_arriving(credit, amount)


def faults_of_try_debit(state: State, command: Command, _: int) -> Faults:
    yield command.debit not in state.accounts, Code.DEBIT_ACCOUNT_UNKNOWN
    wallet, transit = state.accounts[command.debit], state.accounts[command.reference]
    yield wallet.currency != transit.currency, Code.CURRENCY_MISMATCH
    yield has_flag(wallet, AccountFlag.TRANSIT), Code.TRANSIT_ACCOUNT
    yield has_flag(wallet, AccountFlag.CLOSED), Code.DEBIT_ACCOUNT_CLOSED
    yield has_flag(wallet, AccountFlag.FROZEN), Code.DEBIT_ACCOUNT_FROZEN
    yield from faults_of_reserving(wallet, transit, command.amount)


def faults_of_try_credit(state: State, command: Command, _: int) -> Faults:
    yield command.credit not in state.accounts, Code.CREDIT_ACCOUNT_UNKNOWN
    wallet, transit = state.accounts[command.credit], state.accounts[command.debit]
    yield wallet.currency != transit.currency, Code.CURRENCY_MISMATCH
    yield has_flag(wallet, AccountFlag.TRANSIT), Code.TRANSIT_ACCOUNT
    yield has_flag(wallet, AccountFlag.CLOSED), Code.CREDIT_ACCOUNT_CLOSED
    yield has_flag(wallet, AccountFlag.FROZEN), Code.CREDIT_ACCOUNT_FROZEN
    yield from faults_of_reserving(transit, wallet, command.amount)


def faults_of_plan(_: State, __: Command, ___: int) -> Faults:
    yield from ()


def faults_of_end(state: State, command: Command, _: int) -> Faults:
    """A CONFIRM or CANCEL is refused by what the try is, and by nothing else."""
    key = try_key(state, command)
    is_cancel = command.kind == CommandKind.CANCEL
    yield key in state.given_up and not is_cancel, Code.HOLD_RELEASED
    kind, code = state.uses.get(key, (0, Code.COMMITTED))
    if kind in TRIES and code == Code.COMMITTED:
        hold = state.holds[key]
        if is_cancel and hold.fate == Code.HOLD_RELEASED:
            return
        yield not hold.is_open, hold.fate or Code.COMMITTED
        yield (hold.debit, hold.credit) != (command.debit, command.credit), Code.HOLD_OF_OTHER_ACCOUNTS
        return
    is_refused = kind in (*TRIES, CommandKind.FORBID)
    yield not is_cancel or not (kind == 0 or is_refused), Code.HOLD_UNKNOWN


FAULTS: Final = {
    CommandKind.OPEN: faults_of_open,
    CommandKind.SET_LIMIT: faults_of_one_account,
    CommandKind.FREEZE: faults_of_one_account,
    CommandKind.UNFREEZE: faults_of_one_account,
    CommandKind.CLOSE: faults_of_close,
    CommandKind.TRANSFER: faults_of_transfer,
    CommandKind.TRANSFER_AVAILABLE: faults_of_transfer_available,
    CommandKind.HOLD: faults_of_hold,
    CommandKind.CAPTURE: faults_of_capture,
    CommandKind.RELEASE: faults_of_release,
    CommandKind.FORBID: faults_of_forbid,
    CommandKind.TRY_DEBIT: faults_of_try_debit,
    CommandKind.TRY_CREDIT: faults_of_try_credit,
    CommandKind.CONFIRM: faults_of_end,
    CommandKind.CANCEL: faults_of_end,
    CommandKind.TRY_PART: faults_of_try_debit,
    CommandKind.PLAN: faults_of_plan,
}


# --- What it does


def change(state: State, command: Command, *, position: int, sequence: int, timestamp_ns: int) -> int:
    """Do what a committed command does, all but the chains of events; returns the effective amount."""
    kind = CommandKind(command.kind)
    if kind == CommandKind.OPEN:
        name = name_of(command)
        if name is None:
            raise AssertionError("a malformed OPEN was committed")
        account = Account(command.debit, name, command.currency, command.amount, opened_position=position)
        account.flags = AccountFlag.TRANSIT if command.flags & CommandFlag.TRANSIT else 0
        state.accounts[command.debit] = account
        return command.amount
    if kind == CommandKind.CAPTURE:
        return capture(state, command)
    if kind == CommandKind.RELEASE:
        return close_hold(state, state.holds[command.hold_key], Code.HOLD_RELEASED)
    if kind == CommandKind.PLAN:
        return 0
    if kind >= CommandKind.TRY_DEBIT:
        return reserve(state, command, sequence) if kind in TRIES else end_try(state, command, sequence)
    debit, amount = state.accounts[command.debit], command.amount
    if kind == CommandKind.SET_LIMIT:
        debit.limit = amount
    elif kind == CommandKind.HOLD:
        deadline_ns = timestamp_ns + command.timeout_ms * 1_000_000 if command.timeout_ms else 0
        hold = Hold(command.id, command.debit, command.credit, sequence, amount, deadline_ns)
        state.holds[command.key] = hold
        debit.held += amount
    elif kind in (CommandKind.TRANSFER, CommandKind.TRANSFER_AVAILABLE):
        amount = amount if kind == CommandKind.TRANSFER else available(debit, amount)
        debit.balance -= amount
        state.accounts[command.credit].balance += amount
    elif kind == CommandKind.FREEZE:
        debit.flags |= AccountFlag.FROZEN
    elif kind == CommandKind.UNFREEZE:
        debit.flags &= ~AccountFlag.FROZEN
    elif kind == CommandKind.CLOSE:
        debit.flags |= AccountFlag.CLOSED
    return amount


def set_incoming(account: Account, incoming: int) -> None:
    account.incoming = incoming
    account.flags &= ~AccountFlag.HAS_INCOMING
    if incoming:
        account.flags |= AccountFlag.HAS_INCOMING


def reserve(state: State, command: Command, sequence: int) -> int:
    credit = command.reference if command.kind in TRIES_OF_DEBIT else command.credit
    made = Hold(command.id, command.debit, credit, sequence, command.amount, 0, kind=command.kind)
    state.holds[command.key] = made
    state.accounts[made.debit].held += command.amount
    set_incoming(state.accounts[credit], state.accounts[credit].incoming + command.amount)
    return command.amount


def end_try(state: State, command: Command, sequence: int) -> int:
    key = try_key(state, command)
    if key not in state.holds or state.holds[key].kind == CommandKind.HOLD:
        if key not in state.uses:
            state.given_up.add(key)
        return 0
    if not state.holds[key].is_open:
        return 0
    made, is_confirm = state.holds[key], command.kind == CommandKind.CONFIRM
    credit = state.accounts[made.credit]
    amount = close_hold(state, made, Code.HOLD_CAPTURED if is_confirm else Code.HOLD_RELEASED)
    set_incoming(credit, credit.incoming - amount)
    if is_confirm:
        state.accounts[made.debit].balance -= amount
        credit.balance += amount
    if made.kind == CommandKind.TRY_DEBIT and not command.flags & CommandFlag.SETTLED:
        state.unsettled.append((made.sequence, sequence, int(is_confirm)))
    return amount


def capture(state: State, command: Command) -> int:
    hold = state.holds[command.hold_key]
    debit = state.accounts[hold.debit]
    amount = command.amount or hold.remaining
    debit.balance -= amount
    debit.held -= amount
    state.accounts[hold.credit].balance += amount
    hold.remaining -= amount
    if hold.remaining == 0 or not command.flags & CommandFlag.KEEP_OPEN:
        close_hold(state, hold, Code.HOLD_CAPTURED)
    return amount


def close_hold(state: State, hold: Hold, fate: Code) -> int:
    """Take what remains off the held sum of its account; returns how much that was."""
    remaining = hold.remaining
    state.accounts[hold.debit].held -= remaining
    hold.remaining = 0
    hold.fate = fate
    return remaining
