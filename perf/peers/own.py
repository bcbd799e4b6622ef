"""Bezant's own speed in a comparison: the loads of `bezant bench transfers`, about as long as the peers'."""

from pathlib import Path
from typing import Final, NamedTuple

from bezant.cli.node_process import ProcessFailed
from bezant.perf.load.session import Settings, measure
from bezant.perf.peers.plan import ComparisonSettings
from bezant.perf.peers.report import Measured


class OwnLoad(NamedTuple):
    """A load of frames of ``batch`` transfers, ``inflight`` of them in flight for each client."""

    batch: int
    clients: int
    inflight: int
    usual_transfers_per_s: int
    """About what a node on two cores does. The load takes a number of transfers, not of seconds."""


_ALONE_PER_S: Final = 2_000
"""Transfers a second of one who waits for each before the next; of several, so many times as many, up to a bound."""
_TOGETHER_PER_S_MAX: Final = 100_000
_BATCH: Final = 8189
_BATCHES_IN_FLIGHT: Final = 4


def own_loads(settings: ComparisonSettings) -> list[OwnLoad]:
    """One transfer at a time, as many connections with as many in flight as the peers have, and batches."""
    together_per_s = min(_ALONE_PER_S * settings.clients * settings.pipeline, _TOGETHER_PER_S_MAX)
    return [
        OwnLoad(1, 1, 1, _ALONE_PER_S),
        OwnLoad(1, settings.clients, settings.pipeline, together_per_s),
        OwnLoad(_BATCH, 1, _BATCHES_IN_FLIGHT, 800_000),
    ]


def measure_bezant(load: OwnLoad, settings: ComparisonSettings, folder: Path) -> Measured:
    """Measure a node of its own. Raises `ProcessFailed` if its books contradict its answers."""
    report = measure(
        Settings(
            kind="transfers",
            accounts=settings.accounts,
            transfers=max(load.batch, int(load.usual_transfers_per_s * settings.seconds)),
            batch=load.batch,
            clients=load.clients,
            inflight=load.inflight,
            directory=folder,
        ),
        lambda _done: None,
    )
    if report.books_fault or report.rejected or report.unknown:
        raise ProcessFailed(f"Bezant's own load failed: {report.books_fault or report.warning}")
    return Measured(
        clients=load.clients,
        pipeline=load.inflight,
        batch=load.batch,
        seconds=report.seconds,
        transfers_per_s=report.transfers_per_second,
        made=report.accepted,
        refused=report.rejected,
        retries=0,
        latency_us_p50=report.latency_us["p50"],
        latency_us_p99=report.latency_us["p99"],
        load_cpu=report.cpu["load"],
    )
