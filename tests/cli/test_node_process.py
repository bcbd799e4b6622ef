"""A node that does not start, or ends by itself, is told with what it wrote; none is left running."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bezant.cli import node_process
from bezant.cli.errors import CommandFailed
from bezant.cli.node_process import LISTEN_ANYWHERE, WRITE_SIDE_COMMAND, NodeProcess, ProcessFailed, spawn

from .conftest import SMALL

LISTENS = "say('listening on 127.0.0.1:4711');"
CLEAN = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(0));"
PROLOGUE = "import os, signal, sys, time; say = lambda line: print(line, flush=True);"
LONG_S = 30.0

MakeNode = Callable[..., NodeProcess]


@pytest.fixture
def make(tmp_path: Path) -> MakeNode:
    """Makes a node that is a few lines of Python of our own."""

    def node(program: str, **settings: object) -> NodeProcess:
        command = (sys.executable, "-c", f"{PROLOGUE}\n{program}")
        return NodeProcess(
            tmp_path / "data",
            **{"log_path": tmp_path / "node.log", "command": command} | settings,  # type: ignore[arg-type]
        )

    return node


def gone(process_id: int) -> bool:
    """Whether no process has the number, not even one that has ended and was not waited for."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


async def test_starts_and_stops(make: MakeNode) -> None:
    async with make(LISTENS + "signal.pause()") as node:
        assert node.address == "127.0.0.1:4711"
        with pytest.raises(CommandFailed, match="stopped with status -15"):
            await node.stop()


async def test_a_clean_stop_is_status_0(make: MakeNode) -> None:
    async with make(CLEAN + LISTENS + "signal.pause()") as node:
        await node.stop()
        for end in (node.kill, node.ask_to_stop, node.pause, node.resume):
            with pytest.raises(CommandFailed, match="ended by itself with status 0"):
                end()


def test_without_an_event_loop(make: MakeNode) -> None:
    with make(CLEAN + LISTENS + "signal.pause()") as node:
        assert node.address == "127.0.0.1:4711"
        assert not node.ended
        node.ask_to_stop()
        node.await_stop()
        assert node.status == 0
    assert gone(node.process_id)


@pytest.mark.parametrize("log_path", [None, "node.log"])
async def test_one_that_does_not_listen_tells_why(make: MakeNode, tmp_path: Path, log_path: str | None) -> None:
    where = None if log_path is None else tmp_path / log_path
    with pytest.raises(CommandFailed, match=r"status 3 before it listened; it wrote: the disk is on fire"):
        async with make("sys.stderr.write('the disk is on fire'); sys.exit(3)", log_path=where):
            pass


def test_a_program_that_is_not_there_is_told(make: MakeNode) -> None:
    with pytest.raises(ProcessFailed, match="the node does not start: "):
        make("", command=("/nowhere/at/all",)).start()


async def test_one_that_takes_too_long_is_ended(make: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_process, "START_TIMEOUT_S", 0.2)
    node = make("signal.pause()")
    with pytest.raises(CommandFailed, match=r"not ready within 0.2 s; it wrote: \(nothing\)"):
        async with node:
            pass
    assert gone(node.process_id)


@pytest.mark.parametrize("is_async", [True, False])
async def test_one_that_does_not_stop_is_told_and_killed(make: MakeNode, monkeypatch, is_async: bool) -> None:
    monkeypatch.setattr(node_process, "STOP_TIMEOUT_S", 0.1)
    async with make("signal.signal(15, signal.SIG_IGN);" + LISTENS + "signal.pause()") as node:
        with pytest.raises(CommandFailed, match=r"did not stop within 0.1 s of SIGTERM"):
            if is_async:
                await node.stop()
            else:
                node.ask_to_stop()
                node.await_stop()
    assert node.status == -signal.SIGKILL


async def test_it_is_killed_and_what_it_printed_is_kept(make: MakeNode, tmp_path: Path) -> None:
    program = "sys.stdout.write('listening on 127.0.0.1:4711\\nmore\\n'); sys.stdout.flush(); signal.pause()"
    async with make(program) as node:
        node.kill()
        assert node.status == -signal.SIGKILL
        assert node.describe_end() == "the node ended early (status -9): more"
    assert (tmp_path / "node.log").read_text() == "listening on 127.0.0.1:4711\nmore\n"


def test_it_is_killed_after_a_while_or_ends_before(make: MakeNode) -> None:
    with make(LISTENS + "signal.pause()") as node:
        assert node.kill_after(0.01)
        assert node.status == -signal.SIGKILL
    with make(LISTENS) as node:
        assert not node.kill_after(LONG_S)
        assert node.status == 0


async def test_an_error_in_the_block_leaves_no_process(make: MakeNode) -> None:
    node = make(LISTENS + "signal.pause()")
    with pytest.raises(ZeroDivisionError):
        async with node:
            raise ZeroDivisionError
    assert gone(node.process_id)
    node.end()


def test_one_that_prints_without_end_does_not_wait_for_a_reader(make: MakeNode) -> None:
    """Far more than a pipe would hold."""
    with make(LISTENS + "[say('x' * 1000) for _ in range(1000)]; sys.exit(7)") as node:
        deadline_s = time.monotonic() + LONG_S
        while not node.ended and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert node.status == 7


def test_its_address_may_come_in_pieces(make: MakeNode) -> None:
    pieces = "sys.stdout.write('listening on 127.'); sys.stdout.flush(); time.sleep(0.05); say('0.0.1:4711');"
    with make(pieces + "signal.pause()") as node:
        assert node.address == "127.0.0.1:4711"


def test_a_line_without_end_is_not_read_for_ever(make: MakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_process, "_LINE_SIZE_MAX", 10)
    with pytest.raises(ProcessFailed, match="line of more than 10 bytes"):  # noqa: SIM117
        with make("sys.stdout.write('12345678901'); sys.stdout.flush(); signal.pause()"):
            pass


# ---- arguments, addresses, again ----

TELLS_ARGUMENTS = (
    "say(' '.join(sys.argv[1:]) + ' ' + os.environ.get('EXTRA', '-'));"
    "say('echo on 127.0.0.1:4712');" + LISTENS + "signal.pause()"
)


def test_it_is_told_what_it_needs_and_again_the_same_addresses(make: MakeNode, tmp_path: Path) -> None:
    node = make(TELLS_ARGUMENTS, echo=LISTEN_ANYWHERE, arguments=("--holds-max", "5"), environment={"EXTRA": "7"})
    with node:
        assert (node.address, node.echo) == ("127.0.0.1:4711", "127.0.0.1:4712")
        with pytest.raises(ProcessFailed, match="the node runs already"):
            node.start()
        node.kill()
        node.start()
        assert node.address == ""
        node.await_ready()
        assert node.address == "127.0.0.1:4711"
    first, second = [line for line in (tmp_path / "node.log").read_text().splitlines() if line.startswith("--data")]
    data = f"--data {tmp_path / 'data'}"
    assert first == f"{data} --listen 127.0.0.1:0 --echo 127.0.0.1:0 --holds-max 5 7"
    assert second == f"{data} --listen 127.0.0.1:4711 --echo 127.0.0.1:4712 --holds-max 5 7"


def test_one_whose_folder_says_where_it_listens_is_not_told(make: MakeNode, tmp_path: Path) -> None:
    with make(TELLS_ARGUMENTS, listen=None) as node:
        assert node.address == "127.0.0.1:4711"
    assert (tmp_path / "node.log").read_text().startswith(f"--data {tmp_path / 'data'} -\n")


def test_what_it_said_before_a_restart_is_not_believed(make: MakeNode, tmp_path: Path, monkeypatch) -> None:
    """Its log has the line of its first life."""
    flag = tmp_path / "flag"
    program = f"quiet = os.path.exists({str(flag)!r}); open({str(flag)!r}, 'w'); quiet or say('listening on h:1')"
    with make(program + "; signal.pause()") as node:
        node.kill()
        monkeypatch.setattr(node_process, "START_TIMEOUT_S", 0.2)
        node.start()
        with pytest.raises(ProcessFailed, match="was not ready"):
            node.await_ready()


# ---- pauses ----

TICKS = LISTENS + "[(say(str(tick)), time.sleep(0.002)) for tick in range(10**9)]"


def test_a_paused_one_stands_still_and_goes_on(make: MakeNode, tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    with make(TICKS) as node:
        node.pause()
        _await_state(node.process_id, "T")
        size = log.stat().st_size
        time.sleep(0.1)
        assert log.stat().st_size == size
        node.resume()
        deadline_s = time.monotonic() + LONG_S
        while log.stat().st_size == size and time.monotonic() < deadline_s:
            time.sleep(0.001)
        assert log.stat().st_size > size


def _await_state(process_id: int, state: str) -> None:
    deadline_s = time.monotonic() + LONG_S
    while time.monotonic() < deadline_s:
        if Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] == state:
            return
        time.sleep(0.001)
    raise TimeoutError(f"process {process_id} did not come to state {state}")


def test_a_paused_one_is_ended_at_once(make: MakeNode) -> None:
    began_s = time.monotonic()
    with make(LISTENS + "signal.pause()") as node:
        node.pause()
    assert gone(node.process_id)
    assert time.monotonic() - began_s < LONG_S


# ---- signals and the end of the parent ----


@pytest.fixture
def interrupts() -> Iterator[None]:
    """As where somebody may press Ctrl-C: a shell has what it starts in the background ignore that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_a_signal_while_a_process_starts_waits_for_its_handle() -> None:
    told = []
    with pytest.raises(KeyboardInterrupt), node_process._signals_held():
        signal.raise_signal(signal.SIGINT)
        told.append("the block went on")
    assert told == ["the block went on"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_child_does_not_outlive_a_parent_that_is_killed() -> None:
    program = (
        "import subprocess, sys\n"
        "from bezant.cli.node_process import spawn\n"
        "child = spawn('a child', [sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "print(child.pid, flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        assert os.getpgid(child) != os.getpgid(parent.pid)
        parent.kill()
        deadline_s = time.monotonic() + LONG_S
        while _runs(child) and time.monotonic() < deadline_s:
            time.sleep(0.01)
        assert not _runs(child)


def _runs(process_id: int) -> bool:
    """Whether a process that is not ours to wait for still runs."""
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def test_others_run_while_one_waits_for_a_node(make: MakeNode) -> None:
    node = make("time.sleep(1);" + LISTENS + "signal.pause()")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    async with node:
        assert ticks > 3
    ticking.cancel()


def test_a_process_that_cannot_be_started_has_a_name() -> None:
    with pytest.raises(ProcessFailed, match="a thing does not start"):
        spawn("a thing", ["/nowhere/at/all"])


async def test_a_real_node(tmp_path: Path) -> None:
    """It starts, is killed, and comes back where it was."""
    async with NodeProcess(
        tmp_path / "data", echo=LISTEN_ANYWHERE, arguments=(*SMALL, "--accounts-max", "10"), command=WRITE_SIDE_COMMAND
    ) as node:
        address, echo = node.address, node.echo
        assert address.startswith("127.0.0.1:")
        assert len({address, echo, LISTEN_ANYWHERE}) == 3
        node.kill()
        node.start()
        await node.ready()
        assert (node.address, node.echo) == (address, echo)
        await node.stop()
