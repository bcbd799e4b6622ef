"""`bezant top` shows every node and what it did between two looks, and goes on when a node goes away and is back."""

import fcntl
import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from bezant.cli.main import main
from bezant.cli.node_process import WRITE_SIDE_COMMAND, NodeProcess
from bezant.cli.ports import free_addresses
from bezant.cli.top_view import View, size_text, sparkline
from bezant.net.client.watching import Look
from bezant.net.gateway.cluster_bodies import cluster_body
from bezant.protocol.placement import METADATA_SHARD
from bezant.protocol.statistics import Histogram, Queue, ReaderStatistics, Statistics

from .conftest import SMALL

WAIT_S = 60
ZEROS = dict.fromkeys((field.name for field in msgspec.structs.fields(Statistics) if field.required), 0)


def statistics(**changes: Any) -> Statistics:
    return msgspec.convert(ZEROS | {"uptime_s": 5.0, "role": "leader", "node_id": 1} | changes, Statistics)


def rendered(*looks: list[Look], width: int = 220) -> str:
    view, before = View(), dict[str, Look]()
    for number, taken in enumerate(looks):
        view.add(cluster_body(f"2026-05-01T12:00:0{number}.000000000Z", taken, before))
        before = {look.address: look for look in taken}
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(view.rendered(width))
    return capture.get()


def test_a_node_and_what_it_did_between_two_looks() -> None:
    first = statistics(results={"committed": 100}, stage_s={"execute": 1.0}, waited_s={"sync": 0.5})
    later = statistics(
        uptime_s=7.0,
        results={"committed": 50_100},
        latency={"request": Histogram([0, 0, 10], 0.001)},
        queues={"batches": Queue(3, 6), "connections": Queue(9, 10)},
        stage_s={"execute": 2.0},
        waited_s={"sync": 1.5},
        loop_stall_max_ms=25.5,
        memory_bytes=300 << 20,
        processor_s=1.0,
        term=4,
    )
    looks = [Look("a:1", METADATA_SHARD, 1, at_s, told, "") for at_s, told in ((1.0, first), (3.0, later))]
    text = rendered([looks[0]], [looks[1]])
    headline, _, row, stages = text.splitlines()
    assert headline.startswith("2026-05-01T12:00:01Z  1 of 1 nodes  25,000 transfers/s  0 requests/s  █")
    assert row.split()[:6] == ["map", "1", "a:1", "leader", "4", "25,000"]
    assert "batches 50 %" in row
    assert row.split()[-7:] == ["25.5", "50", "%", "300", "MiB", "0", "B"]
    assert stages == "shard map  busy execute 50 %  waiting sync 0.50 batches"


def test_readers_are_shown_beside_their_nodes() -> None:
    zeros = dict.fromkeys((field.name for field in msgspec.structs.fields(ReaderStatistics) if field.required), 0)
    level, late = (
        msgspec.convert(zeros | {"told_sequence": 7, "projected_sequence": known}, ReaderStatistics) for known in (7, 4)
    )
    one = Look("a:1", 0, 1, 1.0, statistics(), reader="a:2", reader_statistics=level)
    looks = [
        one,
        one._replace(address="b:1", node_id=2, reader_statistics=late),
        one._replace(address="c:1", node_id=3, reader_statistics=None, reader_problem="it cannot be reached"),
        one._replace(address="d:1", node_id=4, reader="", reader_statistics=None),
    ]
    lines = rendered(looks).splitlines()
    shown = [line.split() for line in lines[2:6]]
    assert "reader" in lines[1].split()
    assert "level" in shown[0]
    assert "3" in shown[1]
    assert "gone" in shown[2]
    assert "gone" not in shown[3]
    assert any("reader of node 3 at a:2: it cannot be reached" in line for line in lines)


def test_a_node_that_is_gone_is_shown_as_such() -> None:
    text = rendered([Look("a:1", 0, 1, 1.0, statistics()), Look("b:1", 0, 2, 1.0, None, "it cannot be reached")])
    assert "1 of 2 nodes" in text
    assert any(line.split()[:4] == ["0", "2", "b:1", "gone"] for line in text.splitlines())
    assert "node 2 at b:1: it cannot be reached" in text


def test_where_there_is_no_room_columns_go_and_no_word_is_cut() -> None:
    looks = [
        Look(f"127.0.0.1:742{number}", 0, number, 1.0, statistics(role=role, node_id=number), "")
        for number, role in ((1, "leader"), (2, "follower"))
    ]
    for width in (80, 120, 200):
        text = rendered(looks, width=width)
        assert "…" not in text
        _, columns, leader, follower, *rest = text.splitlines()
        assert all(len(line) <= width for line in text.splitlines())
        assert "transfers/s" in columns
        assert "127.0.0.1:7421  leader" in leader
        assert "127.0.0.1:7422  follower" in follower
        left_out = " ".join(rest)
        assert ("no room for" in left_out) == (width < 200)
        assert ("stall ms" in columns) != ("stall ms" in left_out)


@pytest.mark.parametrize(
    ("values", "bars"), [([], ""), ([0, 0], "  "), ([0, 5, 10], " ▄█"), ([3], "█"), ([100, 1], "█ ")]
)
def test_the_line_of_the_last_minute(values: list[float], bars: str) -> None:
    assert sparkline(values) == bars


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (300 << 20, "300 MiB"),
        (3 << 40, "3.0 TiB"),
        (1 << 53, "8192.0 TiB"),
    ],
)
def test_sizes(size_bytes: int, text: str) -> None:
    assert size_text(size_bytes) == text


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    with NodeProcess(tmp_path_factory.mktemp("top") / "data", arguments=SMALL, command=WRITE_SIDE_COMMAND) as process:
        yield process


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "bezant", "top", "--period", "0.2", *words]


def test_once_prints_what_is_new(running: NodeProcess, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--connect", running.address, "--once", "--period", "0.1"]) == 0
    headline, columns, row, *_ = capsys.readouterr().out.splitlines()
    assert "1 of 1 nodes" in headline and "transfers/s" in columns
    assert row.split()[:4] == ["0", "1", running.address, "leader"]
    assert main(["top", "--connect", running.address, "--once", "--json", "--period", "0.1"]) == 0
    body = json.loads(capsys.readouterr().out)
    assert body["rates"]["transfers_per_s"] == 0


def test_lines_go_on_while_a_node_is_away(tmp_path: Path) -> None:
    (address,) = free_addresses(1)  # Which nobody is given while the node is away.
    with NodeProcess(tmp_path / "data", listen=address, arguments=SMALL, command=WRITE_SIDE_COMMAND) as node:
        words = command("--json", "--connect", node.address)
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as top:
            try:
                assert top.stdout is not None
                wanted = [True, False, True]
                end_s = time.monotonic() + WAIT_S
                for line in top.stdout:
                    (shard,) = json.loads(line)["shards"]
                    (told,) = shard["nodes"]
                    if told["reachable"] is wanted[0]:
                        wanted.pop(0)
                        if len(wanted) == 2:
                            node.kill()
                        elif len(wanted) == 1:
                            node.start()
                            node.await_ready()
                        else:
                            break
                    assert time.monotonic() < end_s
                top.send_signal(signal.SIGINT)
                assert top.wait(WAIT_S) == 0
            finally:
                top.kill()


@pytest.mark.parametrize("key", [b"q", b"\x03"])
def test_a_key_ends_it(running: NodeProcess, key: bytes) -> None:
    ours, theirs = pty.openpty()
    top = subprocess.Popen(
        command("--connect", running.address),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=control_terminal,  # noqa: PLW1509 - one system call
    )
    try:
        told, end_s = b"", time.monotonic() + WAIT_S
        while b"transfers/s" not in told:
            assert time.monotonic() < end_s, told
            if select.select([ours], [], [], 0.1)[0]:
                told += os.read(ours, 1 << 16)
        os.write(ours, key)
        while top.poll() is None:
            assert time.monotonic() < end_s
            if select.select([ours], [], [], 0.1)[0]:
                os.read(ours, 1 << 16)
        assert top.returncode == 0
    finally:
        top.kill()
        top.wait()
        os.close(ours)
        os.close(theirs)


def control_terminal() -> None:
    """In the child: its standard input is the terminal whose keys make signals."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
