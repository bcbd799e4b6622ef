"""Metrics as text: OpenMetrics 1.0, and the text format 0.0.4 of Prometheus for those who do not ask for that."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from bezant.protocol.statistics import LATENCY_BOUNDS_NS, Histogram

OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PLAIN: Final = "text/plain; version=0.0.4; charset=utf-8"
_BOUNDS: Final = tuple(f"{bound / 1_000_000_000:.9g}" for bound in LATENCY_BOUNDS_NS)

Labels = Mapping[str, str]


class Sample(NamedTuple):
    """One number, or one histogram, of a family, under its labels."""

    labels: Labels
    value: float | Histogram


class Family(NamedTuple):
    """A metric: `name` has its unit, and neither ``_total`` nor ``_bucket``; those are written by its kind."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    samples: Sequence[Sample]


def sample_names(family: Family) -> tuple[str, ...]:
    """The names under which its samples can be asked for."""
    if family.kind == "histogram":
        return f"{family.name}_bucket", f"{family.name}_sum", f"{family.name}_count"
    return (f"{family.name}_total",) if family.kind == "counter" else (family.name,)


def content_type(accept: str) -> str:
    """The format for a client that accepts this: OpenMetrics if it is named at all."""
    return OPENMETRICS if "application/openmetrics-text" in accept else PLAIN


def exposed(families: Iterable[Family], common: Labels, format_: str = OPENMETRICS) -> bytes:
    """Metrics as text in one of the two formats, with the `common` labels on every sample."""
    lines: list[str] = []
    for family in families:
        described = family.name
        if format_ == PLAIN and family.kind == "counter":
            described += "_total"
        lines += (f"# HELP {described} {_escaped(family.help)}", f"# TYPE {described} {family.kind}")
        for labels, value in family.samples:
            all_labels = {**common, **labels}
            if isinstance(value, Histogram):
                lines += _histogram_lines(family.name, all_labels, value)
            else:
                lines.append(f"{sample_names(family)[0]}{_labels(all_labels)} {_number(value)}")
    if format_ == OPENMETRICS:
        lines.append("# EOF")
    return "".join(f"{line}\n" for line in lines).encode()


def _histogram_lines(name: str, labels: Labels, histogram: Histogram) -> Iterable[str]:
    passed = 0
    for number, bound in enumerate(_BOUNDS):
        passed += histogram.counts[number] if number < len(histogram.counts) else 0
        yield f"{name}_bucket{_labels({**labels, 'le': bound})} {passed}"
    count = sum(histogram.counts)
    yield f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {count}"
    yield f"{name}_sum{_labels(labels)} {_number(histogram.sum_s)}"
    yield f"{name}_count{_labels(labels)} {count}"


def _labels(labels: Labels) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items()) + "}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(int(value))
    return "NaN" if math.isnan(value) else repr(value)
