"""What cannot be executed yet, because it takes events that have left the disk for an archive: nobody waits for those,
they are fetched meanwhile. Asked before the ledger sees anything of it, which could not stop half-way.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.log.entry import Entry
from bezant.engine.log.log import Log
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.records import COMMAND, EVENT, Records, Words

_NAMING_HOLDS: Final = (CommandKind.CAPTURE, CommandKind.RELEASE, CommandKind.CONFIRM, CommandKind.CANCEL)


def refuse_what_waits(ledger: Ledger, log: Log, commands: Records, preset: Words) -> Words:
    """Codes that also refuse, as OVERLOADED, the commands that take events which are being fetched from now on."""
    away = _take_what_is_away(ledger, log, commands)
    if not away.any():
        return preset
    codes = preset.copy() if len(preset) else np.zeros(len(commands), np.int64)
    codes[away & (codes == 0)] = int(ResultCode.OVERLOADED)
    return codes


def waits_for_archive(ledger: Ledger, log: Log, entry: Entry) -> bool:
    """Whether executing an entry again takes an event that is being fetched: that of a hold which was closed."""
    if entry.header.kind != EntryKind.EVENTS:
        return False
    events = np.frombuffer(entry.body, EVENT)
    events = events[np.isin(events["kind"], _NAMING_HOLDS)]
    commands = np.zeros(len(events), COMMAND)
    for name in ("kind", "debit_head", "debit_tail", "reference_head", "reference_tail"):
        commands[name] = events[name]
    return bool(len(commands) and _take_what_is_away(ledger, log, commands).any())


def _take_what_is_away(ledger: Ledger, log: Log, commands: Records) -> npt.NDArray[np.bool_]:
    """Which commands take events that cannot be had at once."""
    by_id, named = ledger.originals_of(commands)
    return log.are_away(by_id) | log.are_away(named)
