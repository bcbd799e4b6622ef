"""Compiles the kernels of subscriptions before the reader listens, so that no first event waits for it."""

import numpy as np

from bezant.engine.log.seeking import warm_seeking
from bezant.net.reader.fan_out import (
    MODE_CATCHING,
    MODE_LIVE,
    SUB_MODE,
    advance,
    fan_out,
    lay_out,
    write_events,
    write_progress,
)
from bezant.net.reader.tables import SLOTS_MIN, Currencies, SubscriptionTables
from bezant.protocol.records import EVENT, Words


def warm_subscriptions() -> None:
    """Run each kernel once on data that is thrown away."""
    warm_seeking()
    read_only: Words = np.frombuffer(bytes(EVENT.itemsize), np.int64).reshape(1, -1)
    writable = read_only.copy()
    currencies, tables = Currencies(), SubscriptionTables()
    accounts: Words = np.ones((SLOTS_MIN, 2), np.int64)
    accounts[:, 0] = np.arange(1, SLOTS_MIN + 1)
    currencies.add(accounts, accounts[:, 0].copy())
    read_only_accounts: Words = np.frombuffer(accounts.tobytes(), np.int64).reshape(-1, 2)
    number = tables.add(read_only_accounts)
    tables.remove(number, read_only_accounts)
    number = tables.add(None)
    order: Words = np.array([[number, number]], np.int64)
    pairs, starts, pieces = (np.zeros(shape, np.int64) for shape in ((4, 3), len(tables.subs), (2, 3)))
    out = np.zeros(1024, np.uint8)
    for events in (read_only, writable):
        currencies.note_openings(events)
        tables.subs[number, SUB_MODE] = MODE_LIVE
        count = fan_out(
            events,
            0,
            1,
            MODE_LIVE,
            0,
            tables.filters,
            tables.subs,
            currencies.table,
            currencies.salts,
            pairs,
            np.zeros(1, np.int64),
        )
        lay_out(pairs, count, tables.subs, order, starts, pieces)
        write_events(events, 1, pairs, count, tables.subs, starts, out.view(np.int64), out, np.zeros((4, 2), np.int64))
        write_progress(tables.subs, order, 2, 0, 0, pieces, out.view(np.int64), out)
        tables.subs[number, SUB_MODE] = MODE_CATCHING
    advance(tables.subs, MODE_CATCHING, 0, 2)
