"""Compiles the ledger's kernels before anybody waits for them or measures them."""

import numpy as np

from bezant.engine.ledger.ledger import Ledger
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import COMMAND


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
