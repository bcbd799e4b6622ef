"""Kernels of the load generator: build whole runs of COMMANDS frames, and check whole runs of replies.

A load generator that shares two cores with the node that it measures must cost a fraction of what it measures. So
nothing here is done a frame at a time in the interpreter: one call writes a run of frames, header, ids and checksum,
into the ring that they are sent from, and one call takes all the replies that arrived together on a connection.

The functions work on the arrays of a `FrameRing` (ring.py), which says what bounds them. Frame n of a run has the
request id n and lies in slot ``n & (slots - 1)`` of the ring. Words are int64; checksums are read and written through
a uint64 view of the same memory, because the two types do not mix.

Only frames of one transfer have their checksum made and checked here, since the kernel of XXH3-64 takes up to 240
bytes; for longer ones the caller uses the xxhash package, whose call costs little beside the bytes.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position: Numba unpacks names at every call.

from enum import IntEnum, unique
from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import inlined, kernel
from bezant.engine.hashing import XXH3_SHORT_MAX, XXH3_SHORT_MIN, xxh3_64
from bezant.perf.load.latency import record_latency
from bezant.protocol.frames import CHECKSUM_OFFSET_END, FRAME_HEADER_SIZE, PROTOCOL_VERSION, FrameFlag, Operation
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.records import COMMAND_SIZE, RESULT_SIZE, Bytes, Words

Checksums = npt.NDArray[np.uint64]
Owners = npt.NDArray[np.int16]

_WORD: Final = 8
HEADER_WORDS: Final = FRAME_HEADER_SIZE // _WORD
COMMAND_WORDS: Final = COMMAND_SIZE // _WORD
RESULT_WORDS: Final = RESULT_SIZE // _WORD

SHORT_FRAME_SIZE: Final = FRAME_HEADER_SIZE + COMMAND_SIZE
SHORT_REPLY_SIZE: Final = FRAME_HEADER_SIZE + RESULT_SIZE

# Words 1 of the headers, length apart: operation, version and flags above the 32 bits of the length.
REQUEST_WORD: Final = Operation.COMMANDS << 32 | PROTOCOL_VERSION << 40
_SHORT_REPLY_WORD: Final = SHORT_REPLY_SIZE | REQUEST_WORD | FrameFlag.REPLY << 48
# Word 14 of a command: code and flags are zero, the kind is in the last two bytes.
KIND_WORD: Final = CommandKind.TRANSFER << 48

_CHECKSUM_END: Final = CHECKSUM_OFFSET_END
_REPEATED: Final = int(ResultFlag.REPEATED)

AMOUNT_MAX: Final = 100
IDS_PER_MILLISECOND: Final = 4096
"""Rising ids that share a millisecond: as many as the 12 bits behind it in a UUIDv7 can number."""

_LOW_32: Final = (1 << 32) - 1
_LOW_47: Final = (1 << 47) - 1
_VARIANT_CLEAR: Final = ~0xC0
_VARIANT: Final = 0x80

CODE_COUNT: Final = 1024
"""Room for result codes: all that exist are below 400."""

TOTAL_REPEATED: Final = 0
TOTAL_LATENCY_MAX_NS: Final = 1
TOTAL_UNEXPECTED_NUMBER: Final = 2
TOTAL_UNEXPECTED_PART: Final = 3
TOTAL_COUNT: Final = 4


@unique
class ReplyFault(IntEnum):
    """What is wrong with a reply; kernels return the negative of it."""

    HEADER = 1
    CHECKSUM = 2
    REQUEST_ID = 3
    OWNER = 4
    RESULT_CODE = 5
    UNEXPECTED = 6


FAULT_MEANING: Final = {
    ReplyFault.HEADER: "a reply is not one to a frame of commands",
    ReplyFault.CHECKSUM: "the checksum of a reply is wrong",
    ReplyFault.REQUEST_ID: "a reply has the id of no request that is waiting",
    ReplyFault.OWNER: "a reply came on another connection than its request went out on",
    ReplyFault.RESULT_CODE: "a result has a code beyond the table",
    ReplyFault.UNEXPECTED: "a result is not the one that was expected",
}

_FAULT_HEADER: Final = -int(ReplyFault.HEADER)
_FAULT_CHECKSUM: Final = -int(ReplyFault.CHECKSUM)
_FAULT_REQUEST_ID: Final = -int(ReplyFault.REQUEST_ID)
_FAULT_OWNER: Final = -int(ReplyFault.OWNER)
_FAULT_RESULT_CODE: Final = -int(ReplyFault.RESULT_CODE)

if not XXH3_SHORT_MIN <= SHORT_REPLY_SIZE - _CHECKSUM_END <= SHORT_FRAME_SIZE - _CHECKSUM_END <= XXH3_SHORT_MAX:
    raise AssertionError("frames of one transfer do not fit the checksum kernel")


@kernel
def draw(random: Words) -> int:
    """The next 64 random bits, never zero, of an xorshift generator (Marsaglia 2003) whose state is ``random[0]``.

    The state goes through every value but zero once before it repeats: ids made from it do not collide within a run.
    """
    state: int = random[0]
    state ^= state << 13
    state ^= (state >> 7) & ((1 << 57) - 1)
    state ^= state << 17
    random[0] = state
    return state


@inlined
def write_id(words: Words, command: int, rising_from_ms: int, rising: np.int64, random: Words) -> None:
    """Write the id of the command at a word: the `rising`-th from a millisecond on, or a random one for 0."""
    if rising_from_ms > 0:
        millisecond = rising_from_ms + rising // IDS_PER_MILLISECOND
        within = rising % IDS_PER_MILLISECOND
        # Bytes 0 to 5 are the millisecond and bytes 6 and 7 the version and the number within it, both with the
        # highest byte first, as UUIDv7 has them; the word is read with the lowest byte first.
        head = (within & 0xFF) << 8 | 0x70 | within >> 8
        for byte in range(6):
            head = head << 8 | (millisecond >> 8 * byte) & 0xFF
        words[command] = head
        words[command + 1] = (draw(random) & _VARIANT_CLEAR) | _VARIANT
    else:
        words[command] = draw(random)
        words[command + 1] = draw(random)


@kernel
def build_commands(
    ring: Bytes,
    words: Words,
    checksums: Checksums,
    frame_first: int,
    frame_count: int,
    transfers_total: int,
    batch: int,
    rising_from_ms: int,
    account_heads: Words,
    account_tails: Words,
    random: Words,
) -> None:
    """Write frames `frame_first` and the `frame_count - 1` after it into their slots, which lie in one run.

    Each is `batch` transfers of 1 to AMOUNT_MAX between two random accounts; the last frame of all has what is left of
    `transfers_total`. Ids begin with the millisecond `rising_from_ms` and rise from there, or are random for 0.
    Fields that stay zero are not written: the ring was zeros to start with. Checksums are left out unless `batch` is 1.
    """
    frame_words = HEADER_WORDS + batch * COMMAND_WORDS
    slots = words.shape[0] // frame_words
    account_count = account_heads.shape[0]
    rising = np.int64(0)  # of 64 bits uncompiled as well, so that the shifts below drop what leaves a word
    for frame in range(frame_first, frame_first + frame_count):
        start = (frame & (slots - 1)) * frame_words
        count = min(batch, transfers_total - frame * batch)
        length = FRAME_HEADER_SIZE + count * COMMAND_SIZE
        words[start + 1] = REQUEST_WORD | length
        words[start + 2] = frame
        for number in range(count):
            command = start + HEADER_WORDS + number * COMMAND_WORDS
            write_id(words, command, rising_from_ms, rising, random)
            rising += 1
            choice = draw(random)
            debit = ((choice >> 32 & _LOW_32) * account_count) >> 32
            credit = ((choice & _LOW_32) * (account_count - 1)) >> 32
            if credit >= debit:
                credit += 1
            words[command + 2] = account_heads[debit]
            words[command + 3] = account_tails[debit]
            words[command + 4] = account_heads[credit]
            words[command + 5] = account_tails[credit]
            words[command + 10] = 1 + (draw(random) >> 16 & _LOW_47) % AMOUNT_MAX
            words[command + 14] = KIND_WORD
        if batch == 1:
            checksums[start] = xxh3_64(ring, start * _WORD + _CHECKSUM_END, start * _WORD + length)


@kernel
def mark_sent(sent_ns: Words, owners: Owners, first_slot: int, frame_count: int, connection: int, now_ns: int) -> None:
    """Note when and on which connection the frames of a run of slots were sent."""
    for slot in range(first_slot, first_slot + frame_count):
        sent_ns[slot] = now_ns
        owners[slot] = connection


@kernel
def settle(
    request_id: int,
    connection: int,
    built: int,
    now_ns: int,
    weight: int,
    granule_shift: int,
    sent_ns: Words,
    owners: Owners,
    outstanding: Words,
    histogram: Words,
    totals: Words,
) -> int:
    """Take one reply off the waiting requests and record its latency for `weight` transfers.

    Only ids in the window of the ring's slots before `built` can be waiting, so a slot stands for one of them. Returns
    0, or the negative of a `ReplyFault`.
    """
    slots = sent_ns.shape[0]
    if not built - slots <= request_id < built or request_id < 0:
        return _FAULT_REQUEST_ID
    slot = request_id & (slots - 1)
    sent_at = sent_ns[slot]
    if sent_at == 0:
        return _FAULT_REQUEST_ID
    if owners[slot] != connection:
        return _FAULT_OWNER
    sent_ns[slot] = 0
    outstanding[slot >> granule_shift] -= 1
    latency_ns = now_ns - sent_at
    record_latency(histogram, latency_ns, weight)
    totals[TOTAL_LATENCY_MAX_NS] = max(totals[TOTAL_LATENCY_MAX_NS], latency_ns)
    return 0


@kernel
def count_results(words: Words, first_word: int, count: int, codes: Words, totals: Words) -> int:
    """Count the codes of `count` results that begin at a word of a reply; 0, or the negative of a `ReplyFault`."""
    for number in range(count):
        word = words[first_word + number * RESULT_WORDS]
        code = word & 0xFFFF
        if code >= CODE_COUNT:
            return _FAULT_RESULT_CODE
        codes[code] += 1
        totals[TOTAL_REPEATED] += (word >> 16) & _REPEATED
    return 0


@kernel
def take_short_replies(
    received: Bytes,
    words: Words,
    checksums: Checksums,
    start: int,
    end: int,
    connection: int,
    built: int,
    now_ns: int,
    granule_shift: int,
    sent_ns: Words,
    owners: Owners,
    outstanding: Words,
    codes: Words,
    histogram: Words,
    totals: Words,
) -> int:
    """Check and count every whole reply of one result in ``received[start:end]``, where `start` is a multiple of 8.

    Returns how many there were, or the negative of a `ReplyFault`.
    """
    taken = 0
    offset = start
    while end - offset >= FRAME_HEADER_SIZE:
        word = offset // _WORD
        if words[word + 1] != _SHORT_REPLY_WORD:
            return _FAULT_HEADER
        if end - offset < SHORT_REPLY_SIZE:
            break
        if xxh3_64(received, offset + _CHECKSUM_END, offset + SHORT_REPLY_SIZE) != checksums[word]:
            return _FAULT_CHECKSUM
        fault = settle(
            words[word + 2],
            connection,
            built,
            now_ns,
            1,
            granule_shift,
            sent_ns,
            owners,
            outstanding,
            histogram,
            totals,
        )
        if fault == 0:
            fault = count_results(words, word + HEADER_WORDS, 1, codes, totals)
        if fault != 0:
            return fault
        taken += 1
        offset += SHORT_REPLY_SIZE
    return taken
