"""What a comparison says: one JSON object for programs, tables for people, from the same values."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from bezant.perf.peers.plan import PeerKind

HEADINGS: Final = (
    "system",
    "in flight",
    "transfers/s",
    "p50 ms",
    "p99 ms",
    "durable",
    "atomic across shards",
    "lost after a kill",
    "load's cpu",
)
NUMBERS: Final = frozenset({"in flight", "transfers/s", "p50 ms", "p99 ms", "load's cpu"})


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One load on one peer.

    ``pipeline`` transfers were in flight on each of ``clients`` connections, or frames of ``batch`` of them.
    ``latency_us_*`` run from asking to answer, of a pipeline for all of it; None if nothing was answered. ``load_cpu``
    is the share of a core that the load itself took: near 1 the client was the limit.
    """

    clients: int
    pipeline: int
    batch: int = 1
    seconds: float
    transfers_per_s: float
    made: int
    refused: int
    retries: int
    latency_us_p50: float | None
    latency_us_p99: float | None
    load_cpu: float | None

    @property
    def in_flight(self) -> str:
        """How many transfers were in flight, as a product of what is not one."""
        factors = [str(factor) for factor in (self.clients, self.pipeline, self.batch) if factor > 1]
        return " x ".join(factors) or "1"


class Kill(msgspec.Struct, frozen=True, kw_only=True):
    """A SIGKILL under load, and what the books said when everything was started again.

    ``killed`` is what: a server, or the coordinator. ``lost_minor_units`` is what all balances add up to less than
    before, ``missing`` how many transfers fewer are there than were acknowledged; ``unknown`` ones got no answer, None
    if whoever asked died, too. ``prepared_*`` are the halves of transactions that recovery found prepared.
    """

    killed: str
    acknowledged: int
    unknown: int | None
    lost_minor_units: int
    missing: int
    prepared_committed: int = 0
    prepared_rolled_back: int = 0


class PeerReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that was measured of one peer. ``unavailable`` says in words why nothing was, else it is None."""

    peer: PeerKind
    title: str
    version: str = ""
    settings: Sequence[str] = ()
    durable: bool = False
    atomic_across_shards: bool | None = None
    cross: float | None = None
    measured: Sequence[Measured] = ()
    kills: Sequence[Kill] = ()
    unavailable: str | None = None

    @property
    def lost_minor_units(self) -> int | None:
        """Money that kills cost in all, None if nothing was killed. Money from nowhere counts as well."""
        return sum(abs(kill.lost_minor_units) for kill in self.kills) if self.kills else None

    @property
    def missing(self) -> int:
        """Transfers that were acknowledged and are gone after a kill."""
        return sum(kill.missing for kill in self.kills)


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """One run over all peers."""

    peers: Sequence[PeerReport]
    accounts: int
    seconds: float
    cores: int | None
    file_system: str | None
    faults: Sequence[str]
    """What contradicts a promise; sharded Redis promises nothing across its servers."""

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        for told, peer in zip(fields["peers"], self.peers, strict=True):
            told["lost_minor_units"] = peer.lost_minor_units
        return fields

    def rows(self) -> list[list[str]]:
        """A row of `HEADINGS` for each load."""
        return [row for peer in self.peers for row in _rows(peer)]

    def remarks(self) -> list[str]:
        """Lines below the table: versions and settings, and who could not be had."""
        lines = []
        for peer in self.peers:
            if peer.unavailable is not None:
                lines.append(f"{peer.title}: not measured: {peer.unavailable}")
            else:
                lines.append(": ".join(part for part in (peer.title, peer.version, ", ".join(peer.settings)) if part))
                if peer.cross is not None:
                    lines.append(f"    {peer.cross:.0%} of its transfers lie across the two servers")
                lines += [f"    {_describe(kill)}" for kill in peer.kills]
        return lines


def _rows(peer: PeerReport) -> list[list[str]]:
    return [
        [
            peer.title if number == 0 else "",
            one.in_flight,
            f"{one.transfers_per_s:,.0f}",
            _milliseconds(one.latency_us_p50),
            _milliseconds(one.latency_us_p99),
            _yes_or_no(peer.durable),
            _yes_or_no(peer.atomic_across_shards),
            _lost(peer),
            "-" if one.load_cpu is None else f"{one.load_cpu:.2f}",
        ]
        for number, one in enumerate(peer.measured)
    ]


def _lost(peer: PeerReport) -> str:
    if peer.lost_minor_units is None:
        return "-"
    missing = f", {peer.missing:,} transfers" if peer.missing else ""
    return f"{peer.lost_minor_units / 100:,.2f}{missing}" if peer.lost_minor_units or missing else "nothing"


def _describe(kill: Kill) -> str:
    settled = ""
    if kill.prepared_committed or kill.prepared_rolled_back:
        settled = f"; {kill.prepared_committed} halves were committed and {kill.prepared_rolled_back} rolled back after"
    unknown = "" if kill.unknown is None else f"{kill.unknown} without an answer, "
    return (
        f"{kill.killed} was killed: {kill.acknowledged:,} transfers acknowledged, {kill.missing} of them missing, "
        f"{unknown}{kill.lost_minor_units / 100:,.2f} lost{settled}"
    )


def _milliseconds(value_us: float | None) -> str:
    return "-" if value_us is None else f"{value_us / 1000:.2f}"


def _yes_or_no(value: bool | None) -> str:
    return {True: "yes", False: "NO", None: "-"}[value]
