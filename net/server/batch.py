"""A batch: what is executed together. It fills while frames arrive, is executed once, and waits for the log."""

import asyncio
import struct
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

import numpy as np
import xxhash

from bezant.engine.compiled import direct
from bezant.engine.hashing import XXH3_SHORT_MAX
from bezant.engine.replica import BATCH_COMMANDS_MAX
from bezant.net.access.hiding import hide_in_results
from bezant.net.server.chain_kernels import preset_unterminated, preset_unterminated_span
from bezant.net.server.frame_kernels import (
    CURSOR_COMMANDS,
    CURSOR_DEADLINES,
    CURSOR_FRAMES,
    CURSOR_OPEN_CHAINS,
    CURSOR_SIZE,
    CURSOR_SUSPECTS,
    FRAME,
    encode_replies,
    preset_expired,
    reply_offset,
    reply_size,
)
from bezant.net.server.leg_kernels import has_suspects, preset_legs, preset_legs_span
from bezant.net.server.requests import AnsweredElsewhere
from bezant.protocol.access import ANYBODY, Principal
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import CHECKSUM_OFFSET_END, FRAME_HEADER_SIZE, FrameFlag, Operation, encode_frame
from bezant.protocol.kinds import CommandFlag
from bezant.protocol.messages import ErrorMessage, encode_message
from bezant.protocol.records import COMMAND, RESULT, RESULT_SIZE, Records, Words

_CHECKSUM: Final = struct.Struct("<Q")
_WORD_MASK: Final = (1 << 64) - 1
_UNDECIDED: Final = int(ResultCode.UNDECIDED)
_NO_COMMANDS: Final = np.zeros(0, COMMAND)
_NO_RESULTS: Final = np.zeros(0, RESULT)
_NO_REPLIES: Final = memoryview(b"")
_NO_PRESET: Final = np.zeros(0, np.int64)


class Replier(Protocol):
    """Whoever gets replies: a connection."""

    principal: Principal
    """Who is at its other end."""

    def send_replies(self, replies: bytes | memoryview, request_bytes: int) -> None:
        """Send encoded replies to frames that were `request_bytes` long together."""
        ...

    def send_elsewhere(self) -> None:
        """Take nothing more: what was refused is sent again elsewhere, and what follows must not come before it."""
        ...


class Run(NamedTuple):
    """Frames of one connection that follow one another in a batch."""

    replier: Replier
    frame_first: int
    frame_end: int
    request_bytes: int
    received_ns: int
    """When they came, on the monotonic clock."""


class Submission(NamedTuple):
    """Commands that a client in the process itself has submitted, without a socket."""

    future: "asyncio.Future[Records]"
    command_first: int
    command_end: int


class Request(NamedTuple):
    """A request that reads or changes state in its place among the commands, but is not one.

    `respond` gets the body of the reply, or the error instead, when all that it rests on is durable. `principal` is who
    asks.
    """

    operation: Operation
    body: bytes
    respond: Callable[[bytes | Exception], None]
    principal: Principal = ANYBODY


class Batch:
    """Commands of many frames in one array, and who waits for them."""

    def __init__(self, room: "Batch | None" = None) -> None:
        """`room`: a batch whose room for commands and frames this one has from now on."""
        self.commands: Records = np.zeros(BATCH_COMMANDS_MAX, COMMAND) if room is None else room.commands
        self.command_words = self.commands.view(np.int64).reshape(BATCH_COMMANDS_MAX, -1)
        self.frames: Records = np.zeros(BATCH_COMMANDS_MAX, FRAME) if room is None else room.frames
        self.cursor = np.zeros(CURSOR_SIZE, np.int64)
        self.runs: list[Run] = []
        self.limited_runs: list[Run] = []
        """Those of the runs whose senders may know of certain accounts alone."""
        self.submissions: list[Submission] = []
        self.requests: list[Request] = []
        self.answers: list[tuple[Request, bytes | Exception]] = []
        self.results: Records = _NO_RESULTS
        self.replies = _NO_REPLIES
        self.index = 0
        self.read_ticket = 0
        """Number of the question whether this node still leads, if answers depend on that; else 0."""
        self.undecided_count = 0
        """Transfers to other shards whose results are not known yet."""
        self.started_s = 0.0
        """When its execution began, by the performance counter."""
        self.executed_s = self.begun_s = self.synced_s = 0.0
        """When it was executed, handed to the disk, and durable here, by the performance counter; 0 if it is not yet,
        or if its results wait for more than that."""
        self._encode = direct(encode_replies)

    def clear(self) -> None:
        """Make it ready to be filled again."""
        self.cursor[:] = 0
        self.runs.clear()
        self.limited_runs.clear()
        self.submissions.clear()
        self.requests.clear()
        self.answers.clear()
        self.results = _NO_RESULTS
        self.replies = _NO_REPLIES
        self.read_ticket = 0
        self.undecided_count = 0
        self.executed_s = self.begun_s = self.synced_s = 0.0

    def rows_of(self, run: Run) -> tuple[int, int]:
        """Numbers of the first command of a run and of the one behind its last."""
        last = self.frames[run.frame_end - 1]
        return int(self.frames[run.frame_first]["first_command"]), int(last["first_command"] + last["command_count"])

    @property
    def command_count(self) -> int:
        """Commands so far."""
        return int(self.cursor[CURSOR_COMMANDS])

    @property
    def frame_count(self) -> int:
        """Frames so far."""
        return int(self.cursor[CURSOR_FRAMES])

    @property
    def has_deadlines(self) -> bool:
        """Whether any frame has one."""
        return bool(self.cursor[CURSOR_DEADLINES])

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits for it."""
        return not (self.runs or self.submissions or self.requests)

    def has_room(self, commands: int) -> bool:
        """Whether so many more commands fit."""
        return self.command_count + commands <= BATCH_COMMANDS_MAX

    def preset(self, now_ns: int) -> Words:
        """Codes that refuse commands before the ledger sees them.

        Because their deadline has passed, nodes alone may send them, or their chain is open.
        Empty if there are none, as usual.
        """
        chains_open = self._leaves_chains_open()
        if not (self.has_deadlines or chains_open or self.cursor[CURSOR_SUSPECTS]):
            return _NO_PRESET
        preset = np.zeros(self.command_count, np.int64)
        if self.has_deadlines:
            preset_expired(self.frames, self.frame_count, now_ns, preset)
        if self.cursor[CURSOR_SUSPECTS]:
            preset_legs(self.frames, self.frame_count, self.command_words, preset)
            for _, command_first, command_end in self.submissions:
                preset_legs_span(self.command_words, command_first, command_end, preset)
        if chains_open:
            preset_unterminated(self.frames, self.frame_count, self.command_words, preset)
            for _, command_first, command_end in self.submissions:
                preset_unterminated_span(self.command_words, command_first, command_end, preset)
        return preset if preset.any() else _NO_PRESET

    def _leaves_chains_open(self) -> bool:
        if self.cursor[CURSOR_OPEN_CHAINS]:
            return True
        if not self.submissions:
            return False
        flags = self.commands["flags"]
        ends = [submission.command_end for submission in self.submissions]
        return any(flags[end - 1] & CommandFlag.LINKED for end in ends if end)

    def add_submission(self, commands: Records, future: "asyncio.Future[Records]") -> None:
        """Add commands of a client in the process itself; there must be room."""
        first = self.command_count
        end = first + len(commands)
        self.commands[first:end] = commands
        self.cursor[CURSOR_COMMANDS] = end
        if has_suspects(self.command_words, first, end):
            self.cursor[CURSOR_SUSPECTS] = 1
        self.submissions.append(Submission(future, first, end))

    def encode_replies(self) -> None:
        """Encode the replies to all connections, to be sent by `send_replies`."""
        if not self.runs:
            return
        for run in self.limited_runs:
            first, end = self.rows_of(run)
            hide_in_results(self.results[first:end], self.commands[first:end])
        frame_count = self.frame_count
        last = self.frames[frame_count - 1]
        size = reply_offset(self.frames, frame_count - 1) + reply_size(1, int(last["command_count"]))
        out = np.empty(size // 8, np.int64)
        out_bytes = out.view(np.uint8)
        result_words = self.results.view(np.int64).reshape(len(self.results), RESULT_SIZE // 8)
        self.replies = out_bytes.data
        if self._encode(self.frames, frame_count, result_words, out, out_bytes):
            self._seal_long_replies(self.replies)

    def send_replies(self) -> None:
        """Tell everybody their results. All of it must be durable."""
        if self.runs:
            self._send_to_connections()
        self._tell_submissions(self.submissions)
        for request, answer in self.answers:
            request.respond(answer)

    def give_room(self) -> "Batch":
        """An empty batch with this one's room for commands and frames; this one keeps what is left to be told."""
        spare = Batch(self)
        self.frames = self.frames[: self.frame_count].copy()
        self.commands = self.commands[: self.command_count].copy() if self.limited_runs else _NO_COMMANDS
        return spare

    @property
    def kept_bytes(self) -> int:
        """What it keeps in memory behind `give_room`."""
        return self.results.nbytes + self.frames.nbytes + self.commands.nbytes

    def send_decided(self, behind: set[Replier]) -> list[Run]:
        """Tell those whose results are decided, and answer all requests; returns the runs that have been told.

        All of it must be durable. Nothing is told to connections that are `behind`, for which something waits that is
        to be told before; those of the runs that are left are added to them.
        """
        told: list[Run] = []
        left: list[Run] = []
        for run in self.runs:
            is_left = run.replier in behind or self._is_undecided(*self.rows_of(run))
            if is_left:
                behind.add(run.replier)
            (left if is_left else told).append(run)
        if told:
            self.encode_replies()
            for run in told:
                start = reply_offset(self.frames, run.frame_first)
                end = (
                    reply_offset(self.frames, run.frame_end) if run.frame_end < self.frame_count else len(self.replies)
                )
                run.replier.send_replies(bytes(self.replies[start:end]), run.request_bytes)
            self.replies = _NO_REPLIES
        self.runs = left
        decided: list[Submission] = []
        waiting: list[Submission] = []
        for one in self.submissions:
            (waiting if self._is_undecided(one.command_first, one.command_end) else decided).append(one)
        self._tell_submissions(decided)
        self.submissions = waiting
        answers, self.answers = self.answers, []
        for request, answer in answers:
            request.respond(answer)
        return told

    def _is_undecided(self, first: int, end: int) -> bool:
        return self.undecided_count > 0 and bool((self.results["code"][first:end] == _UNDECIDED).any())

    def _tell_submissions(self, submissions: list[Submission]) -> None:
        for future, command_first, command_end in submissions:
            if not future.done():
                future.set_result(self.results[command_first:command_end].copy())

    def refuse(self, error: AnsweredElsewhere) -> None:
        """Tell everybody, instead of results, that another node is to be asked."""
        body = encode_message(ErrorMessage(int(error.code), str(error), error.leader))
        request_ids = self.frames["request_id"][: self.frame_count].tolist()
        for run in self.runs:
            frames = [
                encode_frame(Operation.ERROR, request_id & _WORD_MASK, body, flags=FrameFlag.REPLY)
                for request_id in request_ids[run.frame_first : run.frame_end]
            ]
            run.replier.send_elsewhere()
            run.replier.send_replies(b"".join(frames), run.request_bytes)
        for submission in self.submissions:
            if not submission.future.done():
                submission.future.set_exception(error)
        for request in [*self.requests, *(request for request, _ in self.answers)]:
            request.respond(error)
        self.requests.clear()

    def _send_to_connections(self) -> None:
        if not self.replies:
            self.encode_replies()
        view, size, frame_count = self.replies, len(self.replies), self.frame_count
        start = 0
        for run in self.runs:
            end = reply_offset(self.frames, run.frame_end) if run.frame_end < frame_count else size
            replies = view[start:end]
            # Copied unless they are most of it: unsent, a view of a few replies would keep those of all in memory.
            run.replier.send_replies(replies if 2 * len(replies) > size else bytes(replies), run.request_bytes)
            start = end

    def _seal_long_replies(self, view: memoryview) -> None:
        """Write the checksums that the kernel has left to us."""
        counts = self.frames["command_count"][: self.frame_count]
        for number in np.flatnonzero(FRAME_HEADER_SIZE + counts * RESULT_SIZE > XXH3_SHORT_MAX).tolist():
            start = reply_offset(self.frames, number)
            end = start + reply_size(1, int(counts[number]))
            _CHECKSUM.pack_into(view, start, xxhash.xxh3_64_intdigest(view[start + CHECKSUM_OFFSET_END : end]))
