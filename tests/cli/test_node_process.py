"""A node that does not start, or ends by itself, is told with what it wrote; none is left running."""

import sys
from pathlib import Path

import pytest

from bezant.cli import node_process
from bezant.cli.errors import CommandFailed
from bezant.cli.node_process import NodeProcess

LISTENS = "print('listening on 127.0.0.1:4711', flush=True);"


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes a node that is a few lines of Python of our own: a stand-in for the interpreter that gets `-c` instead."""

    def make(program: str) -> NodeProcess:
        stand_in = tmp_path / "python"
        stand_in.write_text(f"#!{sys.executable}\nimport signal, sys, time\n{program}\n")
        stand_in.chmod(0o755)
        monkeypatch.setattr(node_process.sys, "executable", str(stand_in))
        return NodeProcess(tmp_path / "data", tmp_path / "node.log")

    return make


async def test_starts_and_stops(start) -> None:
    async with start(LISTENS + "signal.pause()") as node:
        assert node.address == "127.0.0.1:4711"
        with pytest.raises(CommandFailed, match="stopped with status -15"):
            await node.stop()


async def test_a_clean_stop_is_status_0(start) -> None:
    program = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0));" + LISTENS + "signal.pause()"
    async with start(program) as node:
        await node.stop()
        with pytest.raises(CommandFailed, match="ended by itself with status 0"):
            await node.kill()


async def test_one_that_does_not_listen_tells_why(start) -> None:
    with pytest.raises(CommandFailed, match=r"status 3 before it listened; it wrote: the disk is on fire"):
        async with start("sys.stderr.write('the disk is on fire'); sys.exit(3)"):
            pass


async def test_one_that_takes_too_long_is_ended(start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_process, "START_TIMEOUT_S", 0.2)
    with pytest.raises(CommandFailed, match="not ready within 0 s"):
        async with start("signal.pause()"):
            pass


async def test_it_is_killed_and_what_it_printed_is_kept(start, tmp_path: Path) -> None:
    # In one write, so that it is all there when the first line is.
    program = "sys.stdout.write('listening on 127.0.0.1:4711\\nmore\\n'); sys.stdout.flush(); signal.pause()"
    async with start(program) as node:
        await node.kill()
    assert (tmp_path / "node.log").read_text() == "more\n"


async def test_an_error_in_the_block_leaves_no_process(start) -> None:
    node = start(LISTENS + "signal.pause()")
    with pytest.raises(ZeroDivisionError):
        async with node:
            raise ZeroDivisionError
    assert node._process.returncode == -9
