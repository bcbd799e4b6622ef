"""A ring of prepared frames: built ahead of need, sent as slices without a copy, and reused once answered.

Three counters of frames say all, and only ever grow: ``answered <= sent <= built <= answered + slots``. A slot is free
again when its frame has been answered, because only then is it certain that the socket holds no more reference to its
bytes; replies come in any order, so this is kept by *granule*, a run of slots that are built and freed together.
Building a granule takes some tens of microseconds, short enough to be done between two replies.
"""

import time

import numpy as np

from bezant.perf.load.frames import (
    CODE_COUNT,
    FAULT_MEANING,
    IDS_PER_MILLISECOND,
    RESULT_WORDS,
    SHORT_REPLY_SIZE,
    TOTAL_COUNT,
    TOTAL_LATENCY_MAX_NS,
    TOTAL_REPEATED,
    TOTAL_UNEXPECTED_NUMBER,
    TOTAL_UNEXPECTED_PART,
    ReplyFault,
    build_commands,
    count_results,
    mark_sent,
    settle,
    take_short_replies,
)
from bezant.perf.load.latency import new_histogram, percentiles_us
from bezant.perf.load.limits import (
    check_in_flight,
    frame_size,
    granule_frames,
    mixed_slots,
    power_of_two_above,
    slots_max,
)
from bezant.perf.load.mixed import (
    EXPECTED_CODES,
    PART_NAMES,
    Part,
    UnexpectedResult,
    build_parts,
    check_results,
    expected_codes,
    lay_out_parts,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import RemoteProtocolError
from bezant.protocol.frames import (
    FRAME_HEADER_SIZE,
    FrameFlag,
    FrameHeader,
    Operation,
    check_frame,
    decode_header,
    frame_checksum,
)
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.records import COMMAND_SIZE, RESULT, RESULT_SIZE, Bytes, Words


class ReceiveBuffer:
    """The bytes that have arrived on one connection and not been taken, in one array; `start` and `end` bound them."""

    def __init__(self, size: int) -> None:
        self.bytes: Bytes = np.zeros(-(-size // 8) * 8, np.uint8)
        self.words = self.bytes.view(np.int64)
        self.checksums = self.bytes.view(np.uint64)
        self.view = memoryview(self.bytes.data)
        self.start = 0
        self.end = 0

    def room(self, reply_size: int) -> memoryview:
        """Where the next bytes go: enough to complete a reply, whose beginning moves to the front if need be."""
        if self.start == self.end:
            self.start = self.end = 0
        elif len(self.bytes) - self.start < reply_size:
            left = self.end - self.start
            self.bytes[:left] = self.bytes[self.start : self.end].copy()
            self.start, self.end = 0, left
        return self.view[self.end :]


class FrameRing:
    """The frames of one run: `transfers` transfers in frames of `batch`, between accounts given by their id words.

    With a `table` (zipf.py) the accounts are chosen by it, else all with equal chance. With `mixed` as well the
    commands are those of mixed.py, which also says which accounts have to follow the ones of the table.
    """

    def __init__(
        self,
        *,
        transfers: int,
        batch: int,
        frames_in_flight_max: int,
        rising_ids: bool,
        seed: int,
        account_heads: Words,
        account_tails: Words,
        table: Words | None = None,
        mixed: bool = False,
    ) -> None:
        self.transfers = transfers
        self.batch = batch
        self.frame_size = frame_size(batch)
        self.frame_count = -(-transfers // batch)
        in_flight_max = min(frames_in_flight_max, self.frame_count)
        check_in_flight(in_flight_max, batch)
        if mixed:
            self.slots = mixed_slots(in_flight_max, batch)
        else:
            self.slots = min(slots_max(batch), power_of_two_above(max(self.frame_count, 2)))
        self.granule_frames = granule_frames(batch, self.slots)
        self._granule_shift = self.granule_frames.bit_length() - 1
        self._bytes: Bytes = np.zeros(self.slots * self.frame_size, np.uint8)
        self._words = self._bytes.view(np.int64)
        self._checksums = self._bytes.view(np.uint64)
        self._view = memoryview(self._bytes.data)
        self._sent_ns = np.zeros(self.slots, np.int64)
        self._owners = np.zeros(self.slots, np.int16)
        self._outstanding = np.zeros(self.slots >> self._granule_shift, np.int64)
        self._rising_ids = rising_ids
        self._last_ms = 0
        self._random = np.array([seed_word(seed)], np.int64)
        self._account_heads = account_heads
        self._account_tails = account_tails
        self._table = table
        self._mixed = mixed
        self._parts = lay_out_parts(self.slots, batch, seed) if mixed else np.zeros(self.slots * batch, np.uint8)
        self._expected = expected_codes()
        self._part_counts = np.zeros(len(Part), np.int64)
        self.built = 0
        self.sent = 0
        self.answered = 0
        self.histogram = new_histogram()
        self._codes = np.zeros(CODE_COUNT, np.int64)
        self._totals = np.zeros(TOTAL_COUNT, np.int64)

    @property
    def finished(self) -> bool:
        """Whether every frame of the run has been answered."""
        return self.answered == self.frame_count

    @property
    def can_prepare(self) -> bool:
        """Whether the next granule's slots are free and frames are left to build."""
        granule = (self.built & (self.slots - 1)) >> self._granule_shift
        return self.built < self.frame_count and self._outstanding[granule] == 0

    def transfers_in(self, frame: int) -> int:
        """How many transfers a frame carries: `batch`, but for the last."""
        return min(self.batch, self.transfers - frame * self.batch)

    def prepare(self) -> bool:
        """Build the next granule if its slots are free and frames are left to build; say whether it did."""
        if not self.can_prepare:
            return False
        slot = self.built & (self.slots - 1)
        count = min(self.granule_frames, self.frame_count - self.built)
        self._build(count)
        if self.batch > 1:
            self._seal(slot, count)
        self._outstanding[slot >> self._granule_shift] = count
        self.built += count
        return True

    def _build(self, count: int) -> None:
        """Write the next `count` frames, which lie in one run."""
        where = (self._bytes, self._words, self._checksums)
        which = (self.built, count, self.transfers, self.batch, self._next_millisecond(count * self.batch))
        accounts = (self._account_heads, self._account_tails)
        if self._table is None:
            build_commands(*where, *which, *accounts, self._random)
        else:
            build_parts(*where, *which, self._parts, self._table, *accounts, self._random)

    def _next_millisecond(self, id_count: int) -> int:
        """The first millisecond of the next ids: now, or later if earlier ids ran ahead of the clock. 0 if random."""
        if not self._rising_ids:
            return 0
        first_ms = max(self._last_ms + 1, time.time_ns() // 1_000_000)
        self._last_ms = first_ms + (id_count - 1) // IDS_PER_MILLISECOND
        return first_ms

    def _seal(self, slot: int, count: int) -> None:
        """Write the checksums of frames that are too long for the kernel's."""
        for number in range(count):
            start = (slot + number) * self.frame_size
            end = start + FRAME_HEADER_SIZE + self.transfers_in(self.built + number) * COMMAND_SIZE
            self._checksums[start >> 3] = frame_checksum(self._view[start:end])

    def take(self, count_max: int, connection: int, now_ns: int) -> tuple[int, memoryview]:
        """Hand out the next frames to send, at most `count_max`: how many, and their bytes.

        They lie in one run, so there may be more to take after it; with none prepared and none that can be, 0. The
        bytes stay as they are until the frames are answered.
        """
        if self.sent == self.built and not self.prepare():
            return 0, self._view[:0]
        slot = self.sent & (self.slots - 1)
        count = min(count_max, self.built - self.sent, self.slots - slot)
        mark_sent(self._sent_ns, self._owners, slot, count, connection, now_ns)
        self.sent += count
        start = slot * self.frame_size
        if self.sent == self.frame_count:
            end = start + (count - 1) * self.frame_size
            end += FRAME_HEADER_SIZE + self.transfers_in(self.frame_count - 1) * COMMAND_SIZE
        else:
            end = start + count * self.frame_size
        return count, self._view[start:end]

    def take_replies(self, buffer: ReceiveBuffer, connection: int, now_ns: int) -> int:
        """Check and count the whole replies at the front of a connection's buffer; how many they were.

        Raises `RemoteProtocolError` for anything that is not the right answer to a request that is waiting.
        """
        take = self._take_short if self.batch == 1 else self._take_long
        taken = take(buffer, connection, now_ns)
        self.answered += taken
        return taken

    def warm_reply_kernels(self) -> None:
        """Load or compile the kernels that take replies, by replies that answer nothing."""
        buffer = ReceiveBuffer(8)
        self._take_short(buffer, 0, 0)
        self._settle(-1, 0, 0, 0)
        self._count_results(buffer.words, 0, 0, 0)

    def _take_short(self, buffer: ReceiveBuffer, connection: int, now_ns: int) -> int:
        taken = take_short_replies(
            buffer.bytes,
            buffer.words,
            buffer.checksums,
            buffer.start,
            buffer.end,
            connection,
            self.built,
            now_ns,
            self._granule_shift,
            self._sent_ns,
            self._owners,
            self._outstanding,
            self._codes,
            self.histogram,
            self._totals,
        )
        if taken < 0:
            raise RemoteProtocolError(FAULT_MEANING[ReplyFault(-taken)])
        buffer.start += taken * SHORT_REPLY_SIZE
        return taken

    def _take_long(self, buffer: ReceiveBuffer, connection: int, now_ns: int) -> int:
        taken = 0
        while buffer.end - buffer.start >= FRAME_HEADER_SIZE:
            header = decode_header(buffer.view[buffer.start : buffer.start + FRAME_HEADER_SIZE])
            self._check_reply_header(header)
            end = buffer.start + header.length
            if end > buffer.end:
                break
            check_frame(buffer.view[buffer.start : end])
            count = (header.length - FRAME_HEADER_SIZE) // RESULT_SIZE
            fault = self._settle(header.request_id, connection, now_ns, count)
            if fault == 0:
                first_word = (buffer.start + FRAME_HEADER_SIZE) >> 3
                fault = self._count_results(buffer.words, first_word, count, header.request_id)
            if fault == -ReplyFault.UNEXPECTED:
                raise self._describe_unexpected(buffer.words, first_word, header.request_id)
            if fault != 0:
                raise RemoteProtocolError(FAULT_MEANING[ReplyFault(-fault)])
            buffer.start = end
            taken += 1
        return taken

    def _count_results(self, words: Words, first_word: int, count: int, frame: int) -> int:
        if not self._mixed:
            return count_results(words, first_word, count, self._codes, self._totals)
        return check_results(
            words,
            first_word,
            count,
            frame,
            self.slots,
            self.transfers // self.batch,
            self.batch,
            self._parts,
            self._expected,
            self._part_counts,
            self._codes,
            self._totals,
        )

    def _describe_unexpected(self, words: Words, first_word: int, frame: int) -> UnexpectedResult:
        number = int(self._totals[TOTAL_UNEXPECTED_NUMBER])
        part = Part(int(self._totals[TOTAL_UNEXPECTED_PART]))
        result = words[first_word + number * RESULT_WORDS : first_word + (number + 1) * RESULT_WORDS].view(RESULT)[0]
        repeated = " as a repeat" if int(result["flags"]) & ResultFlag.REPEATED else ""
        return UnexpectedResult(
            f"command {number} of frame {frame} ({PART_NAMES[part]}) was answered {_code_name(int(result['code']))}"
            f"{repeated}, not {EXPECTED_CODES[part].name}"
        )

    def _settle(self, request_id: int, connection: int, now_ns: int, weight: int) -> int:
        return settle(
            request_id,
            connection,
            self.built,
            now_ns,
            weight,
            self._granule_shift,
            self._sent_ns,
            self._owners,
            self._outstanding,
            self.histogram,
            self._totals,
        )

    def _check_reply_header(self, header: FrameHeader) -> None:
        """Check a reply's header before its body is there, so that no length makes the connection wait for ever."""
        known = header.operation == Operation.COMMANDS and header.flags == FrameFlag.REPLY
        if not known or not 0 <= header.request_id < self.sent:
            raise RemoteProtocolError(FAULT_MEANING[ReplyFault.HEADER])
        count = self.transfers_in(header.request_id)
        if header.length != FRAME_HEADER_SIZE + count * RESULT_SIZE:
            raise RemoteProtocolError(f"a reply to {count} commands has {header.length} bytes")

    @property
    def accepted(self) -> int:
        """Transfers that were committed, repeats included."""
        return int(self._codes[ResultCode.COMMITTED])

    @property
    def repeated(self) -> int:
        """Results that repeat the outcome of an earlier command with the same id."""
        return int(self._totals[TOTAL_REPEATED])

    @property
    def latency_max_ns(self) -> int:
        """The longest time from send to reply."""
        return int(self._totals[TOTAL_LATENCY_MAX_NS])

    def rejected_codes(self) -> dict[str, int]:
        """How many transfers were rejected with each code."""
        return {_code_name(int(code)): int(self._codes[code]) for code in np.flatnonzero(self._codes) if code != 0}

    def kinds(self) -> dict[str, int]:
        """How many commands of each kind have been answered, by the names of PART_NAMES."""
        if not self._mixed:
            return {PART_NAMES[Part.PLAIN]: int(self._codes.sum())}
        counts = dict.fromkeys(PART_NAMES.values(), 0)
        for part in Part:
            counts[PART_NAMES[part]] += int(self._part_counts[part])
        return counts

    def latency_us(self) -> dict[str, float | None]:
        """Percentiles and maximum of the time from send to reply, each transfer counted, in microseconds."""
        return percentiles_us(self.histogram, self.latency_max_ns)


def _code_name(code: int) -> str:
    return ResultCode(code).name if code in ResultCode.__members__.values() else str(code)


def seed_word(seed: int) -> int:
    """Spread a seed to a word that is a good first state for the generator (never zero), as splitmix64 does."""
    mask = (1 << 64) - 1
    value = (seed + 1) * 0x9E3779B97F4A7C15 & mask
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & mask
    value = (value ^ value >> 27) * 0x94D049BB133111EB & mask
    value = value ^ value >> 31 or 1
    return value - (1 << 64) if value >> 63 else value
