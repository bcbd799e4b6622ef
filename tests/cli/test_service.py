"""A service manager is told once, with the first line, that the process is ready; nobody else is."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bezant.cli.service import VARIABLE, notify, say_and_notify


@pytest.mark.parametrize("abstract", [False, True])
def test_the_first_line_is_the_news(tmp_path: Path, abstract: bool) -> None:
    said: list[str] = []
    name = f"@bezant-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name[1:]}" if abstract else name)
        manager.setblocking(False)
        environment = {VARIABLE: name, "PATH": "x"}
        say = say_and_notify(said.append, environment)
        assert environment == {"PATH": "x"}
        with pytest.raises(BlockingIOError):
            manager.recv(100)
        say("listening")
        say("more")
        assert manager.recv(100) == b"READY=1"
        with pytest.raises(BlockingIOError):
            manager.recv(100)
    assert said == ["listening", "more"]


def test_without_a_manager_nothing_is_different(tmp_path: Path) -> None:
    say = [].append
    assert say_and_notify(say, {}) == say
    notify(str(tmp_path / "nobody"), b"READY=1")


def test_a_node_tells_that_it_listens(tmp_path: Path) -> None:
    place = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(place))
        manager.settimeout(120)
        command = [sys.executable, "-m", "bezant", "serve", "--data", str(tmp_path / "data")]
        command += ["--listen", "127.0.0.1:0", "--no-reader", "--segment-size-mib", "8", "--ids-memory-mib", "64"]
        with subprocess.Popen(
            command, env=os.environ | {VARIABLE: str(place)}, stdout=subprocess.PIPE, text=True
        ) as process:
            assert manager.recv(100) == b"READY=1"
            assert process.stdout is not None
            assert process.stdout.readline().startswith("listening on ")
            process.terminate()
            assert process.wait(60) == 0
