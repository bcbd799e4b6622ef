"""Claim: the longest step is told twice: since the start, and since somebody asked the last time."""

from types import SimpleNamespace
from typing import Any

from bezant.net.server.statistics import Counters


def test_the_recent_longest_step_is_forgotten_once_told() -> None:
    log = SimpleNamespace(last_index=0, bytes_count=0, durable_index=0, durable_sequence=0)
    replica: Any = SimpleNamespace(log=log, ledger=SimpleNamespace(account_count=0), durable=True)
    counters = Counters(replica)
    told = []
    for steps_s in ([], [0.5, 0.125], [], [0.25, 0.0625], [2.0]):
        for step_s in steps_s:
            counters.note_step(step_s)
        statistics = counters.snapshot(0, 3)
        assert statistics.replicas == 3
        told.append((statistics.loop_stall_max_ms, statistics.loop_stall_recent_ms))
    assert told == [(0, 0), (500, 500), (500, 0), (500, 250), (2000, 2000)]
