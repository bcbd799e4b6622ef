"""A fake node for the load generators, in a process of its own, and rings of frames to try kernels on."""

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from bezant.cli import node_process
from bezant.cli.node_process import LISTEN_ANYWHERE, NodeProcess
from bezant.perf.load import floor
from bezant.perf.load.books import LoadAccounts
from bezant.perf.load.ring import FrameRing

FAKE_NODE = (sys.executable, str(Path(__file__).with_name("fake_node.py")), "serve")

SMALL = ("--segment-size-mib", "8", "--ids-memory-mib", "64")

StartNode = Callable[..., NodeProcess]
MakeRing = Callable[..., FrameRing]


@pytest.fixture
def fake_node_command() -> tuple[str, ...]:
    """What to run instead of `bezant serve`."""
    return FAKE_NODE


@pytest.fixture
def start_fake_node(tmp_path: Path) -> Iterator[StartNode]:
    """Start a fake node with the arguments given; it is stopped after the test."""
    started: list[NodeProcess] = []

    def start(*arguments: str) -> NodeProcess:
        node = NodeProcess(tmp_path / "data", echo=LISTEN_ANYWHERE, command=(*FAKE_NODE, *arguments))
        started.append(node)
        return node.__enter__()

    yield start
    for node in started:
        node.end()


@pytest.fixture(scope="session")
def good_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    """A fake node without a fault, for all tests that read its counters only as differences."""
    with NodeProcess(tmp_path_factory.mktemp("good") / "data", echo=LISTEN_ANYWHERE, command=FAKE_NODE) as node:
        yield node


@pytest.fixture(autouse=True)
def short_floor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the floor a few times only."""
    monkeypatch.setattr(floor, "ECHO_WARM_UP", 1)
    monkeypatch.setattr(floor, "ECHO_COUNT_MAX", 5)
    monkeypatch.setattr(floor, "SYNC_COUNT", 3)


@pytest.fixture(autouse=True)
def small_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have real nodes begin with small files and little memory, unless they are told otherwise: what is measured here
    is small as well, and to make 128 MiB of files takes longer than the rest of a start."""
    spawn = node_process.spawn

    def spawn_small(name: str, command: Sequence[str], **settings: Any) -> "subprocess.Popen[bytes]":
        words = list(command)
        if words[1] == "-m" and words[2].startswith("bezant") and words[3] == "serve":
            words[4:4] = SMALL
        return spawn(name, words, **settings)

    monkeypatch.setattr(node_process, "spawn", spawn_small)


@pytest.fixture
def make_ring() -> MakeRing:
    """Make a ring; what is not given is small."""
    accounts = LoadAccounts(10)

    def make(**changes: object) -> FrameRing:
        settings = {"transfers": 100, "batch": 1, "frames_in_flight_max": 4, "rising_ids": False, "seed": 7}
        return FrameRing(**settings | changes, account_heads=accounts.heads, account_tails=accounts.tails)

    return make
