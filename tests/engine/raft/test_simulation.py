"""Claim: Raft keeps its word under loss, repetition, reordering, partitions, crashes, lost disks, changed members."""

from collections import Counter

import pytest

from .checks import Violation
from .simulation import Simulation

SEEDS_PER_TEST = 40
EVENTS = (
    "caught up after a loss",
    "crashes",
    "joint changes",
    "partitions",
    "pauses",
    "proposals",
    "reads answered",
    "simple changes",
    "snapshots installed",
    "transfers",
    "wiped",
)


@pytest.mark.parametrize("first_seed", [0, 40, 80, 120])
def test_every_promise_holds_under_all_faults_and_work_goes_on_after_them(first_seed: int) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + SEEDS_PER_TEST):
        try:
            counts += Simulation(seed).run()
        except Exception as error:
            raise Violation(f"seed {seed}: {error}") from error
    assert [event for event in EVENTS if not counts[event]] == []


def test_a_seed_replays() -> None:
    first, second = Simulation(5), Simulation(5)
    assert first.run() == second.run()
    assert first.checks.committed == second.checks.committed
