"""Claim: metrics are written as both formats have it, as a parser of somebody else reads them."""

import math

import pytest
from prometheus_client import parser
from prometheus_client.openmetrics import parser as openmetrics_parser

from bezant.net.metrics.exposition import OPENMETRICS, PLAIN, Family, Sample, content_type, exposed
from bezant.protocol.statistics import LATENCY_BOUNDS_NS, Histogram

FAMILIES = [
    Family("bezant_things", "counter", 'A "help"\\ with\nall', [Sample({"kind": 'a"b\\c\nd'}, 3), Sample({}, 0.5)]),
    Family("bezant_depth", "gauge", "How deep", [Sample({}, -2)]),
    Family("bezant_nothing", "gauge", "Not known", []),
    Family("bezant_taken_seconds", "histogram", "How long", [Sample({"way": "x"}, Histogram([1, 0, 4], 0.25))]),
]


def parsed(format_: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    text = exposed(FAMILIES, {"node": "1"}, format_).decode()
    read = openmetrics_parser if format_ == OPENMETRICS else parser
    found = list(read.text_string_to_metric_families(text))
    assert {family.name: family.type for family in found} == {family.name: family.kind for family in FAMILIES}
    return {(one.name, frozenset(one.labels.items())): one.value for family in found for one in family.samples}


@pytest.mark.parametrize("format_", [OPENMETRICS, PLAIN])
def test_what_is_written_can_be_read(format_: str) -> None:
    found = parsed(format_)
    node = ("node", "1")
    assert found["bezant_things_total", frozenset({node, ("kind", 'a"b\\c\nd')})] == 3
    assert found["bezant_things_total", frozenset({node})] == 0.5
    assert found["bezant_depth", frozenset({node})] == -2
    labels = {node, ("way", "x")}
    assert found["bezant_taken_seconds_count", frozenset(labels)] == 5
    assert found["bezant_taken_seconds_sum", frozenset(labels)] == 0.25
    buckets = sorted(
        (float(dict(of)["le"]), value) for (name, of), value in found.items() if name == "bezant_taken_seconds_bucket"
    )
    assert [bound for bound, _ in buckets] == pytest.approx([*(ns / 1e9 for ns in LATENCY_BOUNDS_NS), math.inf])
    assert [count for _, count in buckets] == [1, 1] + [5] * (len(LATENCY_BOUNDS_NS) - 1)


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("", PLAIN),
        ("*/*", PLAIN),
        ("text/plain;version=0.0.4", PLAIN),
        ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", OPENMETRICS),
    ],
)
def test_the_format_is_the_one_that_is_asked_for(accept: str, wanted: str) -> None:
    assert content_type(accept) == wanted
