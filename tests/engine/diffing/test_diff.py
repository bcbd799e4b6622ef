"""Claim: two installations that make the same of a history are found to, and the first event that differs is shown."""

import re
import shutil
import stat
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bezant.engine.diffing.comparing import diff, find_python
from bezant.engine.diffing.executing import WINDOW
from bezant.engine.replica import ReplicaSettings, open_replica
from bezant.protocol.errors import DataFolderInUse, StorageError, UsageError
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import COMMAND

from ..commands import join, opening_world, transfer, transfers

ROOMS = ("protocol", "engine")
PAID_AT = WINDOW + 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small: ReplicaSettings) -> Path:
    """More entries than one window; the refusal is in the second."""
    path = tmp_path_factory.mktemp("data")
    replica = open_replica(path, settings=small)
    replica.execute(opening_world("ann", "bob"))
    for number in range(WINDOW + 40):
        if number == PAID_AT:
            held = transfer("ann", "bob", 3, kind=int(CommandKind.HOLD), timeout_ms=50)
            replica.execute(join(transfers("world", "ann", 2), transfer("bob", "ann", 9), held))
        else:
            replica.execute(transfers("world", "ann", 1))
    replica.write_group()
    replica.close()
    return path


def install(root: Path, path: Path, file: str = "", old: str = "", new: str = "") -> Path:
    """Another installation: the sources as they are, but for one line, behind an interpreter that finds them."""
    package = path / "sources" / "bezant"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    for room in ROOMS:
        shutil.copytree(root / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    if file:
        source = package / file
        text = source.read_text()
        assert text.count(old) == 1
        source.write_text(text.replace(old, new))
    python = path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nNUMBA_DISABLE_JIT=1 PYTHONPATH={path / "sources"} exec {sys.executable} "$@"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    return Path(__file__).parents[3]


def test_the_same_version_makes_the_same(folder: Path, root: Path, tmp_path: Path) -> None:
    """Compiled here, and as plain Python there."""
    told: list[int] = []
    report = diff(folder, install(root, tmp_path / "other"), told.append)
    assert report.divergence is None
    assert report.own.version == report.other.version
    assert report.entries == WINDOW + 42
    assert report.events == told[-1] > WINDOW
    assert report.other.python == str(tmp_path / "other" / "bin" / "python")


def test_the_first_event_that_differs_is_shown_field_by_field(folder: Path, root: Path, tmp_path: Path) -> None:
    other = install(
        root,
        tmp_path / "other",
        "engine/ledger/rules.py",
        'arrays.rows[debit_row]["held"] += amount',
        'arrays.rows[debit_row]["held"] += amount + 1',
    )
    divergence = diff(folder, other).divergence
    assert divergence is not None
    assert divergence.index == PAID_AT + 3
    assert divergence.sequence == 3 + PAID_AT + 4
    assert [tuple(field) for field in divergence.fields] == [("debit_held", "3", "4")]


def test_a_version_that_cannot_execute_an_entry_is_told(folder: Path, root: Path, tmp_path: Path) -> None:
    other = install(
        root,
        tmp_path / "other",
        "engine/ledger/ledger.py",
        "        commands = self._check_input(commands, entry_timestamp_ns, preset)\n",
        "        commands = self._check_input(commands, entry_timestamp_ns, preset)\n"
        '        if len(commands) == 4: raise LedgerError("four are too many")\n',
    )
    divergence = diff(folder, other).divergence
    assert divergence is not None
    assert divergence.index == PAID_AT + 3
    assert re.search("the other version does not execute the entry: LedgerError: four are too many", divergence.words)


def test_an_entry_in_which_nothing_but_holds_expire(root: Path, tmp_path: Path, small: ReplicaSettings) -> None:
    replica = open_replica(tmp_path / "data", settings=small)
    replica.execute(opening_world("ann"))
    replica.execute(transfer("world", "ann", 3, kind=int(CommandKind.HOLD), timeout_ms=1))
    replica.write_group()
    time.sleep(0.01)
    replica.execute(np.zeros(0, COMMAND))
    replica.write_group()
    replica.close()
    report = diff(tmp_path / "data", install(root, tmp_path / "other"))
    assert (report.divergence, report.events) == (None, 4)


def test_an_installation_that_is_none_is_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not an installation"):
        diff(folder, tmp_path)
    with pytest.raises(UsageError, match="is not an installation"):
        find_python(tmp_path / "missing")
    empty = tmp_path / "python"
    empty.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    empty.chmod(0o755)
    with pytest.raises(UsageError, match="cannot execute this history: ModuleNotFoundError"):
        diff(folder, empty)
    silent = tmp_path / "silent"
    silent.write_text("#!/bin/sh\nexit 3\n")
    silent.chmod(0o755)
    with pytest.raises(UsageError, match="it ended with status 3"):
        diff(folder, silent)


def test_where_an_installation_is_found(tmp_path: Path) -> None:
    binaries = tmp_path / "environment" / "bin"
    binaries.mkdir(parents=True)
    for name in ("python", "bezant"):
        (binaries / name).write_text("")
        (binaries / name).chmod(0o755)
    for given in (tmp_path / "environment", binaries / "python", binaries / "bezant"):
        assert find_python(given) == binaries / "python"


def test_folders_that_cannot_be_executed(folder: Path, tmp_path: Path, small: ReplicaSettings) -> None:
    with pytest.raises(StorageError, match="is not a data folder"):
        diff(tmp_path / "missing", Path(sys.executable))
    replica = open_replica(tmp_path / "used", settings=small)
    with pytest.raises(DataFolderInUse):
        diff(tmp_path / "used", Path(sys.executable))
    replica.close()
