"""`bezant cluster` initialises a group once, keeps its nodes running, and stops them with the leader last."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bezant.cli import watched_nodes
from bezant.cli.errors import CommandFailed, InputWrong
from bezant.cli.local_cluster import LocalCluster, init_cluster, missing_nodes, needs_init, node_files, node_folder
from bezant.cli.main import main
from bezant.cli.node_process import ProcessFailed
from bezant.engine.log.storage import FolderLock
from bezant.engine.node_file import joining_node, log_id_of, write_node_file

FAKE_MEMBER = (sys.executable, str(Path(__file__).with_name("fake_member.py")))
LONG_S = 60.0

Told = list[dict[str, Any]]


# ---- first use ----


def test_a_group_is_initialised_with_two_ports_a_node(tmp_path: Path) -> None:
    assert needs_init(tmp_path)
    init_cluster(tmp_path, 3, 9000)
    nodes = node_files(tmp_path)
    assert [node.client_address for node in nodes.values()] == ["127.0.0.1:9000", "127.0.0.1:9002", "127.0.0.1:9004"]
    assert [node.peer_address for node in nodes.values()] == ["127.0.0.1:9001", "127.0.0.1:9003", "127.0.0.1:9005"]
    assert len({log_id_of(node, 0) for node in nodes.values()}) == 1
    assert not needs_init(tmp_path)


def test_any_free_ports_can_be_taken(tmp_path: Path) -> None:
    init_cluster(tmp_path, 3, 0)
    nodes = node_files(tmp_path).values()
    assert len({address for node in nodes for address in (node.client_address, node.peer_address)}) == 6


@pytest.mark.parametrize(
    ("count", "base_port", "why"),
    [(0, 0, "1 to 15 nodes, not 0"), (16, 0, "1 to 15 nodes, not 16"), (3, 65_531, "3 nodes need 6 ports from 65531")],
)
def test_what_cannot_be_is_told(tmp_path: Path, count: int, base_port: int, why: str) -> None:
    with pytest.raises(InputWrong, match=why):
        init_cluster(tmp_path / "deep", count, base_port)
    assert not (tmp_path / "deep").exists()


def test_the_last_port_there_is_can_be_used(tmp_path: Path) -> None:
    init_cluster(tmp_path, 3, 65_530)
    assert node_files(tmp_path)[3].peer_address == "127.0.0.1:65535"


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_what_a_crash_left_half_made_is_finished(tmp_path: Path, lost: int) -> None:
    init_cluster(tmp_path, 3, 9000)
    before = node_files(tmp_path)
    shutil.rmtree(node_folder(tmp_path, lost))
    assert needs_init(tmp_path)
    init_cluster(tmp_path, 5, 100)
    after = node_files(tmp_path)
    assert {number: node.members for number, node in after.items()} == {
        number: node.members for number, node in before.items()
    }


def test_a_disk_that_was_lost_is_not_made_again_as_if_nothing_had_been_on_it(tmp_path: Path) -> None:
    """It would be taken for the disk that voted and acknowledged, and has forgotten both."""
    init_cluster(tmp_path, 3, 9000)
    (node_folder(tmp_path, 1) / "shard-0000").mkdir()
    shutil.rmtree(node_folder(tmp_path, 2))
    assert not needs_init(tmp_path)
    assert missing_nodes(node_files(tmp_path)) == [2]


def test_a_node_that_joined_later_belongs_to_it(tmp_path: Path) -> None:
    init_cluster(tmp_path, 1, 9000)
    joining = joining_node(4, ["127.0.0.1:9000"], peer_address="127.0.0.1:9011", client_address="127.0.0.1:9010")
    write_node_file(node_folder(tmp_path, 4), joining)
    assert list(node_files(tmp_path)) == [1, 4]
    assert not needs_init(tmp_path)


def test_a_folder_of_another_node_is_told(tmp_path: Path) -> None:
    init_cluster(tmp_path, 3, 9000)
    node_folder(tmp_path, 3).rename(tmp_path / "node-7")
    with pytest.raises(InputWrong, match="node-7 belongs to node 3"):
        node_files(tmp_path)


# ---- the processes ----


class Running:
    """A cluster of fake nodes, and what it said."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.told: Told = []
        self.words: list[str] = []
        init_cluster(folder, 3, 0)
        (folder / "leader").write_text("2")
        self.cluster = LocalCluster(folder, self._say, command=FAKE_MEMBER)

    def _say(self, words: str, fields: dict[str, Any]) -> None:
        self.words.append(words)
        self.told.append(fields)

    def events(self, name: str) -> Told:
        return [fields for fields in self.told if fields["event"] == name]

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONG_S):
            while not is_so():
                await asyncio.sleep(0.01)


@pytest.fixture
def running(tmp_path: Path) -> Running:
    return Running(tmp_path)


async def test_it_starts_finds_the_leader_and_stops_it_last(running: Running) -> None:
    async with running.cluster as cluster:
        assert [fields["node"] for fields in running.told] == [1, 2, 3]
        for number, node in cluster.nodes.items():
            assert node.address == cluster.files[number].client_address
            assert running.words[number - 1] == (
                f"node {number}: {node.address}, process {node.process_id}, {node_folder(running.folder, number)}"
            )
        assert (await cluster.await_leader()).leader == 2
        await cluster.stop()
        assert all(node.status == 0 for node in cluster.nodes.values())
    stops = (running.folder / "stops").read_text().split()
    assert sorted(stops) == ["1", "2", "3"]
    assert stops[-1] == "2"


async def test_a_group_without_leader_is_not_ready(running: Running) -> None:
    (running.folder / "leader").write_text("0")
    async with running.cluster as cluster:
        with pytest.raises(CommandFailed, match=r"no leader within 0.3 s: node \d knows of no leader"):
            await cluster.await_leader(0.3)
        await cluster.stop()


async def test_a_node_that_does_not_start_is_told_and_nothing_is_left(running: Running) -> None:
    (running.folder / "fails-3").touch()
    with pytest.raises(ProcessFailed, match="node 3 ended with status 1 before it listened; it wrote: it was told to"):
        async with running.cluster:
            pass
    assert all(node.ended for node in running.cluster.nodes.values())


async def test_a_node_that_dies_is_started_again_where_it_was(running: Running, monkeypatch) -> None:
    monkeypatch.setattr(watched_nodes, "RESTART_DELAY_S", 0.01)
    stopping = asyncio.Event()
    async with running.cluster as cluster:
        watching = asyncio.create_task(cluster.watch(stopping))
        before = cluster.nodes[3].process_id
        os.kill(before, signal.SIGKILL)
        await running.until(lambda: bool(running.events("started")))
        await cluster.nodes[3].ready()
        assert cluster.nodes[3].process_id != before
        assert cluster.nodes[3].address == cluster.files[3].client_address
        assert running.events("ended") == [{"event": "ended", "node": 3, "status": -9, "again": True}]
        assert running.events("started")[0]["node"] == 3
        stopping.set()
        await watching
        await cluster.stop()


async def test_a_node_that_cannot_be_kept_running_is_left_alone(running: Running, monkeypatch) -> None:
    monkeypatch.setattr(watched_nodes, "RESTART_DELAY_S", 0.0)
    stopping = asyncio.Event()
    async with running.cluster as cluster:
        watching = asyncio.create_task(cluster.watch(stopping))
        (running.folder / "fails-3").touch()
        cluster.nodes[3].kill()
        await running.until(lambda: not running.told[-1].get("again", True))
        assert len(running.events("started")) == watched_nodes.RESTARTS_MAX
        assert running.words[-1] == (
            "node 3 ended early (status 1): it was told to fail; it was started again 5 times within 60 s, and is left"
            " alone"
        )
        assert not cluster.nodes[1].ended
        stopping.set()
        await watching
        await cluster.stop()


async def test_without_any_node_it_gives_up(running: Running, monkeypatch) -> None:
    monkeypatch.setattr(watched_nodes, "RESTARTS_MAX", 0)
    async with running.cluster as cluster:
        for node in cluster.nodes.values():
            node.kill()
        with pytest.raises(CommandFailed, match="no node can be kept running"):
            await cluster.watch(asyncio.Event())


# ---- the command ----

COMMAND = f"""
import sys
from bezant.cli import local_cluster, watched_nodes
from bezant.cli.main import main
local_cluster.LocalCluster.__init__.__kwdefaults__["command"] = {FAKE_MEMBER!r}
local_cluster.warm_kernels_once = lambda: None
sys.exit(main(sys.argv[1:]))
"""


def start_command(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", COMMAND, "cluster", "--data", str(folder), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_runs_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "leader").write_text("1")
    with start_command(tmp_path, "--base-port", "0", "--nodes", "2") as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        process.send_signal(number)
        out, err = process.communicate(timeout=LONG_S)
        assert process.returncode == 0, err
    addresses = [node.client_address for node in node_files(tmp_path).values()]
    assert lines[0].startswith(f"node 1: {addresses[0]}, process ")
    assert lines[2] == f"cluster ready: {','.join(addresses)}\n"
    assert out == ""
    assert err.splitlines() == [
        "bezant: 2 voters survive the loss of 0, no more than 1 would: use an odd number",
        "bezant: the group is initialised; compiling the kernels, unless they are compiled already",
        "bezant: stopping the nodes, the leader last",
    ]
    assert (tmp_path / "stops").read_text().split() == ["2", "1"]


def test_as_json_it_tells_programs_and_what_was_there_is_used_again(tmp_path: Path) -> None:
    (tmp_path / "leader").write_text("1")
    init_cluster(tmp_path, 3, 0)
    shutil.rmtree(node_folder(tmp_path, 3))
    (node_folder(tmp_path, 1) / "shard-0000").mkdir()
    addresses = [node.client_address for node in node_files(tmp_path).values()]
    with start_command(tmp_path, "--json", "--nodes", "5") as process:
        assert process.stdout is not None
        told = [json.loads(process.stdout.readline()) for _ in range(3)]
        second = start_command(tmp_path)
        _, err = second.communicate(timeout=LONG_S)
        assert f"{tmp_path} is in use by process {process.pid}" in err
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=LONG_S)
        assert process.returncode == 0, err
    assert [fields["event"] for fields in told] == ["node", "node", "ready"]
    assert [fields["address"] for fields in told[:2]] == addresses
    assert told[2] == {"event": "ready", "addresses": addresses, "leader": 1}
    assert f"{tmp_path} is initialised already: --shards, --nodes, --placement and --base-port mean nothing now" in err
    assert f"node 3 has no folder in {tmp_path} and is not started; if its disk is lost, run bezant init --join" in err


def test_it_can_be_stopped_before_it_is_ready(tmp_path: Path) -> None:
    (tmp_path / "leader").write_text("0")
    with start_command(tmp_path, "--base-port", "0") as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=LONG_S)
        assert process.returncode == 0, err


@pytest.mark.parametrize("line", ["--nodes 0", "--base-port -1", "--base-port 65536", "--base-port x"])
def test_a_wrong_line_ends_with_usage(tmp_path: Path, line: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["cluster", "--data", str(tmp_path / "data"), *line.split()])
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: bezant cluster")


def test_one_folder_is_used_by_one_cluster(tmp_path: Path, capsys) -> None:
    lock = FolderLock(tmp_path)
    try:
        assert main(["cluster", "--data", str(tmp_path), "--base-port", "0"]) == 1
    finally:
        lock.release()
    assert "is in use by process" in capsys.readouterr().err
    assert node_files(tmp_path) == {}
