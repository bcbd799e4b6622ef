"""Claim: the dashboard and the alerts ask for metrics and labels that there are, and the names are told once each."""

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from bezant.net.gateway.metering import Meter
from bezant.net.gateway.webhooks.hooks import hook_families
from bezant.net.metrics.exposition import Family, sample_names
from bezant.net.metrics.node import node_families, node_labels
from bezant.net.metrics.reader import reader_families, reader_labels
from bezant.protocol.statistics import FollowerStatistics, Histogram, Queue, ReaderStatistics, Statistics

OPERATIONS = Path(__file__).parents[3] / "operations"
NAME = re.compile(r"\bbezant_[a-z_]+")
GROUPED = re.compile(r"\bby \(([a-z_, ]+)\)")
MATCHED = re.compile(r"[{,]\s*([a-z_]+)\s*[=!]~?\s*\"")
LEGEND = re.compile(r"\{\{\s*(?:\$labels\.)?([a-z_]+)\s*\}\}")
OF_PROMETHEUS = frozenset({"instance", "job", "le", "up"})


def made(kind: type[msgspec.Struct], **changes: Any) -> Any:
    zeros = dict.fromkeys((field.name for field in msgspec.structs.fields(kind) if field.required), 0)
    return msgspec.convert(zeros | changes, kind)


async def all_families() -> tuple[list[Family], set[str]]:
    """Every metric that anything tells, and every label."""
    node = made(
        Statistics,
        followers=[FollowerStatistics(2, 1, 0, "replicate", True)],
        requests={"ping": 1},
        results={"committed": 1},
        stage_s={"execute": 1.0},
        waited_s={"sync": 1.0},
        queues={"commands": Queue(1, 2)},
        checkpoint_age_s=1.0,
    )
    reader = made(ReaderStatistics, queries={"totals": 1}, latency={"query_totals": Histogram([1], 0.1)})
    meter = Meter(SimpleNamespace(is_refused=False))  # type: ignore[arg-type]
    meter.note("GET", "/v1/totals", 200, 1000)
    meter.more = lambda: hook_families(1, 1, 1)
    families = node_families(node) + reader_families(reader) + meter.families()
    labels = {label for family in families for sample in family.samples for label in sample.labels}
    return families, labels | set(node_labels(node)) | set(reader_labels(reader))


@pytest.fixture(scope="module")
def told() -> tuple[list[Family], set[str]]:
    return asyncio.run(all_families())


def expressions() -> list[str]:
    dashboard = json.loads((OPERATIONS / "grafana" / "bezant.json").read_text())
    alerts = (OPERATIONS / "prometheus" / "alerts.yml").read_text()
    found = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    found += [variable["query"]["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    return found + re.findall(r"^ +expr: (.+)$", alerts, re.M)


def test_every_metric_that_is_asked_for_is_told(told: tuple[list[Family], set[str]]) -> None:
    names = {name for family in told[0] for name in sample_names(family)}
    asked = {name for expression in expressions() for name in NAME.findall(expression)}
    assert len(asked) > 40
    assert asked - names == set()


def test_every_label_that_is_asked_for_is_told(told: tuple[list[Family], set[str]]) -> None:
    text = "\n".join(expressions())
    dashboard = (OPERATIONS / "grafana" / "bezant.json").read_text()
    asked = {label.strip() for group in GROUPED.findall(text) for label in group.split(",")}
    asked |= set(MATCHED.findall(text)) | set(LEGEND.findall(dashboard))
    asked |= set(LEGEND.findall((OPERATIONS / "prometheus" / "alerts.yml").read_text()))
    assert {"shard", "node", "outcome"} <= asked
    assert asked - told[1] - OF_PROMETHEUS == set()


@pytest.mark.parametrize("of", ["bezant_reader_", "bezant_gateway_", "bezant_"])
def test_a_name_is_told_once_by_a_process(told: tuple[list[Family], set[str]], of: str) -> None:
    own = [family.name for family in told[0] if family.name.startswith(of)]
    if of != "bezant_":
        assert len(own) == len(set(own)) > 0
    for family in told[0]:
        assert family.help and family.help[0].isalnum(), family.name


def test_panels_do_not_lie_over_one_another() -> None:
    panels = json.loads((OPERATIONS / "grafana" / "bezant.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert all(x < 24 for x, _ in cells)
        taken |= cells


def test_every_alert_says_what_is_wrong_and_what_to_do() -> None:
    text = (OPERATIONS / "prometheus" / "alerts.yml").read_text()
    alerts = re.split(r"^ +- alert: ", text, flags=re.M)[1:]
    assert len(alerts) > 10
    for alert in alerts:
        for word in ("expr:", "severity:", "summary:", "description:"):
            assert alert.count(word) == 1, alert
