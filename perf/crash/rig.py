"""The rounds: load a node, end it in the midst, look at what it left, start it again, and hold it to its answers.

A round ends with SIGKILL at a random moment of the load, or when a segment is being made, or (every
``rounds_per_folder``-th, and the last) with SIGTERM under load; that folder must then verify to the same digests before
and after all known commands are sent again, and the next round begins on a new one. Some restarts are killed as well.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bezant.cli.node_process import NodeProcess, ProcessFailed
from bezant.engine.diagnosis import Diagnosis, Verdict
from bezant.engine.doctor import examine
from bezant.engine.replica import shard_directory
from bezant.perf.crash.book import Book
from bezant.perf.crash.checks import audit, check_order, retry, send_known_again, settle
from bezant.perf.crash.faults import FaultKind, Faults, RigFailed
from bezant.perf.crash.load import Sender
from bezant.perf.crash.model import NO_COMMANDS, NO_RESULTS, Model
from bezant.perf.crash.node import start_node
from bezant.perf.crash.plan import OpenHold, Planner, Scene, account_bytes, setup_frame
from bezant.perf.load.control import ControlClient
from bezant.protocol.errors import BezantError, ConnectionFailed
from bezant.protocol.frames import Operation
from bezant.protocol.records import RESULT

KILL_DELAY_MAX_S: Final = 0.3
FILES_POLL_S: Final = 0.001
ROTATION_SHARE: Final = 0.25
"""Of the kills under load: those that wait until a segment is being made."""
CHECKPOINT_SHARE: Final = 0.15
"""Of the kills under load: those that wait until a checkpoint is being made, by a child that has to start first."""
CHECKPOINT_WAIT_S: Final = 5.0
START_UP_SHARE: Final = 0.3
"""Of the restarts: those that are killed on the way."""
VERIFY_TIMEOUT_S: Final = 300.0
UNITS_SHOWN: Final = 1_000
"""Units of the past that the plan of a round may repeat."""


class RigSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a run is made. In ``directory`` a folder for data is made for every ``rounds_per_folder`` rounds."""

    directory: Path
    kills: int
    seed: int
    connections: int = 3
    in_flight: int = 4
    """Frames unanswered on one connection. All that is in flight must fit in a segment as one entry."""
    frames: int = 120
    """Frames of one connection in one round, at most; the kill comes first on most machines."""
    commands_max: int = 200
    """Commands of one frame, at most, but for a chain at its end."""
    wallets: int = 40
    segment_size_mib: int = 1
    checkpoint_ids: int = 1_000
    """New ids after which a node has a checkpoint made, beside its traffic or on the way of a start."""
    rounds_per_folder: int = 10


class Summary(msgspec.Struct, kw_only=True):
    """What a run has seen. Counts of commands are of different ids."""

    seed: int
    kills: int = 0
    kills_at_rotation: int = 0
    kills_at_checkpoint: int = 0
    kills_in_start_up: int = 0
    stops: int = 0
    rounds: int = 0
    acknowledged: int = 0
    found: int = 0
    """Without an answer, and there."""
    absent: int = 0
    """Without an answer, and not there; sent again after the restart."""
    events: int = 0
    expired: int = 0
    segments: int = 0
    verified: int = 0
    torn_tails: int = 0
    torn_bytes: int = 0
    missing: int = 0
    repeated: int = 0
    changed: int = 0
    in_part: int = 0
    reordered: int = 0
    unexplained: int = 0
    refused: int = 0
    seconds: float = 0.0
    faults: list[str] = []
    folder: str = ""
    """The data folder, if there is a fault to look for in it."""

    @property
    def ok(self) -> bool:
        """Whether every promise held."""
        return not self.faults


BeforeRestart = Callable[[int, Path], None]
"""Called with the number of the round (from 1) and the data folder when its node is dead; tests plant faults there."""


class Rig:
    """See the module; `run` is the whole of it."""

    def __init__(
        self,
        settings: RigSettings,
        *,
        before_restart: BeforeRestart | None = None,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self._settings = settings
        self._before_restart = before_restart
        self._on_progress = on_progress
        self._random = random.Random(settings.seed)
        self._faults = Faults()
        self._start_up_s = 1.0
        self.summary = Summary(seed=settings.seed)

    async def run(self) -> Summary:
        """Go on until there were so many kills, or a fault. Raises `RigFailed` if the rig itself cannot go on."""
        started = time.monotonic()
        summary = self.summary
        while summary.kills < self._settings.kills and summary.ok:
            data = self._settings.directory / f"data-{summary.rounds + 1:04d}"
            folder = _Folder(data, self._faults)
            try:
                await self._run_folder(folder)
            except (ProcessFailed, _Refused) as error:
                self._faults.add(FaultKind.REFUSED, str(error))
            self._close_folder(folder)
        summary.seconds = round(time.monotonic() - started, 1)
        return summary

    def _close_folder(self, folder: "_Folder") -> None:
        summary = self.summary
        summary.acknowledged += folder.book.acknowledged
        summary.events += folder.model.sequence
        summary.expired += folder.model.expired
        summary.segments += len(_files(folder.data, "segment-*"))
        for kind, count in self._faults.counts.items():
            setattr(summary, kind.value, count)
        if self._faults:
            summary.faults = [f"round {summary.rounds}: {fault.kind}: {fault.text}" for fault in self._faults.told]
            summary.folder = str(folder.data)

    async def _run_folder(self, folder: "_Folder") -> None:
        """Rounds on one folder, up to the one that ends in a clean stop."""
        self._maybe_kill_in_start_up(folder)
        node = self._start(folder)
        try:
            await self._set_up(node, folder)
            for number in range(1, self._settings.rounds_per_folder + 1):
                self.summary.rounds += 1
                is_last = number == self._settings.rounds_per_folder
                await self._load(node, folder, stop=is_last)
                node.end()
                self._look(folder, is_stopped=is_last)
                first_digests = self._verify(folder) if is_last else None
                if self._before_restart is not None:
                    self._before_restart(self.summary.rounds, folder.data)
                if not is_last:
                    self._maybe_kill_in_start_up(folder)
                node = self._start(folder)
                await self._check(node, folder)
                if self._faults:
                    return
                if is_last or self.summary.kills >= self._settings.kills:
                    self._stop(node)
                    self._look(folder, is_stopped=True)
                    self._compare(folder, first_digests, self._verify(folder))
                    return
        finally:
            node.end()

    # ---- the node ----

    def _start(self, folder: "_Folder") -> NodeProcess:
        """Start the node that must come up."""
        began = time.monotonic()
        node = start_node(folder.data, self._settings.segment_size_mib, self._settings.checkpoint_ids)
        try:
            node.await_ready()
        except BaseException:
            node.end()
            raise
        self._start_up_s = time.monotonic() - began
        return node

    def _maybe_kill_in_start_up(self, folder: "_Folder") -> None:
        """Start a node and kill it on the way, perhaps; at any moment up to when it would have listened.

        The last kill of a run is one under load.
        """
        if self._random.random() >= START_UP_SHARE or self.summary.kills + 1 >= self._settings.kills:
            return
        node = start_node(folder.data, self._settings.segment_size_mib, self._settings.checkpoint_ids)
        try:
            if not node.kill_after(self._random.uniform(0.0, self._start_up_s)):
                raise _Refused(node.describe_end())
        finally:
            node.end()
        self.summary.kills_in_start_up += 1
        self._count_kill()
        self._look(folder, is_stopped=False)

    def _count_kill(self) -> None:
        self.summary.kills += 1
        if self._on_progress is not None:
            self._on_progress(1)

    def _stop(self, node: NodeProcess) -> None:
        try:
            node.ask_to_stop()
            node.await_stop()
        except ProcessFailed as error:
            raise _Refused(str(error)) from error
        self.summary.stops += 1

    # ---- the load ----

    async def _set_up(self, node: NodeProcess, folder: "_Folder") -> None:
        frame = setup_frame(self._random, self._settings.wallets)
        async with ControlClient(node.address) as client:
            sent = folder.book.send(frame)
            body = await client.request(Operation.COMMANDS, frame.body)
            folder.book.acknowledge(sent, np.frombuffer(body, RESULT))
            await audit(client, self._faults, folder.book, folder.model)

    def _plan(self, folder: "_Folder") -> list[Sender]:
        settings, book, model = self._settings, folder.book, folder.model
        rows = [self._random.randrange(len(book)) for _ in range(UNITS_SHOWN)]
        units = [book.commands[book.unit_of(row)].tobytes() for row in rows if book.known[row]]
        holds = [
            OpenHold(account_bytes(key), account_bytes(hold.debit), account_bytes(hold.credit), hold.remaining)
            for key, hold in model.holds.items()
            if hold.remaining
        ]
        scene = Scene([account_bytes(key) for key in model.accounts], holds, units)
        return [
            Sender(
                book,
                Planner(
                    random.Random(self._random.getrandbits(64)), scene, f"crash:{self.summary.rounds}:{number}"
                ).frames(settings.frames, settings.commands_max),
                settings.in_flight,
            )
            for number in range(settings.connections)
        ]

    async def _load(self, node: NodeProcess, folder: "_Folder", *, stop: bool) -> None:
        """Load the node and end it in the midst; afterwards the folder knows what is unanswered."""
        senders = self._plan(folder)
        for sender in senders:
            await sender.connect(node.address)
        delay_s = self._random.uniform(0.0, KILL_DELAY_MAX_S)
        moment = 1.0 if stop else self._random.random()
        at_rotation = moment < ROTATION_SHARE
        at_checkpoint = not at_rotation and moment < ROTATION_SHARE + CHECKPOINT_SHARE
        for sender in senders:
            sender.start()
        if at_rotation:
            at_rotation = await _wait_for_file(folder.data, "segment-*", KILL_DELAY_MAX_S)
        elif at_checkpoint:
            at_checkpoint = await _wait_for_file(folder.data, "checkpoints/*-*", CHECKPOINT_WAIT_S)
        else:
            await asyncio.sleep(delay_s)
        if stop:
            await self._stop_under_load(node, senders)
        else:
            try:
                node.kill()
            except ProcessFailed as error:
                raise _Refused(str(error)) from error
            self.summary.kills_at_rotation += at_rotation
            self.summary.kills_at_checkpoint += at_checkpoint
            self._count_kill()
        for sender in senders:
            await sender.wait_ended()
            if not isinstance(sender.failure, ConnectionFailed):
                raise RigFailed(f"a connection ended with {sender.failure!r}")
        folder.senders = senders

    async def _stop_under_load(self, node: NodeProcess, senders: list[Sender]) -> None:
        """SIGTERM; the answers that the node still gives are taken while it stops."""
        node.ask_to_stop()
        for sender in senders:
            await sender.wait_ended()
        try:
            node.await_stop()
        except ProcessFailed as error:
            raise _Refused(str(error)) from error
        self.summary.stops += 1

    # ---- what is left ----

    def _look(self, folder: "_Folder", *, is_stopped: bool) -> Diagnosis:
        """Have the doctor look at the folder of a dead node."""
        diagnosis = examine(folder.data, free_space_floor=0)
        if diagnosis.torn_bytes:
            self.summary.torn_tails += 1
            self.summary.torn_bytes += diagnosis.torn_bytes
        never_there = diagnosis.verdict is Verdict.NOT_A_DATA_FOLDER and not len(folder.book)
        if diagnosis.verdict is not Verdict.HEALTHY and not never_there:
            what = "; ".join(f"{finding.kind} {finding.file}: {finding.found}" for finding in diagnosis.findings)
            self._faults.add(FaultKind.REFUSED, f"the doctor finds the folder {diagnosis.verdict}: {what}")
        if is_stopped and not diagnosis.clean_stop:
            self._faults.add(FaultKind.REFUSED, "the node was stopped, and its folder does not say so")
        folder.diagnosis = diagnosis
        return diagnosis

    def _verify(self, folder: "_Folder") -> dict[str, Any]:
        """Run `bezant verify` and hold it against the doctor; returns its report."""
        command = (sys.executable, "-m", "bezant", "verify", "--data", str(folder.data), "--json")
        done = subprocess.run(command, capture_output=True, timeout=VERIFY_TIMEOUT_S, check=False)
        if done.returncode != 0:
            raise _Refused(f"verify: {done.stderr.decode(errors='replace').strip()}")
        report: dict[str, Any] = json.loads(done.stdout)
        for name in ("events", "entries", "accounts", "chain_hash"):
            if report[name] != getattr(folder.diagnosis, name):
                text = f"{name}: verify says {report[name]}, the doctor {getattr(folder.diagnosis, name)}"
                self._faults.add(FaultKind.CHANGED, text)
        self.summary.verified += 1
        return report

    def _compare(self, folder: "_Folder", first: dict[str, Any] | None, second: dict[str, Any]) -> None:
        """The last report must be that of the book, and of the report before, if only repeats came between."""
        # Holds may have expired since the last audit; what else is in the history is a fault.
        folder.model.advance([], NO_COMMANDS, NO_RESULTS, second["events"], time.time_ns())
        if first is None or second["events"] != first["events"]:
            return  # holds have expired, or unanswered commands were sent again: the history has grown
        for name in ("state_digest", "chain_hash", "log_id", "accounts"):
            if first[name] != second[name]:
                text = f"{name} was {first[name]} before the restart, and is {second[name]} after it"
                self._faults.add(FaultKind.CHANGED, text)

    async def _check(self, node: NodeProcess, folder: "_Folder") -> None:
        """Everything that the node is asked after a restart."""
        book, model, senders = folder.book, folder.model, folder.senders
        try:
            async with ControlClient(node.address) as client:
                found, absent = await settle(client, book)
                self.summary.found += found
                self.summary.absent += absent
                for sender in senders:
                    check_order(self._faults, book, sender.sent)
                await audit(client, self._faults, book, model)
                await send_known_again(client, book)
                await retry(node.address, book, [list(sender.unanswered) for sender in senders])
                await audit(client, self._faults, book, model)
        except ConnectionFailed as error:
            if node.ended:
                raise _Refused(node.describe_end()) from error
            raise


class _Folder:
    """A data folder, and what is known of it."""

    def __init__(self, data: Path, faults: Faults) -> None:
        self.data = data
        self.book = Book(faults)
        self.model = Model(faults)
        self.senders: list[Sender] = []
        self.diagnosis: Diagnosis | None = None


class _Refused(BezantError):  # noqa: N818 - it says what happened, as in `bezant.protocol.errors`
    """A node did not start, or did not stop as it should, or did not verify."""


async def _wait_for_file(data: Path, pattern: str, timeout_s: float) -> bool:
    """Return true when a file of this kind appears, as it does when one is being made; else false."""
    before = _files(data, pattern)
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if _files(data, pattern) - before:
            return True
        await asyncio.sleep(FILES_POLL_S)
    return False


def _files(data: Path, pattern: str) -> set[str]:
    """Names in the shard's folder."""
    return {file.name for file in shard_directory(data, 0).path.glob(pattern)}
