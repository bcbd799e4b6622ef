"""What `bezant top` shows: a line for all, a row for each node, and where the time of each leader goes."""

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bezant.net.gateway.cluster_bodies import ClusterBody, LatencyBody, NodeBody, NumbersBody, ShardBody
from bezant.protocol.placement import METADATA_SHARD

SPARKS_MAX: Final = 60
"""Looks that the line of the last minute has."""
_BARS: Final = " ▁▂▃▄▅▆▇█"
_STALL_MS_MAX: Final = 20.0
"""What no step of a loop should take longer than."""
_ROLES: Final = {"leader": "bold green", "follower": "", "candidate": "yellow", "unknown": "yellow"}
_COLUMNS: Final = (
    *("shard", "node", "address", "role", "term", "transfers/s", "p50 ms", "p99 ms", "p99.9 ms", "commit p99"),
    *("sync p99", "behind", "reader", "queued", "stall ms", "cpu", "memory", "disk free"),
)
_LEFT: Final = frozenset({"shard", "node", "address", "role"})
_LEAST_FIRST: Final = (
    *("term", "p99.9 ms", "stall ms", "disk free", "commit p99", "memory", "queued", "sync p99", "cpu", "p50 ms"),
    *("shard", "reader"),
)
"""Columns that go, in this order, where there is no room for all: half a word in each would tell nothing."""
_GAP: Final = 2
_UNKNOWN: Final = "-"


class View:
    """The latest look, and as much of those before as is shown."""

    def __init__(self) -> None:
        self._rates: deque[float] = deque(maxlen=SPARKS_MAX)
        self._before: dict[str, NumbersBody] = {}
        self._stages: dict[str, tuple[dict[str, float], dict[str, float]]] = {}
        self._body: ClusterBody | None = None

    def add(self, body: ClusterBody) -> None:
        """Take another look in."""
        if body.rates is not None:
            self._rates.append(body.rates.transfers_per_s)
        self._stages = {}
        for node in _nodes(body.shards):
            now, before = node.numbers, self._before.get(node.address)
            if now is None:
                self._before.pop(node.address, None)
                continue
            if before is not None and now.uptime_s > before.uptime_s:
                seconds = now.uptime_s - before.uptime_s
                self._stages[node.address] = (
                    _shares(before.busy_s, now.busy_s, seconds),
                    _shares(before.waited_s, now.waited_s, seconds),
                )
            self._before[node.address] = now
        self._body = body

    def rendered(self, width: int) -> Group:
        """Everything, to be printed on lines of so many characters; what has no room is named."""
        if self._body is None:
            return Group(Text("no look has been taken yet"))
        table, left_out = _table(self._body, width)
        parts: list[Text | Table] = [self._headline(self._body), table]
        if left_out:
            parts.append(Text(f"no room for {', '.join(left_out)}", style="dim"))
        stages = [self._stage_line(shard, node) for shard in self._body.shards for node in shard.nodes]
        parts += [line for line in stages if line is not None]
        parts += [
            Text(f"node {_or_unknown(node.node)} at {node.address}: {node.problem}", style="red")
            for node in _nodes(self._body.shards)
            if node.problem
        ]
        parts += [
            Text(
                f"reader of node {_or_unknown(node.node)} at {node.reader.address}: {node.reader.problem}", style="red"
            )
            for node in _nodes(self._body.shards)
            if node.reader is not None and node.reader.problem
        ]
        return Group(*parts)

    def _headline(self, body: ClusterBody) -> Text:
        rates = body.rates
        rate = _UNKNOWN if rates is None else f"{rates.transfers_per_s:,.0f}"
        requests = _UNKNOWN if rates is None else f"{rates.requests_per_s:,.0f}"
        nodes = list(_nodes(body.shards))
        there = sum(node.reachable for node in nodes)
        line = Text(f"{body.time[:19]}Z  ")
        line.append(f"{there} of {len(nodes)} nodes  ", style="" if there == len(nodes) else "bold red")
        line.append(f"{rate} transfers/s  {requests} requests/s  ", style="bold")
        line.append(sparkline(self._rates), style="cyan")
        return line

    def _stage_line(self, shard: ShardBody, node: NodeBody) -> Text | None:
        """Where the time of a leader went since the last look."""
        if node.address not in self._stages or node.numbers is None or node.numbers.role != "leader":
            return None
        busy, waited = self._stages[node.address]
        line = Text(f"shard {_shard_name(shard)}  busy ", style="dim")
        line.append(_stage_words(busy, lambda share: f"{100 * share:.0f} %"))
        line.append("  waiting ", style="dim")
        line.append(_stage_words(waited, lambda share: f"{share:.2f}"))
        line.append(" batches", style="dim")
        return line


def _table(body: ClusterBody, width: int) -> tuple[Table, list[str]]:
    """The nodes, in as many columns as there is room for, and the names of the others."""
    rows = [_row(shard, node) for shard in body.shards for node in shard.nodes]
    widths = {
        name: max([len(name), *(cells[place].cell_len for cells in rows)]) + _GAP for place, name in enumerate(_COLUMNS)
    }
    left_out: list[str] = []
    for name in _LEAST_FIRST:
        if sum(widths.values()) - _GAP <= width:
            break
        del widths[name]
        left_out.append(name)
    table = Table(box=None, pad_edge=False, header_style="dim")
    for name in widths:
        table.add_column(name, justify="left" if name in _LEFT else "right", no_wrap=True)
    for cells in rows:
        table.add_row(*(cell for name, cell in zip(_COLUMNS, cells, strict=True) if name in widths))
    return table, left_out


def sparkline(values: Iterable[float]) -> str:
    """Values as bars, the highest of them full."""
    known = list(values)
    highest = max(known, default=0.0)
    if highest <= 0:
        return _BARS[0] * len(known)
    return "".join(_BARS[round(value / highest * (len(_BARS) - 1))] for value in known)


def size_text(size_bytes: float) -> str:
    """A number of bytes in at most seven characters."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < 1024:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1024
    return f"{size_bytes:.1f} TiB"


def _reader(node: NodeBody) -> Text:
    """How far a reader is behind: in entries and, of its history, in events."""
    reader = node.reader
    if reader is None:
        return Text(_UNKNOWN)
    if reader.behind_entries is None or reader.history_behind_events is None:
        return Text("gone", style="red")
    behind = max(reader.behind_entries, reader.history_behind_events)
    return Text(f"{behind:,}" if behind else "level", style="yellow" if behind else "")


def _row(shard: ShardBody, node: NodeBody) -> list[Text]:
    first = [_shard_name(shard), _or_unknown(node.node), node.address]
    numbers = node.numbers
    if numbers is None:
        return [Text(word, style="red") for word in [*first, "gone", *[_UNKNOWN] * (len(_COLUMNS) - 4)]]
    request = numbers.latency.get("request")
    stall_ms = numbers.loop_stall_max_ms
    return [
        *map(Text, first),
        Text(numbers.role, style=_ROLES[numbers.role]),
        Text(str(numbers.term)),
        Text(_UNKNOWN if numbers.rates is None else f"{numbers.rates.transfers_per_s:,.0f}"),
        *(Text(_milliseconds(request, name)) for name in ("p50_ms", "p99_ms", "p999_ms")),
        *(Text(_milliseconds(numbers.latency.get(name), "p99_ms")) for name in ("commit", "sync")),
        Text(f"{numbers.behind_entries:,}", style="yellow" if numbers.behind_entries else ""),
        _reader(node),
        Text(_queued(numbers)),
        Text(f"{stall_ms:.1f}", style="yellow" if stall_ms > _STALL_MS_MAX else ""),
        Text(_UNKNOWN if numbers.rates is None else f"{100 * numbers.rates.processor:.0f} %"),
        Text(size_text(numbers.memory_bytes)),
        Text(size_text(numbers.disk_free_bytes)),
    ]


def _queued(numbers: NumbersBody) -> str:
    """The fullest of the queues that have a bound, in per cent of it, and its name."""
    shares = {name: queue.depth / queue.limit for name, queue in numbers.queues.items() if queue.limit}
    shares.pop("connections", None)
    if not shares:
        return _UNKNOWN
    name = max(shares, key=lambda one: shares[one])
    return f"{name} {100 * shares[name]:.0f} %" if shares[name] > 0 else "0 %"


def _milliseconds(latency: LatencyBody | None, name: str) -> str:
    value = None if latency is None else getattr(latency, name)
    return _UNKNOWN if value is None else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _shares(before: Mapping[str, float], now: Mapping[str, float], seconds: float) -> dict[str, float]:
    return {name: max(total - before.get(name, 0.0), 0.0) / seconds for name, total in now.items()}


def _stage_words(shares: Mapping[str, float], text: Callable[[float], str]) -> str:
    ranked = sorted(shares.items(), key=lambda item: -item[1])
    return " · ".join(f"{name.replace('_', ' ')} {text(share)}" for name, share in ranked if share >= 0.005) or "none"


def _nodes(shards: Iterable[ShardBody]) -> Iterable[NodeBody]:
    return (node for shard in shards for node in shard.nodes)


def _shard_name(shard: ShardBody) -> str:
    return "map" if shard.shard == METADATA_SHARD else _or_unknown(shard.shard)


def _or_unknown(number: int | None) -> str:
    return "?" if number is None else str(number)
