"""Claim: processes are started, heard and stopped within limits, and what went wrong with them is told."""

import os
import sys
from pathlib import Path

import pytest

from bezant.cli.node_process import ProcessFailed
from bezant.perf.load import processes
from bezant.perf.load.memory import MemoryPeak, family, peak_bytes
from bezant.perf.load.plan import LoadPlan
from bezant.perf.load.processes import ChildProcess, LineReader, run_load
from bezant.perf.load.processor import ProcessorTimes, process_cpu_seconds
from bezant.protocol.errors import ConnectionFailed

LONG_S = 30.0


def child(program: str, *, stop_timeout_s: float = LONG_S) -> ChildProcess:
    return ChildProcess("the child", (sys.executable, "-c", program), stop_timeout_s)


def gone(process_id: int) -> bool:
    """Whether no process has the number, not even one that has ended and was not waited for."""
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return True
    return False


def test_lines_come_whole_however_they_were_written() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe:
        reader = LineReader(pipe)
        os.write(writing, b"one\ntw")
        assert reader.read_line(LONG_S) == b"one"
        with pytest.raises(TimeoutError):
            reader.read_line(0)
        os.write(writing, b"o\n\n")
        assert reader.read_line(LONG_S) == b"two"
        assert reader.read_line(LONG_S) == b""
        os.close(writing)
        assert reader.read_line(LONG_S) is None


def test_a_line_without_end_is_not_read_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LINE_SIZE_MAX", 10)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as pipe, os.fdopen(writing, "wb", buffering=0) as other_end:
        other_end.write(b"12345678901")
        with pytest.raises(ProcessFailed, match="line of more"):
            LineReader(pipe).read_line(LONG_S)


def test_a_child_is_gone_after_its_block() -> None:
    with child("print('ready', flush=True); import signal; signal.pause()") as process:
        assert process.read_line(LONG_S) == b"ready"
        assert not process.ended
    assert gone(process.process_id)
    process.stop()


def test_a_child_that_ignores_sigterm_is_killed() -> None:
    program = "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    with child(program, stop_timeout_s=0.05) as process:
        process.read_line(LONG_S)
    assert gone(process.process_id)


def test_an_early_end_is_told_with_what_stood_on_stderr() -> None:
    with child("import sys; sys.exit('no room')") as process, pytest.raises(ProcessFailed, match=r"status 1.*no room"):
        process.read_line(LONG_S)


def test_a_child_that_says_nothing_is_not_waited_for_for_ever() -> None:
    with child("import signal; signal.pause()") as process, pytest.raises(ProcessFailed, match="nothing for 0"):
        process.read_line(0)


def test_a_program_that_is_not_there_is_told() -> None:
    with pytest.raises(ProcessFailed, match="does not start"):
        ChildProcess("the child", ("/nowhere/at/all",), LONG_S)


@pytest.mark.parametrize(
    ("line", "meaning"),
    [("not json", "something else"), ('{"type":"failure","error":"OSError","message":"odd"}', "odd")],
)
def test_a_load_that_says_nonsense_is_told(tmp_path: Path, monkeypatch, line: str, meaning: str) -> None:
    (tmp_path / "odd_load.py").write_text(f"print({line!r})")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(Exception, match=meaning):
        run_load("odd_load", LoadPlan(address="", transfers=1, accounts=2), print)


def test_a_load_to_nowhere_says_so() -> None:
    with pytest.raises(ConnectionFailed, match=r"127\.0\.0\.1:1"):
        run_load("bezant.perf.load.generator", LoadPlan(address="127.0.0.1:1", transfers=1, accounts=2), print)


def test_memory_is_that_of_a_process_and_what_it_started() -> None:
    grandchild = "import sys; held = b'x' * (64 << 20); print('ready', flush=True); sys.stdin.read()"
    program = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", {grandchild!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
sys.stdin.readline()
child.communicate()
print("alone", flush=True)
sys.stdin.read()
"""
    with child(program) as process:
        both = {process.process_id, int(process.read_line(LONG_S))}
        assert set(family(process.process_id)) == both
        peak = MemoryPeak(process.process_id)
        assert peak.bytes_max is None
        peak.sample()
        assert peak.bytes_max is not None
        assert peak.bytes_max > 64 << 20
        highest = peak.bytes_max
        process.send(b"\n")
        assert process.read_line(LONG_S) == b"alone"
        assert family(process.process_id) == [process.process_id]
        peak.sample()
        assert peak.bytes_max == highest
    assert peak_bytes(process.process_id) is None
    gone_peak = MemoryPeak(process.process_id)
    gone_peak.sample()
    assert gone_peak.bytes_max is None


def test_processor_time_grows_and_is_none_for_nobody() -> None:
    times = ProcessorTimes(os.getpid())
    before = times.own()
    sum(range(100_000))
    assert times.own() > before
    assert times.other() is not None
    assert process_cpu_seconds(0) is None
    assert ProcessorTimes(0).other() is None
