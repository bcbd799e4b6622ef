"""Claim: a group of real members keeps every promise under every fault, and each fault and way back did happen."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from .profiles import PROFILES
from .schedule import Violation
from .simulation import Simulation

ROOT = Path(__file__).parents[2]
SEEDS = {"calm": range(150), "stormy": range(200), "disk": range(150)}
SEEDS_PER_TEST = 25
PARTS = [(profile, first) for profile, seeds in SEEDS.items() for first in seeds[::SEEDS_PER_TEST]]
WAYS_BACK = (
    "answers explained",
    "answers: NOT_LEADER",
    "answers: UNKNOWN",
    "changes of members",
    "checkpoints made",
    "disks wiped",
    "elections won",
    "failed syncs",
    "files brought back",
    "groups waited for before a cut",
    "leaders taken for lost",
    "leaderships handed over",
    "ledgers compared",
    "messages clogged",
    "messages cut off",
    "messages lost",
    "messages repeated",
    "old requests sent again",
    "operations given up",
    "reads explained",
    "rot found",
    "segments filled in",
    "segments kept",
    "starts behind a checkpoint",
    "starts without the history",
    "states abandoned",
    "states installed",
    "states sent",
    "stopped at a write or sync",
    "stopped while a group was being written",
    "torn tails set aside",
    "tries without an answer",
)


@pytest.fixture(scope="module")
def totals() -> dict[tuple[str, int], Counter[str]]:
    """How often what happened, by profile and first seed."""
    return {}


@pytest.mark.parametrize(("profile", "first"), PARTS)
def test_every_promise_holds(profile: str, first: int, totals: dict[tuple[str, int], Counter[str]]) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + SEEDS_PER_TEST):
        simulation = Simulation(seed, profile)
        try:
            counts += simulation.run().counts
        except Exception as error:
            last = "\n".join(simulation.schedule.recent)
            again = f"python -m tests.simulator --replay {seed} --profile {profile}"
            raise Violation(f"{again}\n{last}\n{type(error).__name__}: {error}") from error
    totals[profile, first] = counts


def test_every_fault_and_every_way_back_did_happen(totals: dict[tuple[str, int], Counter[str]]) -> None:
    if set(totals) != set(PARTS):
        pytest.skip("not all seeds were run")
    counts = sum(totals.values(), Counter[str]())
    faults = {f"fault: {kind}" for profile in PROFILES.values() for kind in profile.rates} - {"fault: wipe"}
    assert [name for name in sorted({*faults, *WAYS_BACK}) if not counts[name]] == []


def test_a_seed_replays_whatever_hashes_python_draws() -> None:
    program = (
        "from tests.simulator.simulation import Simulation\n"
        "print([Simulation(seed, profile).run().trace_hash for seed in (1, 2) for profile in ('stormy', 'disk')])"
    )
    found = set()
    for hash_seed in ("0", "1", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        found.add(done.stdout)
    assert len(found) == 1
