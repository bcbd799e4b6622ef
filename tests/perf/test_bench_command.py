"""Claim: `bezant bench` measures a real node, on its own or at an address, and leaves neither files nor processes."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bezant.cli.main import main
from bezant.cli.node_process import LISTEN_ANYWHERE, WRITE_SIDE_COMMAND, NodeProcess
from bezant.cli.session import run_async
from bezant.perf.load.replicas import LocalReplicas, find_leader
from bezant.perf.load.report import Report
from bezant.perf.load.session import Settings, measure
from bezant.protocol.errors import UsageError

from .conftest import SMALL as SMALL_NODE

SMALL = ("--accounts", "20", "--transfers", "300")
TIMEOUT_S = 120


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["bench", *arguments, "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1
    return json.loads(lines[0])


@pytest.fixture(scope="module")
def real_node(tmp_path_factory: pytest.TempPathFactory):
    with NodeProcess(
        tmp_path_factory.mktemp("node") / "data", echo=LISTEN_ANYWHERE, arguments=SMALL_NODE, command=WRITE_SIDE_COMMAND
    ) as node:
        yield node


@pytest.mark.parametrize(
    "shape",
    [
        ("--batch", "1"),
        ("--batch", "64", "--clients", "2", "--inflight", "3", "--ids", "random"),
    ],
)
def test_transfers_on_a_node_of_its_own(tmp_path: Path, capsys, shape: tuple[str, ...]) -> None:
    fields = run_json(capsys, "transfers", *SMALL, *shape, "--directory", str(tmp_path))
    assert (fields["accepted"], fields["rejected"]) == (300, 0)
    assert fields["books_fault"] is None
    assert fields["warning"] is None or "tmpfs" in fields["warning"]
    assert fields["transfers_per_second"] > 0
    assert all(value > 0 for value in fields["latency_us"].values())
    assert all(value > 0 for value in fields["floor_us"].values())
    # An event for each transfer, and an entry's header for every so many.
    assert 192 <= fields["bytes_per_transfer"] <= 192 + 128
    assert fields["stages"]
    assert fields["kinds"] == {"plain": 300}
    assert fields["longest_step_ms"] > 0
    assert fields["memory_bytes"] > 10 << 20
    assert fields["cpu"]["node"] is not None
    assert list(tmp_path.iterdir()) == []


MIXED = ("--load", "mixed", "--accounts", "50", "--transfers", "6050", "--batch", "100")


@pytest.mark.parametrize(
    "shape", [("--inflight", "4"), ("--clients", "3", "--inflight", "2", "--ids", "random", "--ids-before", "9000")]
)
def test_a_mixed_load_on_a_node_of_its_own(tmp_path: Path, capsys, shape: tuple[str, ...]) -> None:
    fields = run_json(capsys, "transfers", *MIXED, *shape, "--directory", str(tmp_path))
    kinds = fields["kinds"]
    assert sum(kinds.values()) == fields["accepted"] + fields["rejected"] == 6050
    assert fields["books_fault"] is None
    assert fields["repeated"] == 0
    assert 0 < kinds["hold"] == kinds["capture"] <= 605
    assert kinds["chained"] == 600
    assert kinds["refused"] == fields["refused"] == fields["rejected"] == 120
    assert fields["rejected_codes"] == {"INSUFFICIENT_FUNDS": 60, "CREDIT_ACCOUNT_UNKNOWN": 60}
    assert (fields["load"], fields["zipf"]) == ("mixed", 1.1)
    assert fields["commands_per_s"] > fields["transfers_per_second"] > 0
    assert fields["longest_step_ms"] > 0
    assert fields["memory_bytes"] > 10 << 20
    assert fields["warning"] is None or "tmpfs" in fields["warning"]
    # An event of 192 bytes for each command, and no more than an entry's header for every frame.
    assert fields["bytes_on_disk"] <= 6050 * 192 + 61 * 128 + (64 << 10)


def test_a_mixed_load_can_follow_another_on_the_same_node(real_node, capsys) -> None:
    for _ in range(2):
        fields = run_json(capsys, "transfers", *MIXED, "--connect", real_node.address)
        assert fields["books_fault"] is None
        assert fields["refused"] == fields["rejected"] == 120
        assert fields["memory_bytes"] is None


def test_the_same_mixed_load_again_is_told_to_be_a_repeat(real_node, capsys) -> None:
    arguments = ("transfers", *MIXED, "--connect", real_node.address, "--ids", "random", "--seed", "78")
    assert run_json(capsys, *arguments)["repeated"] == 0
    assert main(["bench", *arguments, "--json"]) == 1
    assert "as a repeat, not" in capsys.readouterr().err


def test_sdk_on_a_node_of_its_own(tmp_path: Path, capsys) -> None:
    fields = run_json(capsys, "sdk", *SMALL, "--concurrency", "50", "--directory", str(tmp_path))
    assert (fields["accepted"], fields["rejected"], fields["unknown"], fields["concurrency"]) == (300, 0, 0, 50)
    assert fields["books_fault"] is None
    assert fields["floor_us"]["echo_p50"] > 0
    assert list(tmp_path.iterdir()) == []


def test_transfers_on_three_replicas(tmp_path: Path, capsys) -> None:
    fields = run_json(
        capsys, "transfers", *SMALL, "--batch", "10", "--inflight", "2", "--replicas", "3", "--directory", str(tmp_path)
    )
    assert (fields["accepted"], fields["rejected"], fields["replicas"]) == (300, 0, 3)
    assert fields["books_fault"] is None
    assert fields["warning"] is None or "tmpfs" in fields["warning"]
    assert set(fields["replica_cpu_s"]) == {"1", "2", "3"}
    assert fields["replicas_level"] is True
    assert [replica["leader"] for replica in fields["replica_reports"]].count(True) == 1
    assert len({(replica["entries"], replica["state_digest"]) for replica in fields["replica_reports"]}) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_leader_of_a_group_is_found_by_way_of_any_node(tmp_path: Path) -> None:
    with LocalReplicas(tmp_path, 3) as group:
        addresses = [node.address for node in group.nodes.values()]
        for order in (addresses, addresses[::-1], addresses[:1], ["127.0.0.1:1", addresses[2]]):
            assert run_async(find_leader(",".join(order))) == group.leader_address


def test_a_node_at_an_address_can_be_measured_again_and_again(real_node, tmp_path: Path, capsys) -> None:
    seeds = set()
    for ids in ("random", "random", "time"):
        arguments = ("--connect", real_node.address, "--ids", ids, "--batch", "10", *SMALL)
        fields = run_json(capsys, "transfers", *arguments)
        assert (fields["accepted"], fields["repeated"], fields["warning"]) == (300, 0, None)
        assert fields["floor_us"] == {"echo_p50": None, "sync_p50": None}
        assert fields["bytes_per_transfer"] >= 192
        seeds.add(fields["seed"])
    assert len(seeds) == 3
    arguments = ("--connect", real_node.address, "--echo", real_node.echo, "--directory", str(tmp_path), *SMALL)
    fields = run_json(capsys, "transfers", *arguments)
    assert all(value > 0 for value in fields["floor_us"].values())


def test_the_same_random_ids_again_are_repeats_and_said_to_be(real_node, capsys) -> None:
    arguments = ("transfers", *SMALL, "--connect", real_node.address, "--ids", "random", "--seed", "77")
    assert run_json(capsys, *arguments)["warning"] is None
    again = run_json(capsys, *arguments)
    assert again["repeated"] == again["accepted"] == 300
    assert "repeats" in again["warning"]
    assert again["books_fault"] is None


def test_without_json_there_is_a_table(real_node, capsys) -> None:
    assert main(["bench", "transfers", *SMALL, "--connect", real_node.address]) == 0
    text = capsys.readouterr().out
    assert "transfers/s" in text
    assert "agree with every answer" in text


def test_books_that_disagree_fail_the_command(start_fake_node, capsys) -> None:
    node = start_fake_node("--fault", "lose")
    assert main(["bench", "transfers", *SMALL, "--connect", node.address, "--json"]) == 1
    captured = capsys.readouterr()
    assert "300 transfers" in json.loads(captured.out)["books_fault"]
    assert "contradict" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("transfers", "--batch", "0"), "--batch is 1 to 8191"),
        (("transfers", "--batch", "8192"), "--batch is 1 to 8191"),
        (("transfers", "--accounts", "1"), "--accounts is 2"),
        (("transfers", "--transfers", "0"), "--transfers is 1"),
        (("transfers", "--clients", "0"), "--clients is 1"),
        (("transfers", "--inflight", "-1"), "--inflight is 1"),
        (("transfers", "--seed", "-1"), "--seed is 0"),
        (("transfers", "--zipf", "-0.1"), "--zipf is 0"),
        (("transfers", "--zipf", "nan"), "--zipf is 0"),
        (("transfers", "--ids-before", "-1"), "--ids-before is 0"),
        (("transfers", "--load", "mixed", "--batch", "7"), "--batch of 8 or more"),
        (("transfers", "--load", "mixed", "--transfers", "40944"), "takes 40945 --transfers or more"),
        (("transfers", "--echo", "127.0.0.1:1"), "--connect"),
        (("transfers", "--replicas", "0"), "--replicas is 1 to 15"),
        (("transfers", "--replicas", "3", "--connect", "127.0.0.1:1"), "--replicas is for nodes that are started"),
        (("transfers", "--directory", "/nowhere"), "not a folder"),
        (("transfers", "--inflight", "1000", "--transfers", "100000000"), "lower --clients"),
        (("sdk", "--concurrency", "0"), "--concurrency is 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(capsys, arguments: tuple[str, ...], words: str) -> None:
    assert main(["bench", *arguments, "--json"]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_nobody_at_the_address_is_told(capsys) -> None:
    assert main(["bench", "transfers", *SMALL, "--connect", "127.0.0.1:1"]) == 1
    assert "no connection" in capsys.readouterr().err


def test_a_node_that_dies_under_load_is_told(tmp_path: Path, fake_node_command) -> None:
    command = (*fake_node_command, "--fault", "die", "--fault-after", "100")
    settings = Settings(kind="transfers", accounts=10, transfers=300, directory=tmp_path, node_command=command)
    with pytest.raises(Exception, match=r"the node ended early \(status 9\); the load: the node closed connection"):
        measure(settings, lambda _done: None)
    assert list(tmp_path.iterdir()) == []


def test_progress_and_settings_reach_the_report(tmp_path: Path, fake_node_command) -> None:
    told: list[int] = []
    settings = Settings(
        kind="transfers", accounts=10, transfers=300, directory=tmp_path, node_command=fake_node_command, seed=5
    )
    report: Report = measure(settings, told.append)
    assert told[-1] == 300
    assert report.settings["seed"] == 5


def test_settings_are_checked_without_a_command_line() -> None:
    with pytest.raises(UsageError, match="accounts"):
        measure(Settings(kind="transfers", accounts=0, transfers=1), lambda _done: None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_ends_it_and_leaves_no_process(tmp_path: Path, number: int) -> None:
    command = [sys.executable, "-m", "bezant", "bench", "transfers", "--transfers", "1000000000", "--json"]
    command += ["--directory", str(tmp_path), "--batch", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as bench:
        try:
            node, load = wait_for_node_and_load(bench.pid)
            bench.send_signal(number)
            bench.wait(TIMEOUT_S)
        finally:
            bench.kill()
    assert bench.returncode != 0
    for descriptor in (node, load):
        with os.fdopen(descriptor):
            ends = select.poll()
            ends.register(descriptor, select.POLLIN)
            assert ends.poll(1e3 * TIMEOUT_S), "a process of the bench goes on"
    if number != signal.SIGKILL:
        assert list(tmp_path.iterdir()) == []


def wait_for_node_and_load(process_id: int) -> tuple[int, int]:
    """Descriptors of the children of a bench, which become readable when they end, once both run their programs."""
    listing = Path(f"/proc/{process_id}/task/{process_id}/children")
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        os.sched_yield()
        children = listing.read_text().split()
        if len(children) == 2 and b"generator" in Path(f"/proc/{children[1]}/cmdline").read_bytes():
            return os.pidfd_open(int(children[0])), os.pidfd_open(int(children[1]))
    raise TimeoutError("the bench has not started its node and its load")
