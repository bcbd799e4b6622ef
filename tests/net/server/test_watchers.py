"""Claim: a node and its reader tell by HTTP how they are, each thing once, under names that hold to conventions."""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import bezant
from bezant.cli.node_process import NodeProcess, ProcessFailed
from bezant.cli.ports import free_addresses
from bezant.net.metrics.exposition import OPENMETRICS
from bezant.net.metrics.latencies import LOOP_LOOK_S
from bezant.net.server.reporting import APPLY_BEHIND_ENTRIES_MAX, find_unready

from .process import SMALL

UNITS = re.compile(r"bezant_[a-z_]+")
WAIT_S = 120.0


def fetch(url: str, accept: str = OPENMETRICS) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def families(url: str) -> dict[str, Metric]:
    status, text = fetch(f"{url}/metrics")
    assert status == 200
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(found: dict[str, Metric], name: str, **labels: str) -> float:
    (sample,) = [one for one in found[name].samples if labels.items() <= one.labels.items()]
    return float(sample.value)


def count_of(found: dict[str, Metric], name: str) -> float:
    (count,) = [one.value for one in found[f"bezant_{name}_seconds"].samples if one.name.endswith("_count")]
    return float(count)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, str]]:
    """Where a node listens, and where it and its reader tell how they are."""
    folder = tmp_path_factory.mktemp("watched")
    (reader,) = free_addresses(1)
    arguments = (*SMALL, "--metrics", "127.0.0.1:0", "--reader-metrics", reader)
    with NodeProcess(folder / "data", log_path=folder / "log", arguments=arguments) as process:
        told = None
        while told is None:
            told = re.search(r"^metrics on (http://\S+)/metrics$", (folder / "log").read_text(), re.M)
            time.sleep(0.01)
        yield process.address, told[1], f"http://{reader}"


async def test_what_is_done_is_counted(places: tuple[str, str, str]) -> None:
    address, url, _ = places
    async with bezant.connect(address) as wallet:
        before = families(url)
        await wallet.register_currency("EUR", 2)
        await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
        await wallet.open_account("ann", "EUR")
        await wallet.transfer("world", "ann", "5.00", "EUR")
        refused = await wallet.transfer("ann", "world", "6.00", "EUR")
        assert not refused.committed
        after = families(url)
    labels = {"shard": "0", "node": "1"}
    for outcome, count in (("committed", 3), ("refused", 1), ("not_executed", 0)):
        first, last = (value(found, "bezant_results", outcome=outcome, **labels) for found in (before, after))
        assert last - first == count, outcome
    assert value(after, "bezant_events") - value(before, "bezant_events") == 4
    assert value(after, "bezant_accounts") == 2
    assert value(after, "bezant_ready") == value(after, "bezant_leader") == 1
    assert value(after, "bezant_commit_index") == value(after, "bezant_log_last_index")
    for name in ("request", "execute", "sync", "commit"):
        assert count_of(after, name) > 0, name
    end_s = time.monotonic() + WAIT_S
    while count_of(families(url), "loop_lag") == 0:  # The first look at the loop may be due later than all this.
        assert time.monotonic() < end_s
        time.sleep(LOOP_LOOK_S)
    assert value(after, "bezant_memory_bytes") > 1 << 20
    assert value(after, "bezant_disk_free_bytes") > value(after, "bezant_disk_floor_bytes") > 0


def test_names_are_as_conventions_have_them(places: tuple[str, str, str]) -> None:
    for url in places[1:]:
        await_answer(url)
        for name, family in families(url).items():
            assert UNITS.fullmatch(name), name
            assert not name.endswith(("_total", "_ms", "_mib")), name
            assert family.type in {"counter", "gauge", "histogram"}, name
            assert family.documentation, name


def await_answer(url: str) -> None:
    end_s = time.monotonic() + WAIT_S
    while True:
        try:
            fetch(f"{url}/healthz")
            return
        except OSError:
            assert time.monotonic() < end_s
            time.sleep(0.1)


def test_a_node_that_leads_is_healthy_and_ready(places: tuple[str, str, str]) -> None:
    for page in ("healthz", "readyz"):
        status, text = fetch(f"{places[1]}/{page}")
        assert (status, json.loads(text)) == (200, {"status": "ok"})


def test_a_reader_tells_how_far_it_is(places: tuple[str, str, str]) -> None:
    url = places[2]
    await_answer(url)
    end_s = time.monotonic() + WAIT_S
    while fetch(f"{url}/readyz")[0] != 200:
        assert time.monotonic() < end_s
        time.sleep(0.1)
    found = families(url)
    assert value(found, "bezant_reader_followed_index", shard="0") > 0
    assert value(found, "bezant_reader_ready") == 1
    assert fetch(f"{url}/healthz")[0] == 200


def test_metrics_are_for_this_machine_alone(tmp_path: Path) -> None:
    node = NodeProcess(tmp_path / "data", arguments=("--metrics", "0.0.0.0:0"))
    try:
        node.start()
        with pytest.raises(ProcessFailed, match="can be reached from elsewhere"):
            node.await_ready()
    finally:
        node.end()


def reactor_of_a_leader() -> Any:
    """No more of it than readiness goes by."""
    replica = SimpleNamespace(
        applied_index=5, log=SimpleNamespace(free_bytes=lambda: 100), settings=SimpleNamespace(free_space_floor=50)
    )
    member = SimpleNamespace(
        leader_id=1, committed_index=5, identity=SimpleNamespace(node_id=1), is_leader=True, replica=replica
    )
    return SimpleNamespace(member=member, replica=replica)


def test_a_node_says_why_it_is_not_ready() -> None:
    reactor = reactor_of_a_leader()
    assert find_unready(reactor) == ""
    reactor.member.is_leader = False
    assert "about to lead" in find_unready(reactor)
    reactor.member.leader_id = 2
    assert find_unready(reactor) == ""
    reactor.member.committed_index += APPLY_BEHIND_ENTRIES_MAX + 1
    assert "not applied" in find_unready(reactor)
    reactor.member.committed_index = 5
    assert "disk is full" in find_unready(reactor, 49)
    reactor.member.leader_id = 0
    assert "no leader" in find_unready(reactor)
