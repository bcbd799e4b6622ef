"""Replay: an entry of the history taken into a ledger, executed again and compared byte for byte."""

from typing import Final

import numpy as np

from bezant.engine.compiled import quick
from bezant.engine.ledger.checks import EXPIRE
from bezant.engine.ledger.ledger import TIMESTAMP_NS_MAX, Execution, Ledger
from bezant.engine.ledger.rebuilding import copy_commands, find_different
from bezant.engine.log.checking import find_miscounted
from bezant.engine.log.entry import Entry, EntryHeader
from bezant.engine.metadata.applying import apply_blob
from bezant.engine.positions import apply_positions
from bezant.engine.skimming import configuration_of
from bezant.protocol.codes import CODE_ROW, ResultCode
from bezant.protocol.errors import (
    CorruptLog,
    LedgerError,
    RemoteProtocolError,
    StorageError,
    UnsupportedFormat,
    UsageError,
)
from bezant.protocol.kinds import EntryKind, ResultFlag
from bezant.protocol.messages import Configuration, ControlEntry, decode_control_entry
from bezant.protocol.placement import SlotMap
from bezant.protocol.records import COMMAND, EVENT, RULES_VERSION, Bytes, Records

SEQUENCE_SIZE: Final = 8
"""Bytes of a sequence in `ControlEntry.settled`."""
_KINDS: Final = (EntryKind.EVENTS, EntryKind.CONTROL, EntryKind.BLOB, EntryKind.CONFIGURATION, EntryKind.FILLER)


def replay_entry(ledger: Ledger, entry: Entry) -> SlotMap | None:
    """Take an entry of the history into a ledger; returns the slot map that it brings into force, if any.

    Raises `CorruptLog`, `UnsupportedFormat`, `StorageError`.
    """
    kind = entry.header.kind
    check_header(entry.header, ledger.next_sequence, ledger.last_timestamp_ns, ledger.rules_version)
    if kind == EntryKind.EVENTS:
        replay_events(ledger, entry)
    elif kind == EntryKind.CONTROL:
        return apply_control(ledger, entry).slot_map
    elif kind == EntryKind.BLOB:
        apply_blob(ledger, entry)
    return None


def check_header(header: EntryHeader, next_sequence: int, last_timestamp_ns: int, rules_version: int) -> None:
    """Refuse an entry that cannot come next in a history, whatever its events are.

    `last_timestamp_ns` is that of the event before it, `rules_version` the rules in force. Raises `CorruptLog` and, for
    a kind that is not known here, `UnsupportedFormat`.
    """
    if header.kind not in _KINDS:
        raise UnsupportedFormat(f"entry {header.index} has kind {header.kind}, which is not known here")
    if header.first_sequence != next_sequence:
        raise CorruptLog(
            f"entry {header.index} does not continue the history: its first sequence is {header.first_sequence}, and "
            f"{next_sequence} comes next"
        )
    if header.timestamp_ns <= last_timestamp_ns:
        raise CorruptLog(
            f"entry {header.index} does not continue the history: its time is {header.timestamp_ns}, and that of the "
            f"event before it {last_timestamp_ns}"
        )
    if header.rules_version != rules_version:
        raise CorruptLog(
            f"entry {header.index} was made under rules {header.rules_version}; in force there are rules "
            f"{rules_version}"
        )
    miscounted = find_miscounted(header)
    if miscounted:
        raise CorruptLog(f"entry {header.index} has {miscounted}; that cannot be")
    if header.kind != EntryKind.EVENTS and header.timestamp_ns > TIMESTAMP_NS_MAX:
        # Of events the ledger says so. No entry could follow this one.
        raise CorruptLog(f"entry {header.index} has the time {header.timestamp_ns}, which is beyond the year 2160")


def apply_control(ledger: Ledger, entry: Entry) -> ControlEntry:
    """Apply a control entry to a ledger, and return it: it counts from the next entry on."""
    try:
        control = decode_control_entry(entry.body)
    except RemoteProtocolError as error:
        raise CorruptLog(f"control entry {entry.header.index} cannot be read: {error}") from error
    except UnsupportedFormat as error:
        raise UnsupportedFormat(
            f"entry {entry.header.index}: {error}: start the newer version that wrote it"
        ) from error
    if control.rules_version > RULES_VERSION:
        raise UnsupportedFormat(f"entry {entry.header.index} switches to rules {control.rules_version}, unknown here")
    try:
        if control.rules_version:
            ledger.switch_rules(control.rules_version)
        for currency in control.currencies:
            ledger.register_currency(currency.code, currency.decimals)
        if len(control.settled) % SEQUENCE_SIZE:
            raise UsageError(f"{len(control.settled)} bytes are no sequences")
        ledger.settle(np.frombuffer(control.settled, np.int64))
        if control.positions:
            apply_positions(ledger, entry.header.shard, control.positions)
        if control.token is not None:
            ledger.tokens.apply(control.token, entry.header.timestamp_ns)
        if control.move is not None:
            ledger.moves.apply(control.move, entry.header.index)
    except UsageError as error:
        raise CorruptLog(f"control entry {entry.header.index} cannot be applied: {error}") from error
    return control


def read_configuration(entry: Entry) -> Configuration | None:
    """The configuration of the group that an entry of the history brings into force. Raises `CorruptLog`."""
    try:
        return configuration_of(entry.header, entry.body)
    except RemoteProtocolError as error:
        raise CorruptLog(f"entry {entry.header.index} cannot be read: {error}") from error


def replay_events(ledger: Ledger, entry: Entry) -> None:
    """Rebuild the commands of an entry from its events, execute them, and require the same bytes."""
    header = entry.header
    recorded = np.frombuffer(entry.body, EVENT)
    recorded_bytes = _bytes_of(recorded)
    commands = np.empty(len(recorded), COMMAND)
    count = quick(copy_commands)(recorded_bytes, commands.view(np.uint8))
    if count < 0:
        _replay_moves(ledger, entry, recorded)
        return
    try:
        execution = ledger.execute(commands[:count], header.timestamp_ns)
    except LedgerError as error:
        raise CorruptLog(f"entry {header.index} cannot be executed again: {error}") from error
    is_same = len(execution.events) == len(recorded)
    if not is_same or quick(find_different)(execution.events.view(np.uint8), recorded_bytes) >= 0:
        if np.any(np.isin(execution.results["code"], (int(ResultCode.ACCOUNTS_FULL), int(ResultCode.HOLDS_FULL)))):
            raise StorageError(
                f"entry {header.index} has more accounts or open holds than a ledger has room for here: give it the "
                "accounts_max and holds_max (`bezant serve`: --accounts-max, --holds-max) of the node that wrote it"
            )
        raise CorruptLog(_describe_difference(header.index, header.first_sequence, recorded, execution))


def _replay_moves(ledger: Ledger, entry: Entry, recorded: Records) -> None:
    """Execute the events of a move again, which say themselves what is to be done, and require the same bytes."""
    try:
        executed = ledger.execute_moves(recorded, entry.header.timestamp_ns)
    except LedgerError as error:
        raise CorruptLog(f"entry {entry.header.index} cannot be executed again: {error}") from error
    different = quick(find_different)(executed.view(np.uint8), _bytes_of(recorded))
    if different >= 0:
        raise CorruptLog(
            f"entry {entry.header.index}, sequence {entry.header.first_sequence + different}: the event of a move is "
            "another one when it is executed again"
        )


def _bytes_of(events: Records) -> Bytes:
    """The bytes of events, read-only however they came, so that kernels are compiled for one kind of arrays."""
    data = events.view(np.uint8)
    data.flags.writeable = False
    return data


def _describe_difference(index: int, first_sequence: int, recorded: Records, execution: Execution) -> str:
    executed, results = execution
    asked = np.flatnonzero(recorded["kind"] != EXPIRE) if len(results) < len(recorded) else np.arange(len(recorded))
    for number, result in zip(asked.tolist(), results, strict=True):
        code = int(result["code"])
        if result["flags"] & int(ResultFlag.REPEATED) or not CODE_ROW[code].leaves_event:
            return (
                f"entry {index}, sequence {first_sequence + number}: there is an event in the history, and none when "
                f"its command is executed again: the result is {CODE_ROW[code].code.name}, flags {result['flags']}"
            )
    for number in range(min(len(recorded), len(executed))):
        for name in EVENT.names or ():
            if recorded[number][name] != executed[number][name]:
                return (
                    f"entry {index}, sequence {first_sequence + number}: {name} is {recorded[number][name]} in the "
                    f"history and {executed[number][name]} when its command is executed again"
                )
    return f"entry {index}: {len(recorded)} events in the history, {len(executed)} when executed again"
