"""Compiles the ledger's kernels before anybody waits for them or measures them."""

import numpy as np

from bezant.engine.ledger.cold import latest_time_ms_of_events
from bezant.engine.ledger.ledger import Ledger
from bezant.engine.ledger.rebuilding import copy_commands, find_different
from bezant.engine.moves.kernels import execute_moves, find_fates
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import COMMAND, EVENT, Records, Words


def warm_ledger() -> None:
    """Run each kernel once on a ledger that is thrown away. Seconds without a cache, a moment with one."""
    ledger = Ledger(ids_capacity_initial=2, accounts_max=4, holds_max=4)
    command = np.zeros(1, COMMAND)
    command["id_head"] = 1
    command["kind"] = int(CommandKind.SET_LIMIT)
    # The third repeats the second, so that the kernels of repeats run, too; the index grows on the way.
    for timestamp_ns, tail in ((1, 0), (2, 1), (3, 1)):
        command["id_tail"] = tail
        ledger.execute(command, timestamp_ns)
    ledger.lookup_accounts(np.zeros((1, 2), np.int64))
    ledger.find_events(command)
    ledger.originals_of(command)
    event = np.zeros(1, EVENT)
    find_fates(ledger.arrays, event, np.ones(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))
    execute_moves(ledger.arrays, event, event.view(np.int64).reshape(1, 24), 4)
    _warm_cold_ids(ledger, command)


class _NothingCold:
    """Asked for every key, it has none."""

    time_ms_max = 1 << 62

    def find(self, hashes: Words, times_ms: Words, count: int) -> tuple[Words, Words]:
        """One entry that no table has."""
        return np.ones(1, np.int64), np.ones(1, np.int64)


def _warm_cold_ids(known: Ledger, command: Records) -> None:
    """The same for a ledger whose ids are bounded, and which starts from an image."""
    ledger = Ledger(accounts_max=4, holds_max=4, generation_capacity=1 << 12)
    ledger.restore(known.image())
    ledger.cold_ids = _NothingCold()
    ledger.execute(command, known.last_timestamp_ns + 1)
    latest_time_ms_of_events(np.zeros(1, EVENT))
    _warm_rebuilding(np.zeros(1, EVENT))


def _warm_rebuilding(events: Records) -> None:
    """The steps of replay, whose events are read-only on the side of the log."""
    recorded = events.view(np.uint8).copy()
    recorded.flags.writeable = False
    copy_commands(recorded, np.zeros(1, COMMAND).view(np.uint8))
    find_different(events.view(np.uint8), recorded)
