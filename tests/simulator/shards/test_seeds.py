"""Claim: shards keep every promise together under every fault, and each fault and way back did happen."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ..profiles import SHARD_PROFILES
from ..schedule import Violation
from .world import World

ROOT = Path(__file__).parents[3]
SEEDS = range(300)
SEEDS_PER_TEST = 25
PARTS = list(SEEDS[::SEEDS_PER_TEST])
WAYS_BACK = (
    "SAGA: transactions done",
    "SAGA: transactions refused",
    "TCC: transactions done",
    "TCC: transactions refused",
    "accounts moved",
    "answers about slots that move explained",
    "answers about transactions given up explained",
    "answers about transfers between shards explained",
    "answers explained",
    "answers: another shard's",
    "cancels before their try",
    "coordinators stopped after a decision",
    "coordinators stopped after a try",
    "decisions found at a takeover",
    "ends of nothing where their slot was",
    "halves given back",
    "holds moved",
    "ids answered by another shard than the first",
    "leaders with transfers under way that lead no more",
    "legs answered too late",
    "legs clogged",
    "legs cut off",
    "legs executed before",
    "legs lost",
    "legs of another time",
    "legs of slots that have moved",
    "legs repeated on their way",
    "legs sent again",
    "legs: CANCEL_ORPHAN",
    "maps not reached",
    "moves: called_off",
    "moves: ended",
    "moves: taken",
    "participants stopped after a try",
    "questions without an answer",
    "reads in slots that move explained",
    "refusals to give back",
    "slots brought back for a saga",
    "starts behind a checkpoint",
    "states abandoned",
    "stopped at a write or sync",
    "transactions answered elsewhere",
    "transactions given up",
    "transfers cancelled",
    "transfers confirmed",
    "transfers settled",
    "tries asked for",
    "tries found at a takeover",
    "tries given up",
    "tries refused at home",
    "tries refused there",
    "tries that came after their cancel",
    "tries that came before their transfer",
    "tries unknown to their shard",
    "tries written with what came behind them, or late",
)


@pytest.fixture(scope="module")
def totals() -> dict[int, Counter[str]]:
    """How often what happened, by first seed."""
    return {}


@pytest.mark.parametrize("first", PARTS)
def test_every_promise_holds(first: int, totals: dict[int, Counter[str]]) -> None:
    counts: Counter[str] = Counter()
    for seed in range(first, first + SEEDS_PER_TEST):
        world = World(seed)
        try:
            counts += world.run().counts
        except Exception as error:
            last = "\n".join(world.schedule.recent)
            again = f"python -m tests.simulator --replay {seed} --profile shards"
            raise Violation(f"{again}\n{last}\n{type(error).__name__}: {error}") from error
    totals[first] = counts


def test_every_fault_and_every_way_back_did_happen(totals: dict[int, Counter[str]]) -> None:
    if set(totals) != set(PARTS):
        pytest.skip("not all seeds were run")
    counts = sum(totals.values(), Counter[str]())
    drawn = SHARD_PROFILES["shards"]
    faults = {f"fault: {kind}" for kind in [*drawn.rates, *drawn.group.rates]}
    assert [name for name in sorted({*faults, *WAYS_BACK}) if not counts[name]] == []


def test_a_seed_replays_whatever_hashes_python_draws() -> None:
    program = (
        "from tests.simulator.shards.world import World\nprint([World(seed).run().trace_hash for seed in range(4)])"
    )
    found = set()
    for hash_seed in ("0", "4242"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        command = [sys.executable, "-c", program]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=240
        )
        found.add(done.stdout)
    assert len(found) == 1
