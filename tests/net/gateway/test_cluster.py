"""Claim: the gateway tells what its nodes tell of themselves, once and as a stream, and of those that are gone."""

import json
import time
from typing import Any

import msgspec
import pytest

from bezant.net.client.quantiles import between, merged, quantile_ms
from bezant.net.client.watching import ClusterWatch, Look
from bezant.net.gateway import cluster
from bezant.net.gateway.cluster import FRESH_S, Cluster
from bezant.net.gateway.cluster_bodies import cluster_body
from bezant.net.gateway.problems import ProblemRaised
from bezant.protocol.statistics import LATENCY_BOUNDS_NS, Histogram, ReaderStatistics, Statistics

from .conftest import WORLD, Bank

ZEROS = dict.fromkeys((field.name for field in msgspec.structs.fields(Statistics) if field.required), 0)


READER_ZEROS = dict.fromkeys((field.name for field in msgspec.structs.fields(ReaderStatistics) if field.required), 0)


def reader_statistics(**changes: Any) -> ReaderStatistics:
    return msgspec.convert(READER_ZEROS | changes, ReaderStatistics)


def statistics(**changes: Any) -> Statistics:
    return msgspec.convert(ZEROS | {"uptime_s": 5.0} | changes, Statistics)


def look(told: Statistics | None, *, at_s: float = 10.0, address: str = "a:1", node_id: int = 1) -> Look:
    return Look(address, 0, node_id, at_s, told, "" if told is not None else "it is gone")


def test_rates_and_quantiles_are_of_the_time_between_two_looks() -> None:
    slow = Histogram([100, 0, 0, 3], 1.0)
    before = statistics(results={"committed": 100}, requests={"commands": 10, "ping": 1}, latency={"request": slow})
    after = statistics(
        uptime_s=7.0,
        role="leader",
        node_id=1,
        events=30,
        processor_s=1.5,
        results={"committed": 300, "refused": 4},
        requests={"commands": 14, "ping": 3},
        latency={"request": Histogram([100, 0, 0, 3, 7], 2.0)},
    )
    body = cluster_body("now", [look(after, at_s=12.0)], {"a:1": look(before)})
    (shard,) = body.shards
    (node,) = shard.nodes
    assert (shard.leader, node.reachable, node.problem) == (1, True, "")
    assert node.numbers is not None and node.numbers.rates is not None
    assert msgspec.structs.astuple(node.numbers.rates) == (100.0, 3.0, 15.0, 0.75)
    assert (node.numbers.transfers_total, node.numbers.refused_total, node.numbers.requests_total) == (300, 4, 17)
    latency = node.numbers.latency["request"]
    assert latency.recent == 7
    assert latency.p50_ms is not None
    assert LATENCY_BOUNDS_NS[3] <= latency.p50_ms * 1e6 <= LATENCY_BOUNDS_NS[4]
    assert body.transfers_total == 300


def test_a_node_that_was_started_again_has_no_rates_yet() -> None:
    body = cluster_body("now", [look(statistics(uptime_s=1.0), at_s=12.0)], {"a:1": look(statistics(uptime_s=9.0))})
    assert body.rates is None


def test_readers_are_told_of_beside_their_nodes() -> None:
    behind = reader_statistics(published_index=9, followed_index=7, told_sequence=5, projected_sequence=1)
    looks = [
        look(statistics(node_id=1))._replace(reader="a:2", reader_statistics=behind, reader_problem="it has no room"),
        look(statistics(node_id=2), address="b:1", node_id=2)._replace(reader="b:2", reader_problem="refused"),
        look(statistics(node_id=3), address="c:1", node_id=3),
        look(None, address="d:1", node_id=4)._replace(reader="d:2"),
    ]
    (shard,) = cluster_body("now", looks, {}).shards
    first, gone, none, unreachable = (node.reader for node in shard.nodes)
    assert first is not None and gone is not None
    assert (first.address, first.behind_entries, first.history_behind_events, first.problem) == (
        *("a:2", 2, 4),
        "it has no room",
    )
    assert (gone.address, gone.behind_entries, gone.problem) == ("b:2", None, "refused")
    assert none is unreachable is None


def test_a_node_that_is_gone_is_told_of_beside_its_leader() -> None:
    leader = statistics(role="leader", node_id=1, term=4, entries=9, durable_index=9)
    follower = statistics(role="follower", node_id=2, term=4, entries=7, durable_index=6)
    looks = [look(leader), look(follower, address="b:1", node_id=2), look(None, address="c:1", node_id=3)]
    (shard,) = cluster_body("now", looks, {}).shards
    assert (shard.leader, shard.term) == (1, 4)
    behind = [None if node.numbers is None else node.numbers.behind_entries for node in shard.nodes]
    assert behind == [0, 3, None]
    assert [(node.reachable, node.problem) for node in shard.nodes][2] == (False, "it is gone")


@pytest.mark.parametrize(
    ("counts", "share", "low_ns", "high_ns"),
    [
        ([0, 0, 1], 0.5, LATENCY_BOUNDS_NS[1], LATENCY_BOUNDS_NS[2]),
        ([99, 0, 1], 0.99, 0, LATENCY_BOUNDS_NS[0]),
        ([98, 0, 2], 0.99, LATENCY_BOUNDS_NS[1], LATENCY_BOUNDS_NS[2]),
        ([0] * 40 + [5], 0.5, LATENCY_BOUNDS_NS[-1], LATENCY_BOUNDS_NS[-1]),
    ],
)
def test_quantiles_lie_in_the_class_of_the_time(counts: list[int], share: float, low_ns: int, high_ns: int) -> None:
    found = quantile_ms(Histogram(counts), share)
    assert found is not None and low_ns <= found * 1e6 <= high_ns


def test_histograms_are_subtracted_and_added_class_by_class() -> None:
    assert quantile_ms(Histogram([]), 0.5) is None
    assert between(Histogram([1, 2], 1.0), Histogram([1, 3, 4], 3.0)) == Histogram([0, 1, 4], 2.0)
    assert between(Histogram([5], 1.0), Histogram([1, 3], 3.0)) == Histogram([1, 3], 3.0)
    assert merged(Histogram([1, 2], 1.0), Histogram([1, 2, 3], 2.0)) == Histogram([2, 4, 3], 3.0)


def test_the_node_behind_the_gateway_is_told_of(bank: Bank) -> None:
    account = bank.account("told")
    time.sleep(FRESH_S)
    before = bank.client.get("/v1/cluster").json()
    time.sleep(FRESH_S)
    assert bank.transfer(WORLD, account, "1.00").status_code == 200
    assert bank.transfer(account, WORLD, "2.00").status_code == 422
    answer = bank.client.get("/v1/cluster")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    after = answer.json()
    assert after["transfers_total"] == before["transfers_total"] + 1
    assert after["rates"]["transfers_per_s"] > 0
    (shard,) = after["shards"]
    (node,) = shard["nodes"]
    numbers = node["numbers"]
    assert (node["reachable"], node["problem"], shard["shard"]) == (True, "", 0)
    assert (numbers["role"], shard["leader"]) == ("leader", node["node"])
    assert numbers["refused_total"] == before["shards"][0]["nodes"][0]["numbers"]["refused_total"] + 1
    for name in ("request", "commit", "sync", "execute"):
        assert numbers["latency"][name]["recent"] >= 2, name
        assert 0 < numbers["latency"][name]["p50_ms"] <= numbers["latency"][name]["p99_ms"]
    assert numbers["latency"]["loop"]["recent"] > 0
    assert 0 < numbers["commit_index"] <= numbers["last_index"]
    assert numbers["memory_bytes"] > 1 << 20
    reader, end_s = node["reader"], time.monotonic() + 10
    while reader["behind_entries"] != 0 and time.monotonic() < end_s:  # It follows without being woken.
        time.sleep(FRESH_S)
        reader = bank.client.get("/v1/cluster").json()["shards"][0]["nodes"][0]["reader"]
    assert (reader["problem"], reader["behind_entries"]) == ("", 0)
    assert reader["address"] != node["address"]
    assert reader["memory_bytes"] > 1 << 20
    asked = bank.client.get("/v1/totals")
    assert asked.status_code == 200
    time.sleep(FRESH_S)
    later = bank.client.get("/v1/cluster").json()["shards"][0]["nodes"][0]["reader"]
    assert later["queries_total"] > reader["queries_total"]
    assert after["latency_bounds_s"] == [bound / 1e9 for bound in LATENCY_BOUNDS_NS]


def test_a_stream_tells_it_every_second(bank: Bank) -> None:
    bodies: list[dict[str, Any]] = []
    with bank.client.stream("GET", "/v1/cluster/stream", timeout=10) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data: "):
                bodies.append(json.loads(line.removeprefix("data: ")))
                if len(bodies) == 2:
                    break
    first, second = bodies
    assert first["time"] < second["time"]
    assert second["rates"]["transfers_per_s"] >= 0


async def test_streams_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "LISTENERS_MAX", 4)
    nodes = Cluster(ClusterWatch("127.0.0.1:1"))

    def status(client: str) -> int:
        """Of the refusal."""
        with pytest.raises(ProblemRaised) as refused:
            nodes.enter(client)
        return refused.value.problem.status

    for _ in range(2):
        nodes.enter("ann")
    assert status("ann") == 429, "nobody keeps all others out"
    for client in ("bob", "eve"):
        nodes.enter(client)
    assert status("bob") == status("ann") == status("somebody else") == 503
    nodes.leave("ann")
    nodes.enter("ann")
    await nodes.close()


async def test_nodes_that_nobody_has_seen_are_told_of() -> None:
    nodes = Cluster(ClusterWatch("127.0.0.1:1"))
    (shard,) = (await nodes.latest()).shards
    assert (shard.shard, shard.leader) == (None, None)
    (node,) = shard.nodes
    assert (node.address, node.reachable, node.numbers) == ("127.0.0.1:1", False, None)
    assert "cannot be reached" in node.problem
    await nodes.close()
