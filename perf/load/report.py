"""What a measurement says: one JSON object for programs, one table for people, from the same values."""

import platform
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bezant.perf.load.plan import LoadOutcome, LoadPlan
from bezant.protocol.messages import Statistics

if TYPE_CHECKING:
    from rich.table import Table

ACCEPTED_SHARE_MIN: Final = 0.99
"""A run in which fewer transfers were accepted measures something else than transfers, and says so."""


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the command knows and the load process does not.

    ``file_system`` is the type of the one the data folder is on, None if unknown; ``sync_p50_us`` holds the medians of
    the ways to sync, fastest first, and is empty if they were not measured. ``memory_bytes`` is the peak of the node's
    processes together, None if it is not ours to look at.
    """

    file_system: str | None
    on_memory: bool
    sync_p50_us: dict[str, float]
    memory_bytes: int | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. Times end in their unit; ``stages`` are seconds of the node's reactor within the run.

    ``bytes_on_disk`` is what the run added to the data folder (see disk.py), or to the log if the folder cannot be
    seen. ``floor_us`` parts are None if not measured. ``books_fault`` is None if the accounts agree with what was
    answered. ``cpu`` is the share of one core that each process used. ``commands_per_s`` counts refusals, too, of which
    ``refused`` were meant to be; ``kinds`` are the commands by kind, empty from the SDK. ``longest_step_ms`` is that of
    the node's loop within the run, ``memory_bytes`` the peak of its memory.
    """

    transfers_per_second: float
    commands_per_s: float
    accepted: int
    rejected: int
    refused: int
    kinds: dict[str, int]
    unknown: int
    repeated: int
    durable: bool
    replicas: int
    latency_us: dict[str, float | None]
    floor_us: dict[str, float | None]
    settings: dict[str, Any]
    seconds: float
    bytes_on_disk: int
    bytes_per_transfer: float | None
    entries: int
    syncs: int
    stages: dict[str, float]
    longest_step_ms: float
    memory_bytes: int | None
    cpu: dict[str, float | None]
    sync_p50_us: dict[str, float]
    file_system: str | None
    rejected_codes: dict[str, int]
    books_fault: str | None
    versions: dict[str, str]
    warning: str | None

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints, with the settings beside the figures."""
        fields = msgspec.to_builtins(self)
        settings = fields.pop("settings")
        return {**fields, **settings}


def make_report(
    plan: LoadPlan, outcome: LoadOutcome, surroundings: Surroundings, settings: Mapping[str, Any]
) -> Report:
    """Put the outcome of a load and its surroundings together."""
    before, after = outcome.statistics_before, outcome.statistics_after
    durable = after.durable and not surroundings.on_memory
    return Report(
        transfers_per_second=round(outcome.accepted / outcome.seconds, 1),
        commands_per_s=round((outcome.accepted + outcome.rejected) / outcome.seconds, 1),
        accepted=outcome.accepted,
        rejected=outcome.rejected,
        refused=outcome.refused,
        kinds=outcome.kinds,
        unknown=outcome.unknown,
        repeated=outcome.repeated,
        durable=durable,
        replicas=after.replicas,
        latency_us=outcome.latency_us,
        floor_us={
            "echo_p50": outcome.echo_p50_us,
            "sync_p50": next(iter(surroundings.sync_p50_us.values()), None),
        },
        settings=dict(settings),
        seconds=round(outcome.seconds, 6),
        bytes_on_disk=outcome.bytes_on_disk,
        bytes_per_transfer=round(outcome.bytes_on_disk / outcome.accepted, 3) if outcome.accepted else None,
        entries=after.entries - before.entries,
        syncs=after.syncs - before.syncs,
        stages=_stages(before, after),
        longest_step_ms=round(after.loop_stall_recent_ms, 3),
        memory_bytes=surroundings.memory_bytes,
        cpu={
            "load": round(outcome.load_cpu_seconds / outcome.seconds, 3),
            "node": _share(outcome.node_cpu_seconds, outcome.seconds),
        },
        sync_p50_us=surroundings.sync_p50_us,
        file_system=surroundings.file_system,
        rejected_codes=outcome.rejected_codes,
        books_fault=outcome.books_fault,
        versions={
            "python": platform.python_version(),
            "bezant": version("bezant"),
            "kernel_digest": outcome.kernel_digest,
        },
        warning="; ".join(_warnings(plan, outcome, surroundings, durable=durable)) or None,
    )


def _share(part_s: float | None, whole_s: float) -> float | None:
    return None if part_s is None else round(part_s / whole_s, 3)


def _stages(before: Statistics, after: Statistics) -> dict[str, float]:
    """Seconds that each stage of the node was busy or waiting between two readings of its counters."""
    return {name: round(total - before.stage_s.get(name, 0.0), 6) for name, total in after.stage_s.items()}


def _warnings(plan: LoadPlan, outcome: LoadOutcome, surroundings: Surroundings, *, durable: bool) -> list[str]:
    told = []
    meant = plan.transfers - outcome.refused
    if outcome.accepted < ACCEPTED_SHARE_MIN * meant:
        told.append(f"only {100 * outcome.accepted / meant:.2f} % of the transfers were accepted")
    if outcome.repeated:
        told.append(f"{outcome.repeated} results are repeats: these ids were used on this node before; change --seed")
    if surroundings.on_memory:
        told.append(f"the data folder is on {surroundings.file_system}, so nothing of this survives a power cut")
    elif not durable:
        told.append("the node says that its log is not durable")
    if outcome.books_fault:
        told.append(outcome.books_fault)
    return told + outcome.warnings


def make_table(report: Report) -> "Table":
    """The report as a table for a terminal."""
    from rich.table import Table

    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in _rows(report):
        table.add_row(name, value)
    return table


def _rows(report: Report) -> list[tuple[str, str]]:
    safety = "durable" if report.durable else "NOT durable"
    where = f" on {report.file_system}" if report.file_system else ""
    rows = [
        ("transfers/s", f"{report.transfers_per_second:,.0f}   {safety}{where}, {report.replicas} replica(s)"),
        ("transfers", f"{report.accepted:,} accepted, {report.rejected:,} rejected, in {report.seconds:.2f} s"),
        ("settings", "  ".join(f"{name} {value}" for name, value in report.settings.items())),
        ("latency", "  ".join(f"{name} {_micro(value)}" for name, value in report.latency_us.items())),
        ("floor", _floor(report)),
    ]
    if report.rejected_codes:
        rows.append(("rejected as", "  ".join(f"{code} {count:,}" for code, count in report.rejected_codes.items())))
    if report.refused:
        rows.insert(1, ("commands/s", f"{report.commands_per_s:,.0f}, {report.refused:,} of them meant to be rejected"))
        rows.append(("kinds", "  ".join(f"{name} {count:,}" for name, count in report.kinds.items())))
    per_transfer = f"{report.bytes_per_transfer:.1f} bytes a transfer" if report.bytes_per_transfer else "-"
    rows.append(("disk", f"{report.bytes_on_disk:,} bytes, {per_transfer}; {report.syncs:,} syncs"))
    rows.append(("cores used", "  ".join(f"{name} {_number(value)}" for name, value in report.cpu.items())))
    memory = f"{report.memory_bytes:,} bytes of memory, " if report.memory_bytes is not None else ""
    rows.append(("node", f"{memory}longest step of its loop {report.longest_step_ms:,.1f} ms"))
    if report.stages:
        rows.append(("node's stages", "  ".join(f"{name} {value:.3f} s" for name, value in report.stages.items())))
    rows.append(("versions", "  ".join(f"{name} {value}" for name, value in report.versions.items())))
    rows.append(("books", report.books_fault or "agree with every answer"))
    if report.warning:
        rows.append(("WARNING", report.warning))
    return rows


def _floor(report: Report) -> str:
    told = "  ".join(f"{name} {_micro(value)}" for name, value in report.floor_us.items())
    parts = list(report.floor_us.values())
    median = report.latency_us["p50"]
    if median is None or any(part is None for part in parts):
        return told
    return f"{told}   (p50 is {median / sum(part for part in parts if part is not None):.2f} of their sum)"


def _micro(value_us: float | None) -> str:
    if value_us is None:
        return "-"
    return f"{value_us:,.0f} us" if value_us < 10_000 else f"{value_us / 1000:,.1f} ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
