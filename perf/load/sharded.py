"""The load process of `bezant bench transfers --shards`: frames for every shard at a time, from one event loop.

Each loaded shard gets an equal share of the transfers, between its own accounts but for those that are to cross.
Accounts lie where the slot map puts their names. Otherwise it is done as in generator.py.
"""

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from bezant.engine.compiled import kernel_digest
from bezant.perf.load.books import Books, LoadAccounts, account_names, books_fault
from bezant.perf.load.child import ProgressListener, serve_plan
from bezant.perf.load.control import ControlClient
from bezant.perf.load.cross import CrossRing
from bezant.perf.load.disk import bytes_in_use
from bezant.perf.load.floor import measure_echo
from bezant.perf.load.generator import Load, check_limits
from bezant.perf.load.latency import percentiles_us
from bezant.perf.load.plan import LoadOutcome, LoadPlan
from bezant.perf.load.processor import ProcessorTimes
from bezant.protocol.errors import ConnectionFailed, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.messages import decode_message
from bezant.protocol.placement import SlotMap, owners_of, slots_of_words
from bezant.protocol.records import Words
from bezant.protocol.statistics import Statistics

SETTLE_S_MAX: Final = 10.0
"""Seconds after the last answer in which money that is between shards has to arrive."""
SETTLE_POLL_S: Final = 0.05
_Number = TypeVar("_Number", int, float)
_SEED_STEP: Final = 1 << 48
"""Between the seeds of two shards."""


class _Shard(NamedTuple):
    """A shard under load: where it is, what it has, what it is sent."""

    plan: LoadPlan
    control: ControlClient
    accounts: LoadAccounts


class _PartOfAccounts(LoadAccounts):
    """Those of the load's accounts that one shard has."""

    def __init__(self, names: list[str], heads: Words, tails: Words, identifiers: list[bytes]) -> None:
        self.count = len(names)
        self.names, self.identifiers, self.heads, self.tails = names, identifiers, heads, tails


async def run_sharded(plan: LoadPlan, on_progress: ProgressListener) -> LoadOutcome:
    """Carry out a plan over several shards, from opening the accounts to reading the books. Raises `BezantError`."""
    async with AsyncExitStack() as closing:
        shards = await _open_shards(plan, closing)
        rings = [_make_ring(shards, number) for number in range(plan.loaded_shards)]
        _warm_kernels(shards)
        books_before = await _read(shards)
        echo_us = await measure_echo(plan.echo, rings[0].frame_size) if plan.echo else []
        loaded = shards[: plan.loaded_shards]
        loads = [Load(shard.plan, ring) for shard, ring in zip(loaded, rings, strict=True)]
        try:
            warnings: list[str] = []
            for load, shard, ring in zip(loads, loaded, rings, strict=True):
                welcome = await load.connect()
                warnings += check_limits(shard.plan, ring, welcome)
            before = await _statistics(shards)
            used_before = _bytes_in_use(shards, before)
            _prepare(rings)
            gc.collect()
            gc.disable()
            processor = ProcessorTimes(0)
            nodes = [ProcessorTimes(process_id) for process_id in plan.replica_process_ids]
            started = time.perf_counter()
            await asyncio.gather(*(load.run(lambda _done: on_progress(_answered(rings, plan))) for load in loads))
            seconds = time.perf_counter() - started
            load_cpu_seconds, node_cpu_seconds = processor.own(), [node.other() for node in nodes]
        finally:
            gc.enable()
            for load in loads:
                load.close()
        after = await _statistics(shards)
        if plan.echo:
            echo_us += await measure_echo(plan.echo, rings[0].frame_size)
        committed = sum(ring.accepted - ring.repeated for ring in rings)
        fault = await _settled_fault(shards, books_before, committed, plan.cross)
    accepted = sum(ring.accepted for ring in rings)
    return LoadOutcome(
        seconds=seconds,
        accepted=accepted,
        rejected=plan.transfers - accepted,
        unknown=0,
        repeated=sum(ring.repeated for ring in rings),
        rejected_codes=_added([ring.rejected_codes() for ring in rings]),
        latency_us=_latency_us(rings),
        echo_p50_us=round(statistics.median(echo_us), 3) if echo_us else None,
        load_cpu_seconds=load_cpu_seconds,
        node_cpu_seconds=None if None in node_cpu_seconds else sum(cpu or 0.0 for cpu in node_cpu_seconds),
        replica_cpu_seconds=node_cpu_seconds,
        bytes_on_disk=_bytes_in_use(shards, after) - used_before,
        books_fault=fault,
        kernel_digest=welcome.kernel_digest or kernel_digest(),
        statistics_before=_sum(before),
        statistics_after=_sum(after),
        kinds=_added([ring.kinds() for ring in rings]),
        warnings=warnings,
    )


async def _open_shards(plan: LoadPlan, closing: AsyncExitStack) -> list[_Shard]:
    """The shards, connected, with their accounts open."""
    controls = [await closing.enter_async_context(ControlClient(address)) for address in plan.shard_addresses]
    if len({control.welcome.shard for control in controls}) != len(controls):
        raise UsageError("one address of each shard is needed, and two of them are of the same")
    slot_map = decode_message(await controls[0].request(Operation.MAP), SlotMap)
    names = account_names(plan.accounts)
    everything = LoadAccounts(plan.accounts)
    owners = owners_of(slot_map)[slots_of_words(everything.heads)]
    shards = []
    for number, control in enumerate(controls):
        rows = np.flatnonzero(owners == control.welcome.shard)
        if len(rows) < 2:
            raise UsageError(f"shard {control.welcome.shard} has {len(rows)} of {plan.accounts} accounts: ask for more")
        accounts = _PartOfAccounts(
            [names[row] for row in rows.tolist()],
            everything.heads[rows],
            everything.tails[rows],
            [everything.identifiers[row] for row in rows.tolist()],
        )
        await accounts.open_all(control)
        part = plan.transfers // plan.loaded_shards + (number < plan.transfers % plan.loaded_shards)
        own = msgspec.structs.replace(
            plan,
            address=plan.shard_addresses[number],
            transfers=part,
            seed=(plan.seed + number * _SEED_STEP) % (1 << 63),
            data=plan.shard_data[number] if plan.shard_data else "",
        )
        shards.append(_Shard(own, control, accounts))
    if sum(shard.accounts.count for shard in shards) != plan.accounts:
        raise ConnectionFailed("the slot map names shards whose addresses were not given")
    return shards


def _make_ring(shards: Sequence[_Shard], number: int, transfers: int | None = None) -> CrossRing:
    plan, accounts = shards[number].plan, shards[number].accounts
    others = [shard.accounts for other, shard in enumerate(shards) if other != number]
    return CrossRing(
        own=(accounts.heads, accounts.tails),
        others=(
            np.concatenate([other.heads for other in others]),
            np.concatenate([other.tails for other in others]),
        ),
        cross=plan.cross,
        transfers=plan.transfers if transfers is None else transfers,
        batch=plan.batch,
        frames_in_flight_max=plan.clients * plan.inflight,
        rising_ids=plan.ids == "time",
        seed=plan.seed,
    )


def _warm_kernels(shards: Sequence[_Shard]) -> None:
    ring = _make_ring(shards, 0, shards[0].plan.batch)
    ring.take(1, 0, 1)
    ring.warm_reply_kernels()


def _prepare(rings: Sequence[CrossRing]) -> None:
    """Fill every ring, so that all shards are sent their first frames at the same time."""
    for ring in rings:
        while ring.prepare():
            pass


def _answered(rings: Sequence[CrossRing], plan: LoadPlan) -> int:
    return min(sum(ring.answered for ring in rings) * plan.batch, plan.transfers)


async def _read(shards: Sequence[_Shard]) -> Books:
    """The sums over the accounts of all shards."""
    parts = [await shard.accounts.read(shard.control) for shard in shards]
    return Books(*(sum(column) for column in zip(*parts, strict=True)))


async def _settled_fault(shards: Sequence[_Shard], before: Books, committed: int, cross: float) -> str | None:
    """What contradicts the answers once money between shards has had the time to arrive, or None.

    A transfer between shards touches its accounts as often as its protocol does, so events are counted without them.
    """
    deadline_s = time.monotonic() + SETTLE_S_MAX
    while True:
        after = await _read(shards)
        touched = before.event_count + 2 * committed if cross else after.event_count
        fault = books_fault(before, after._replace(event_count=touched), committed)
        if fault is None or time.monotonic() > deadline_s:
            return fault
        await asyncio.sleep(SETTLE_POLL_S)


async def _statistics(shards: Sequence[_Shard]) -> list[Statistics]:
    return [await shard.control.statistics() for shard in shards]


def _bytes_in_use(shards: Sequence[_Shard], counters: Sequence[Statistics]) -> int:
    return sum(bytes_in_use(shard.plan.data, counted) for shard, counted in zip(shards, counters, strict=True))


def _sum(counters: Sequence[Statistics]) -> Statistics:
    """Counters of all shards together; the longest step is that of the slowest."""
    totals = _added([{name: getattr(one, name) for name in _SUMMED} for one in counters])
    return msgspec.structs.replace(
        counters[0],
        **totals,
        stage_s=_added([one.stage_s for one in counters]),
        loop_stall_max_ms=max(one.loop_stall_max_ms for one in counters),
        loop_stall_recent_ms=max(one.loop_stall_recent_ms for one in counters),
        durable=all(one.durable for one in counters),
    )


_SUMMED: Final = (
    "connections",
    "commands",
    "events",
    "accounts",
    "entries",
    "syncs",
    "syncs_inline",
    "bytes_in",
    "bytes_out",
    "log_bytes",
    "bytes_in_flight",
)


def _added(parts: Sequence[dict[str, _Number]]) -> dict[str, _Number]:
    """The sums of what has the same name."""
    total: dict[str, _Number] = {}
    for part in parts:
        for name, value in part.items():
            total[name] = total[name] + value if name in total else value
    return total


def _latency_us(rings: Sequence[CrossRing]) -> dict[str, float | None]:
    histogram = np.sum([ring.histogram for ring in rings], axis=0)
    return percentiles_us(histogram, max(ring.latency_max_ns for ring in rings))


if __name__ == "__main__":
    sys.exit(serve_plan(run_sharded))
