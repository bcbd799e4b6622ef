"""The entry point loads one command, tells errors in one line, and its exit status says what happened."""

import importlib
import os
import re
import subprocess
import sys

import pytest

from bezant.cli import main as main_module
from bezant.cli.errors import CommandFailed
from bezant.cli.main import COMMANDS, main
from bezant.protocol.errors import ConnectionFailed, UsageError

HEAVY_MODULES = ("numpy", "numba", "rocksdict", "rich", "uvloop", "msgspec", "asyncio", "bezant.net", "bezant.engine")


class FakeCommand:
    """A command module whose `run` does what the test says."""

    def __init__(self, outcome: int | BaseException) -> None:
        self.outcome = outcome

    def add_parser(self, subparsers) -> None:
        subparsers.add_parser("serve")

    def run(self, arguments) -> int:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture
def run_fake(monkeypatch: pytest.MonkeyPatch):
    """Runs `bezant serve` with a command of our own in its place."""

    def run(outcome: int | BaseException) -> int:
        monkeypatch.setattr(main_module.importlib, "import_module", lambda name: FakeCommand(outcome))
        return main(["serve"])

    return run


@pytest.mark.parametrize(
    ("outcome", "status", "told"),
    [
        (0, 0, ""),
        (1, 1, ""),
        (ConnectionFailed("nobody at 10.0.0.1:1"), 1, "bezant: no connection: nobody at 10.0.0.1:1; check the address"),
        (CommandFailed("it broke", "mend it"), 1, "bezant: failed: it broke; mend it\n"),
        (CommandFailed("over\n  two lines"), 1, "bezant: failed: over two lines\n"),
        (UsageError("no such thing"), 2, "bezant: the command line: no such thing; see --help\n"),
        (OSError(28, "No space left", "/d/lock"), 1, "bezant: the disk: /d/lock: No space left; see to the folder and"),
        (PermissionError(13, "Permission denied"), 1, "bezant: the disk: Permission denied; see to the folder and"),
        (KeyboardInterrupt(), 130, "bezant: interrupted\n"),
    ],
)
def test_an_outcome_becomes_a_status_and_at_most_one_line(run_fake, capsys, outcome, status: int, told: str) -> None:
    assert run_fake(outcome) == status
    error = capsys.readouterr().err
    assert error.startswith(told)
    assert error.count("\n") == (1 if told else 0)


def test_what_is_not_ours_is_not_swallowed(run_fake) -> None:
    """A bug must show its traceback."""
    for bug in (ZeroDivisionError(), OSError(9, "Bad file descriptor"), OSError("without a number")):
        with pytest.raises(type(bug)):
            run_fake(bug)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "frobnicate",
        "serve",
        "serve --data d --listen nowhere",
        "serve --data d --listen host:70000",
        "serve --data d --accounts-max 0",
        "serve --data d --free-space-floor-mib -1",
        "transfer a b 1.00",
        "transfer a b 1.00 EUR --connect h:1 --data d",
        "transfer a b 1.00 EUR --connect h:1,nowhere",
        "transfer a b 1.00 EUR --connect h:1,",
        "transfer a b 1.00 EUR --timeout 0",
        "transfer a b 1.00 EUR --timeout nan",
        "transfer a b 1.00 EUR --time 5",
        "hold a b 1.00",
        "hold a b 1.00 EUR --expires-in 0",
        "hold a b 1.00 EUR --expires-in -1",
        "hold a b 1.00 EUR --expires-in 0.0001",
        "hold a b 1.00 EUR --expires-in soon",
        "hold a b 1.00 EUR --expires-in 3153600001",
        "capture 00 a b",
        "release 00 a",
        "freeze a",
        "unfreeze a",
        "close a",
        "resolve 00 a",
        "accounts --format xml",
        "currencies",
        "currencies add EUR 19",
        "currencies add EUR",
        "import",
        "verify",
        "balance a",
        "open a",
        "demo --transfers 0",
    ],
)
def test_a_wrong_command_line_ends_with_2_and_usage(line: str, capsys) -> None:
    with pytest.raises(SystemExit) as caught:
        main(line.split())
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("usage: bezant")
    assert captured.out == ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_a_module_with_help(name: str, capsys) -> None:
    module = importlib.import_module(f"bezant.cli.{COMMANDS[name].module}")
    assert callable(module.run)
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: bezant {name}")


@pytest.mark.parametrize("name", ["snapshot", "archive", "tokens", "members", "webhooks", "config", "currencies"])
def test_help_says_what_each_action_does(name: str, capsys) -> None:
    with pytest.raises(SystemExit):
        main([name, "--help"])
    heading, *lines = capsys.readouterr().out.partition("positional arguments:\n")[2].splitlines()
    for action in heading.strip().split("|"):
        assert any(re.match(rf"    {action} +[a-z]", line) for line in lines), action


def test_help_lists_every_command_and_loads_none() -> None:
    """`bezant --help` answers at once: nothing that takes long to load is loaded."""
    program = (
        "import sys\n"
        "from bezant.cli.main import main\n"
        "try:\n"
        "    main(['--help'])\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"print('loaded', [name for name in {HEAVY_MODULES!r} if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert "loaded []" in done.stdout
    for name in COMMANDS:
        assert f"\n    {name}" in done.stdout


@pytest.mark.parametrize("module", ["bezant", "bezant.cli.main"])
def test_runs_as_a_module(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("bezant ")
    assert done.stderr == ""


def test_a_command_starts_no_threads_for_algebra() -> None:
    """NumPy would start one for every other processor, each of which spins for 45 ms: a fifth of a command's time."""
    program = (
        "import os, sys\n"
        "from bezant.__main__ import run\n"
        "sys.argv = ['bezant', 'transfers', '--help']\n"
        "try:\n"
        "    run()\n"
        "except SystemExit:\n"
        "    import numpy\n"
        "    print('threads', len(os.listdir('/proc/self/task')), os.environ['OPENBLAS_NUM_THREADS'])\n"
    )
    for given, told in ((None, "1"), ("2", "2")):
        environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
        environment |= {} if given is None else {"OPENBLAS_NUM_THREADS": given}
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, env=environment)
        assert done.stdout.splitlines()[-1] == f"threads {min(int(told), len(os.sched_getaffinity(0)))} {told}"


def test_a_reader_that_goes_away_is_no_error() -> None:
    """`bezant ... | head -1` ends quietly."""
    program = (
        "import sys\n"
        "from bezant.cli import main as m\n"
        "class Endless:\n"
        "    def add_parser(self, subparsers): subparsers.add_parser('serve')\n"
        "    def run(self, arguments):\n"
        "        while True: sys.stdout.write('x' * 1000 + chr(10))\n"
        "m.importlib.import_module = lambda name: Endless()\n"
        "sys.exit(m.main(['serve']))\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1
