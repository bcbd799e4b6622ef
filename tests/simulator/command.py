"""The command that runs ranges of seeds, replays one, and keeps a record of what was run."""

import argparse
import gc
import hashlib
import json
import logging
import sys
import time
import traceback
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bezant.net.server.warm import warm_kernels

from .collecting import few_collections
from .profiles import PROFILES, SHARD_PROFILES
from .shards.world import World
from .shrink import shrink
from .simulation import Report, Simulation

ROOT = Path(__file__).parents[2]
SOURCES = ("protocol", "engine", "net/server", "tests/simulator")
BAR_WIDTH = 30


def main(arguments: list[str]) -> int:
    """Exit status 0 if no seed found a violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first one")
    parser.add_argument(
        "--profile",
        choices=[*PROFILES, *SHARD_PROFILES, "all"],
        default="all",
        help="all: each seed runs under one of those with one group",
    )
    parser.add_argument("--replay", type=int, help="run this seed alone, and print its last events")
    parser.add_argument("--shrink", type=int, help="find out what a failing seed needs to fail, and how long")
    parser.add_argument("--record", type=Path, help="append what was run to this file, a line of JSON")
    chosen = parser.parse_args(arguments)
    logging.getLogger("bezant").setLevel(logging.CRITICAL)  # What nodes warn of is what is made to happen.
    warm_kernels()
    with few_collections():
        if chosen.replay is not None:
            return _replay(chosen.replay, profile_of(chosen.replay, chosen.profile))
        if chosen.shrink is not None:
            return _shrink(chosen.shrink, profile_of(chosen.shrink, chosen.profile))
        return _run(chosen.first, chosen.seeds, chosen.profile, chosen.record)


def profile_of(seed: int, profile: str) -> str:
    """The profile of a seed, when all are asked for."""
    return list(PROFILES)[seed % len(PROFILES)] if profile == "all" else profile


def simulation_of(seed: int, profile: str, **settings: Any) -> Simulation | World:
    """One seed of one group, or of several shards."""
    return (World if profile in SHARD_PROFILES else Simulation)(seed, profile, **settings)


def kinds_of(profile: str) -> list[str]:
    """The kinds of trouble that a profile has."""
    if profile in SHARD_PROFILES:
        return ["loss", "repeat", *SHARD_PROFILES[profile].rates, *SHARD_PROFILES[profile].group.rates]
    return ["loss", "repeat", *PROFILES[profile].rates]


def _replay(seed: int, profile: str) -> int:
    simulation = simulation_of(seed, profile)
    try:
        report = simulation.run()
    except Exception:
        print(*simulation.schedule.recent, sep="\n")
        traceback.print_exc()
        return 1
    _print_counts(report.counts)
    print(f"seed {seed}, {profile}: {report.entries} entries, trace {report.trace_hash}")
    return 0


def _shrink(seed: int, profile: str) -> int:
    def fails(without: frozenset[str], trouble_us: int) -> bool:
        try:
            simulation_of(seed, profile, without=without, trouble_us=trouble_us).run()
        except Exception:
            return True
        return False

    trouble_us = simulation_of(seed, profile).trouble_us
    if not fails(frozenset(), trouble_us):
        print(f"seed {seed}, {profile}, does not fail")
        return 0
    kinds = kinds_of(profile)
    without, trouble_us = shrink(kinds, trouble_us, fails)
    needed = [kind for kind in kinds if kind not in without]
    simulation = simulation_of(seed, profile, without=without, trouble_us=trouble_us)
    try:
        simulation.run()
    except Exception as error:
        print(*simulation.schedule.recent, sep="\n")
        print(f"{type(error).__name__}: {error}")
    print(f"seed {seed}, {profile}, fails within {trouble_us} us of {', '.join(needed) or 'nothing'}")
    return 1


def _run(first: int, seeds: int, profile: str, record: Path | None) -> int:
    started = time.monotonic()
    counts: Counter[str] = Counter()
    hashes = hashlib.blake2b(digest_size=8)
    failed: list[int] = []
    for number, seed in enumerate(range(first, first + seeds), 1):
        simulation = simulation_of(seed, profile_of(seed, profile))
        try:
            report: Report = simulation.run()
        except Exception as error:
            failed.append(seed)
            print(f"\nseed {seed} ({simulation.profile}): {type(error).__name__}: {error}", flush=True)
        else:
            counts += report.counts
            hashes.update(report.trace_hash.encode())
        del simulation
        if number % 20 == 0:
            gc.collect()
        _show(number, seeds, len(failed), started)
    _print_counts(counts)
    print(f"{seeds} seeds from {first}, {profile}: {len(failed)} failed {failed[:10]}; traces {hashes.hexdigest()}")
    if record is not None:
        line = {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "from": first,
            "seeds": seeds,
            "profile": profile,
            "sources": source_digest(),
            "traces": hashes.hexdigest(),
            "failed": failed,
            "seconds": round(time.monotonic() - started),
        }
        with record.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    return 1 if failed else 0


def _show(done: int, seeds: int, failed: int, started: float) -> None:
    if not sys.stderr.isatty() and done % 100 and done != seeds:
        return
    filled = BAR_WIDTH * done // seeds
    seconds = time.monotonic() - started
    bar = "#" * filled + "-" * (BAR_WIDTH - filled)
    end = "\r" if sys.stderr.isatty() and done < seeds else "\n"
    print(f"[{bar}] {done}/{seeds} seeds, {failed} failed, {seconds / done:.2f} s each", end=end, file=sys.stderr)


def _print_counts(counts: Counter[str]) -> None:
    for name, count in sorted(counts.items()):
        print(f"{count:>10}  {name}")


def source_digest() -> str:
    """Of all sources that decide what a seed does."""
    hasher = hashlib.blake2b(digest_size=8)
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            hasher.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return hasher.hexdigest()
