"""Claim: the report says what was measured, in JSON and as a table, and warns of what would flatter it."""

import json
from io import StringIO

import msgspec
import pytest
from rich.console import Console

from bezant.perf.load.plan import LoadOutcome, LoadPlan
from bezant.perf.load.report import ReplicaReport, Report, Surroundings, make_report, make_table
from bezant.protocol.statistics import Statistics

PLAN = LoadPlan(address="", transfers=1000, accounts=10)
ON_DISK = Surroundings(
    file_system="ext4", on_memory=False, sync_p50_us={"direct": 70.0, "mmap": 90.0}, memory_bytes=1 << 30
)
SETTINGS = {"accounts": 10, "transfers": 1000, "batch": 1, "clients": 1, "inflight": 1, "ids": "time", "seed": 1}


def statistics(**changes: object) -> Statistics:
    counters = dict.fromkeys((field.name for field in msgspec.structs.fields(Statistics) if field.required), 0)
    return msgspec.convert(counters | {"durable": True, "replicas": 1, "stage_s": {}} | changes, Statistics)


BEFORE = statistics(syncs=3, entries=2, stage_s={"execute_busy": 1.0})
AFTER = statistics(syncs=13, entries=22, loop_stall_recent_ms=12.5, stage_s={"execute_busy": 1.5, "sync_wait": 0.25})
OUTCOME = LoadOutcome(
    seconds=0.5,
    accepted=1000,
    rejected=0,
    unknown=0,
    repeated=0,
    rejected_codes={},
    latency_us={"p50": 150.0, "p90": 200.0, "p99": 300.0, "p999": 400.0, "max": 12_345.6},
    echo_p50_us=30.0,
    load_cpu_seconds=0.1,
    node_cpu_seconds=0.4,
    bytes_on_disk=200_000,
    books_fault=None,
    kernel_digest="abc",
    statistics_before=BEFORE,
    statistics_after=AFTER,
    kinds={"plain": 1000},
)


def report(surroundings: Surroundings = ON_DISK, **changes: object) -> Report:
    return make_report(PLAN, msgspec.structs.replace(OUTCOME, **changes), surroundings, SETTINGS)


def test_the_json_has_what_was_promised() -> None:
    fields = json.loads(json.dumps(report().as_json()))
    assert fields["transfers_per_second"] == 2000
    assert (fields["accepted"], fields["rejected"], fields["replicas"]) == (1000, 0, 1)
    assert fields["durable"] is True
    assert set(fields["latency_us"]) == {"p50", "p90", "p99", "p999", "max"}
    assert fields["floor_us"] == {"echo_p50": 30.0, "sync_p50": 70.0}
    assert (fields["bytes_on_disk"], fields["bytes_per_transfer"]) == (200_000, 200.0)
    assert fields["stages"] == {"execute_busy": 0.5, "sync_wait": 0.25}
    assert fields["cpu"] == {"load": 0.2, "node": 0.8}
    assert (fields["entries"], fields["syncs"]) == (20, 10)
    assert set(fields["versions"]) == {"python", "bezant", "kernel_digest"}
    assert SETTINGS.items() <= fields.items()
    assert fields["warning"] is None
    assert (fields["commands_per_s"], fields["refused"], fields["kinds"]) == (2000, 0, {"plain": 1000})
    assert (fields["longest_step_ms"], fields["memory_bytes"]) == (12.5, 1 << 30)


def test_refusals_that_were_meant_are_no_reason_to_warn() -> None:
    told = report(accepted=980, rejected=20, refused=20)
    assert told.warning is None
    assert (told.transfers_per_second, told.commands_per_s) == (1960, 2000)
    assert "only 98.98 %" in str(report(accepted=970, rejected=30, refused=20).warning)


def replica(node: int, **changes: object) -> ReplicaReport:
    return msgspec.structs.replace(
        ReplicaReport(node=node, leader=node == 1, cpu_s=0.5, entries=7, chain_hash="c", state_digest="d"), **changes
    )


@pytest.mark.parametrize(
    ("other", "level"),
    [
        ({}, True),
        ({"state_digest": "x"}, False),
        ({"chain_hash": "x"}, False),
        ({"entries": 8}, False),
        ({"entries": None, "chain_hash": None, "state_digest": None}, None),
    ],
)
def test_replicas_are_level_if_they_end_with_the_same(other: dict[str, object], level: bool | None) -> None:
    told = make_report(PLAN, OUTCOME, ON_DISK, SETTINGS, [replica(1), replica(2, **other)])
    assert told.replicas_level is level
    assert told.replica_cpu_s == {"1": 0.5, "2": 0.5}
    assert (told.warning is not None) is (level is False)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"accepted": 989, "rejected": 11}, "only 98.90 %"),
        ({"repeated": 5}, "5 results are repeats"),
        ({"books_fault": "the books are wrong"}, "the books are wrong"),
        ({"warnings": ["too many bytes"]}, "too many bytes"),
        ({"statistics_after": statistics(durable=False)}, "not durable"),
    ],
)
def test_what_would_flatter_is_warned_of(changes: dict[str, object], words: str) -> None:
    assert words in report(**changes).warning


def test_99_percent_are_enough() -> None:
    assert report(accepted=990, rejected=10).warning is None


def test_memory_is_not_durable_whatever_the_node_says() -> None:
    on_memory = msgspec.structs.replace(ON_DISK, file_system="tmpfs", on_memory=True)
    assert report(on_memory).durable is False
    assert "tmpfs" in report(on_memory).warning


def test_what_was_not_measured_is_null() -> None:
    nothing = Surroundings(file_system=None, on_memory=False, sync_p50_us={})
    none = dict.fromkeys(("p50", "p90", "p99", "p999", "max"))
    fields = report(nothing, echo_p50_us=None, node_cpu_seconds=None, accepted=0, latency_us=none).as_json()
    assert fields["floor_us"] == {"echo_p50": None, "sync_p50": None}
    assert fields["bytes_per_transfer"] is None
    assert fields["cpu"]["node"] is None


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rejected_codes": {"INSUFFICIENT_FUNDS": 20}, "accepted": 980},
        {"rejected_codes": {"INSUFFICIENT_FUNDS": 20}, "accepted": 980, "refused": 20, "kinds": {"refused": 20}},
        {"echo_p50_us": None, "accepted": 0, "latency_us": dict.fromkeys(("p50", "max"))},
    ],
)
def test_the_table_holds_the_same(changes: dict[str, object]) -> None:
    console = Console(width=200, file=StringIO())
    told = report(**changes)
    with console.capture() as capture:
        console.print(make_table(told))
    text = capture.get()
    assert f"{told.transfers_per_second:,.0f}" in text
    assert ("WARNING" in text) == (told.warning is not None)
    assert ("INSUFFICIENT_FUNDS" in text) == bool(told.rejected_codes)
    assert ("commands/s" in text) == bool(told.refused)
    assert "1,073,741,824 bytes of memory, longest step of its loop" in text
    assert "1.50 of their sum" in text or told.floor_us["echo_p50"] is None
