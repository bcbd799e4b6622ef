"""What a measurement says: one JSON object for programs, one table for people, from the same values."""

import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec

from bezant.perf.load.plan import LoadOutcome, LoadPlan
from bezant.protocol.statistics import Statistics

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


class ReplicaReport(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a group after a run. ``cpu_s``: processor time within the run, None if the system does not say.

    ``entries``, ``chain_hash`` and ``state_digest`` are what `bezant verify` found in its folder, which executes the
    whole history again; they are None after a run of more events than REPLICA_EVENTS_MAX.
    """

    node: int
    leader: bool
    cpu_s: float | None
    entries: int | None = None
    chain_hash: str | None = None
    state_digest: str | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. Times end in their unit; ``stages`` are seconds of the node's reactor within the run.

    ``bytes_on_disk`` is what the run added to the data folder (see disk.py), or to the log if the folder cannot be
    seen. ``floor_us`` parts are None if not measured. ``books_fault`` is None if the accounts agree with what was
    answered. ``cpu`` is the share of one core that each process used. ``commands_per_s`` counts refusals, too, of which
    ``refused`` were meant to be; ``kinds`` are the commands by kind, empty from the SDK. ``longest_step_ms`` is that of
    the node's loop within the run, ``memory_bytes`` the peak of its memory. Of a group the node is the leader, and
    ``replica_reports`` has an item for each node; ``replicas_level`` says that all ended with the same log and state.
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
    replica_cpu_s: dict[str, float | None] = {}
    replica_reports: Sequence[ReplicaReport] = ()
    replicas_level: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints, with the settings beside the figures."""
        fields = msgspec.to_builtins(self)
        settings = fields.pop("settings")
        return {**fields, **settings}


def make_report(
    plan: LoadPlan,
    outcome: LoadOutcome,
    surroundings: Surroundings,
    settings: Mapping[str, Any],
    replicas: Sequence[ReplicaReport] = (),
) -> Report:
    """Put the outcome of a load and its surroundings together."""
    before, after = outcome.statistics_before, outcome.statistics_after
    durable = after.durable and not surroundings.on_memory
    level = _are_level(replicas)
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
        warning="; ".join(_warnings(plan, outcome, surroundings, durable=durable, level=level)) or None,
        replica_cpu_s={str(replica.node): replica.cpu_s for replica in replicas},
        replica_reports=replicas,
        replicas_level=level,
    )


def _are_level(replicas: Sequence[ReplicaReport]) -> bool | None:
    """Whether all ended with the same log and the same state; None if that is not known."""
    ends = {(replica.entries, replica.chain_hash, replica.state_digest) for replica in replicas}
    return None if not ends or any(None in end for end in ends) else len(ends) == 1


def _share(part_s: float | None, whole_s: float) -> float | None:
    return None if part_s is None else round(part_s / whole_s, 3)


def _stages(before: Statistics, after: Statistics) -> dict[str, float]:
    """Seconds that each stage of the node was busy or waiting between two readings of its counters."""
    return {name: round(total - before.stage_s.get(name, 0.0), 6) for name, total in after.stage_s.items()}


def _warnings(
    plan: LoadPlan, outcome: LoadOutcome, surroundings: Surroundings, *, durable: bool, level: bool | None
) -> list[str]:
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
    if level is False:
        told.append("the replicas did not end with the same log and the same state")
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
    if report.replica_cpu_s:
        rows.append(("replicas", _replicas(report)))
    rows.append(("versions", "  ".join(f"{name} {value}" for name, value in report.versions.items())))
    rows.append(("books", report.books_fault or "agree with every answer"))
    if report.warning:
        rows.append(("WARNING", report.warning))
    return rows


def _replicas(report: Report) -> str:
    level = {True: "the same log and state on all", False: "NOT level", None: "not compared"}[report.replicas_level]
    used = "  ".join(f"node {name} {_number(value)} s of cpu" for name, value in report.replica_cpu_s.items())
    return f"{used}   ({level})"


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
