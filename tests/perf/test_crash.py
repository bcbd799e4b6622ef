"""Claim: the crash rig finds nothing wrong with the engine, and does find it when something is.

Real nodes are killed here, with a load of a second or so. Every fault is planted in the files between the death of a
node and its restart, as a disk or an operator would do it, or in the answers that the book is given.
"""

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bezant.cli.session import run_async
from bezant.perf.crash import rig
from bezant.perf.crash.book import Book, Sent
from bezant.perf.crash.checks import check_chains, check_order
from bezant.perf.crash.faults import FaultKind, Faults, RigFailed
from bezant.perf.crash.model import Model
from bezant.perf.crash.plan import WORLD, Frame, Planner, Role, Scene, command_bytes, opening_bytes, setup_frame
from bezant.perf.crash.rig import BeforeRestart, Rig, RigSettings, Summary
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandFlag, CommandKind, ResultFlag
from bezant.protocol.names import account_id
from bezant.protocol.records import COMMAND, EVENT, EVENT_ANSWER, LIMIT_UNLIMITED, RESULT, Records

SEED = 7
ANN, BOB = (account_id(f"crash:wallet:{number:04d}", "EUR") for number in range(2))


def run_rig(folder: Path, kills: int, before_restart: BeforeRestart | None = None) -> Summary:
    """A rig with a tiny load."""
    settings = RigSettings(
        directory=folder, kills=kills, seed=SEED, connections=2, in_flight=3, frames=20, commands_max=40, wallets=8
    )
    return run_async(Rig(settings, before_restart=before_restart).run())


# --- Real nodes


def test_three_kills(tmp_path: Path) -> None:
    summary = run_rig(tmp_path, 3)
    assert summary.faults == []
    assert (summary.kills, summary.verified) == (3, 1)
    assert summary.acknowledged > 16
    assert (summary.missing, summary.repeated, summary.changed, summary.in_part, summary.refused) == (0, 0, 0, 0, 0)


def put_back(copy: Path) -> BeforeRestart:
    """Keeps a copy of the folder after the first crash, and puts it in the place of the folder after the second."""

    def plant(number: int, data: Path) -> None:
        if number == 1:
            shutil.copytree(data, copy)
        elif number == 2:
            shutil.rmtree(data)
            shutil.copytree(copy, data)

    return plant


def test_a_folder_that_loses_what_was_acknowledged_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node starts happily on the older copy: only its answers of before can tell."""
    # Something has to be acknowledged between the two crashes, also while a sync takes its time.
    monkeypatch.setattr(rig, "KILL_DELAY_MAX_S", 1.5)
    summary = run_rig(tmp_path, 4, put_back(tmp_path / "copy"))
    assert not summary.ok
    assert summary.missing > 0
    assert summary.rounds == 2
    assert any(fault.startswith("round 2: missing: ") for fault in summary.faults)
    assert Path(summary.folder).is_dir()


def test_rot_before_a_restart_is_found_out(tmp_path: Path) -> None:
    def plant(number: int, data: Path) -> None:
        with (data / "shard-0000" / "segment-0000000001").open("r+b") as file:
            file.seek(4096 + 200)
            file.write(b"\xff" * 8)

    summary = run_rig(tmp_path, 2, plant)
    assert summary.refused > 0
    assert "entry with index 1" in summary.faults[0]


def test_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bezant.perf.crash", "--kills", "1", "--seed", "3", "--json"]
    done = subprocess.run(
        [*command, "--directory", str(tmp_path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert (told["ok"], told["kills"], told["seed"]) == (True, 1, 3)
    assert list(tmp_path.iterdir()) == []


# --- The plan


def plan(seed: int) -> list[Frame]:
    scene = Scene([WORLD, ANN, BOB], [], [command_bytes(CommandKind.TRANSFER, b"k" * 16, ANN, BOB, 1)])
    return Planner(random.Random(seed), scene, "crash:test").frames(30, 50)


def test_a_plan_is_the_same_for_a_seed() -> None:
    assert plan(1) == plan(1)
    assert plan(1) != plan(2)


def test_a_plan_has_every_kind_and_whole_chains() -> None:
    frames = plan(1)
    kinds: set[int] = set()
    roles: set[int] = set()
    for frame in frames:
        commands = np.frombuffer(frame.body, COMMAND)
        assert len(commands) == frame.count
        assert not commands["flags"][-1] & CommandFlag.LINKED
        kinds |= set(commands["kind"].tolist())
        roles |= set(frame.roles)
    assert kinds == set(range(CommandKind.OPEN, CommandKind.FORBID + 1)) - {CommandKind.EXPIRE, CommandKind.CLOSE}
    assert roles == set(Role)


# --- The book


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def book(faults: Faults) -> Book:
    return Book(faults)


def frame_of(*commands: bytes, role: Role = Role.OWN) -> Frame:
    body = b"".join(commands)
    return Frame(body, bytes([role]) * (len(body) // COMMAND.itemsize))


def transfer_bytes(number: int, amount: int = 5, flags: int = 0) -> bytes:
    return command_bytes(CommandKind.TRANSFER, bytes([number]) * 16, ANN, BOB, amount, flags=flags)


def answers(*positions: int, code: int = 0, flags: int = 0) -> Records:
    results = np.zeros(len(positions), RESULT)
    results["position"], results["timestamp_ns"], results["code"], results["flags"] = positions, positions, code, flags
    return results


def counted(faults: Faults) -> dict[FaultKind, int]:
    return {kind: count for kind, count in faults.counts.items() if count}


def test_first_answers_and_true_repeats_are_right(book: Book, faults: Faults) -> None:
    frame = frame_of(transfer_bytes(1), transfer_bytes(2))
    book.acknowledge(book.send(frame), answers(1, 2))
    book.acknowledge(book.send(frame), answers(1, 2, flags=ResultFlag.REPEATED))
    assert (book.acknowledged, len(book), counted(faults)) == (2, 2, {})


@pytest.mark.parametrize(
    ("again", "kind"),
    [
        (answers(7), FaultKind.REPEATED),
        (answers(7, flags=ResultFlag.REPEATED), FaultKind.CHANGED),
        (answers(1, code=ResultCode.INSUFFICIENT_FUNDS, flags=ResultFlag.REPEATED), FaultKind.CHANGED),
        (answers(0, code=ResultCode.ID_CONFLICT), FaultKind.CHANGED),
        (answers(0, code=ResultCode.CHAIN_REPEATED_IN_PART), FaultKind.CHANGED),
    ],
)
def test_another_answer_than_the_first_is_a_fault(book: Book, faults: Faults, again: Records, kind: FaultKind) -> None:
    frame = frame_of(transfer_bytes(1))
    book.acknowledge(book.send(frame), answers(1))
    book.acknowledge(book.send(frame), again)
    assert counted(faults) == {kind: 1}


def test_a_repeat_of_what_was_sent_once_is_a_fault(book: Book, faults: Faults) -> None:
    book.acknowledge(book.send(frame_of(transfer_bytes(1))), answers(1, flags=ResultFlag.REPEATED))
    assert counted(faults) == {FaultKind.REPEATED: 1}


def test_a_conflict_must_point_to_the_first(book: Book, faults: Faults) -> None:
    book.acknowledge(book.send(frame_of(transfer_bytes(1))), answers(4))
    conflict = frame_of(transfer_bytes(1, amount=6), role=Role.CONFLICT)
    right = answers(4, code=ResultCode.ID_CONFLICT)
    right["detail"] = 5
    book.acknowledge(book.send(conflict), right)
    assert counted(faults) == {}
    book.acknowledge(book.send(conflict), answers(4))
    assert counted(faults) == {FaultKind.CHANGED: 1}


def test_a_node_that_cannot_work_is_no_fault_of_its_promises(book: Book) -> None:
    with pytest.raises(RigFailed, match="STORAGE_FULL"):
        book.acknowledge(book.send(frame_of(transfer_bytes(1))), answers(0, code=ResultCode.STORAGE_FULL))


def looked_up(book: Book, **found: int) -> Records:
    """What a node that has these rows at these positions answers to a look-up of all."""
    looked = np.zeros(len(book), EVENT_ANSWER)
    for row, position in ((int(name[1:]), position) for name, position in found.items()):
        event = np.zeros(1, EVENT)
        for name in COMMAND.names or ():
            if name != "reserved":
                event[name] = book.commands[name][row]
        event["timestamp_ns"] = position
        looked[row] = (position, 1, event.tobytes())
    return looked


def settle(book: Book, **found: int) -> int:
    return book.settle(np.arange(len(book)), looked_up(book, **found))


def test_what_was_acknowledged_must_be_found_where_it_was(book: Book, faults: Faults) -> None:
    book.acknowledge(book.send(frame_of(*map(transfer_bytes, (1, 2, 3)))), answers(1, 2, 3))
    assert settle(book, r0=1, r1=2, r2=3) == 0
    assert counted(faults) == {}
    settle(book, r0=1, r2=9)
    assert counted(faults) == {FaultKind.MISSING: 1, FaultKind.CHANGED: 1}


def test_what_was_not_answered_may_be_there_or_not(book: Book, faults: Faults) -> None:
    sent = book.send(frame_of(*map(transfer_bytes, (1, 2, 3))))
    assert settle(book, r0=1, r1=2) == 2
    assert book.known.tolist() == [True, True, False]
    check_order(faults, book, [sent])
    assert counted(faults) == {}


def test_a_later_command_without_an_earlier_one_is_a_fault(book: Book, faults: Faults) -> None:
    sent = [book.send(frame_of(transfer_bytes(number))) for number in (1, 2, 3)]
    settle(book, r0=1, r2=2)
    check_order(faults, book, sent)
    assert counted(faults) == {FaultKind.IN_PART: 1}


def test_a_conflict_says_nothing_about_the_order(book: Book, faults: Faults) -> None:
    """Its id is known because of another frame."""
    book.acknowledge(book.send(frame_of(transfer_bytes(1))), answers(1))
    sent = [book.send(frame_of(transfer_bytes(2))), book.send(frame_of(transfer_bytes(1, 6), role=Role.CONFLICT))]
    settle(book, r0=1)
    check_order(faults, book, sent)
    assert counted(faults) == {}


def test_half_a_chain_is_a_fault(book: Book, faults: Faults) -> None:
    book.send(frame_of(transfer_bytes(1, flags=CommandFlag.LINKED), transfer_bytes(2)))
    settle(book, r0=1)
    check_chains(faults, book)
    assert counted(faults) == {FaultKind.IN_PART: 1}
    assert book.unit_of(1) == slice(0, 2)


# --- The model


class History:
    """Events as a node would have them, made by hand and fed to the model one after the other."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.model = Model(self.faults)
        self.row = 0

    def take(self, command: bytes, *shown: int, effective: int = 0, code: int = 0, position: int = 0) -> None:
        results = np.zeros(1, RESULT)
        sequence = position or self.model.sequence + 1
        results[0] = (code, 0, 0, sequence, 1_000 * sequence, effective, *(*shown, 0, 0, 0, 0)[:4])
        now_ns = 10_000_000_000
        self.model.advance([self.row], np.frombuffer(command, COMMAND), results, sequence, now_ns)
        self.row += 1


@pytest.fixture
def history() -> History:
    """A world, and two wallets of which the first has 100."""
    history = History()
    history.take(opening_bytes(b"w" * 16, "crash:world", LIMIT_UNLIMITED), effective=LIMIT_UNLIMITED)
    for number in range(2):
        history.take(opening_bytes(bytes([50 + number]) * 16, f"crash:wallet:{number:04d}", 0))
    history.take(command_bytes(CommandKind.TRANSFER, b"f" * 16, WORLD, ANN, 100), -100, 0, 100, 0, effective=100)
    assert counted(history.faults) == {}
    return history


def test_a_true_history_has_no_fault(history: History) -> None:
    hold = command_bytes(CommandKind.HOLD, b"h" * 16, ANN, BOB, 30, timeout_ms=1)
    capture = command_bytes(CommandKind.CAPTURE, b"c" * 16, ANN, BOB, 10, reference=b"h" * 16, flags=4)
    history.take(hold, 100, 30, 0, 0, effective=30)
    history.take(capture, 90, 20, 10, 0, effective=10)
    history.take(transfer_bytes(1, 80), 90, 20, 10, 0, code=ResultCode.INSUFFICIENT_FUNDS)
    sequence = history.model.sequence
    # The position between is the expiry of what the hold has left.
    late = np.zeros(1, RESULT)
    late[0] = (0, 0, 0, sequence + 2, 5_000_000_000, 80, 10, 0, 90, 0)
    history.model.advance([9], np.frombuffer(transfer_bytes(2, 80), COMMAND), late, sequence + 2, 6_000_000_000)
    assert (counted(history.faults), history.model.expired) == ({}, 1)


@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (lambda h: h.take(transfer_bytes(1), 95, 0, 6, 0, effective=5), FaultKind.CHANGED),
        (lambda h: h.take(transfer_bytes(1), 96, 0, 4, 0, effective=4), FaultKind.CHANGED),
        (lambda h: h.take(transfer_bytes(1, 101), -1, 0, 101, 0, effective=101), FaultKind.CHANGED),
        (lambda h: h.take(transfer_bytes(1), 100, 0, 0, 0, code=ResultCode.INSUFFICIENT_FUNDS), FaultKind.CHANGED),
        (lambda h: h.take(transfer_bytes(1), 95, 0, 5, 0, effective=5, position=7), FaultKind.REPEATED),
        (lambda h: h.take(transfer_bytes(1), 95, 0, 5, 0, effective=5, position=2), FaultKind.REPEATED),
        (lambda h: h.model.advance([], np.zeros(0, COMMAND), np.zeros(0, RESULT), 2, 0), FaultKind.MISSING),
    ],
    ids=[
        "a balance that is off",
        "less moved than asked",
        "beyond the limit",
        "refused for funds that are there",
        "an event that nobody asked for",
        "a position of two commands",
        "a history that ends too soon",
    ],
)
def test_a_false_history_has_one(history: History, plant: Callable[[History], None], kind: FaultKind) -> None:
    plant(history)
    assert history.faults.counts[kind] > 0


def test_a_chain_of_which_a_part_is_committed_is_a_fault(history: History) -> None:
    history.take(transfer_bytes(1, flags=CommandFlag.LINKED), 95, 0, 5, 0, effective=5)
    history.take(transfer_bytes(2), 95, 0, 5, 0, code=ResultCode.CHAIN_MEMBER_REFUSED)
    assert counted(history.faults) == {FaultKind.IN_PART: 1}


def test_setup_gives_every_wallet_its_funds() -> None:
    commands = np.frombuffer(setup_frame(random.Random(1), 3).body, COMMAND)
    kinds = commands["kind"].tolist()
    assert kinds == [CommandKind.OPEN] * 4 + [CommandKind.TRANSFER] * 3


def test_a_sent_frame_knows_its_rows(book: Book) -> None:
    sent = book.send(frame_of(transfer_bytes(1), transfer_bytes(2)))
    assert isinstance(sent, Sent)
    malformed = book.send(frame_of(transfer_bytes(3, amount=-1), role=Role.MALFORMED))
    assert (sent.rows.tolist(), malformed.rows.tolist(), len(book)) == ([0, 1], [-1], 2)
