"""Compiled work on frames: a run of pipelined frames is taken as one array, and answered as one.

`scan_frames` walks the frames in a receive buffer, checks them and copies their commands behind those of the batch; it
stops where something needs the interpreter (another operation, a frame too long for the kernel's checksum, an error)
and says why. `encode_replies` writes the reply frames of a whole batch, back to back in the order of its frames.
"""

from typing import Any, Final

import numpy as np

from bezant.engine.compiled import inlined, kernel
from bezant.engine.hashing import XXH3_SHORT_MAX, load_word, store_word, xxh3_64
from bezant.net.server.chain_kernels import is_linked
from bezant.net.server.leg_kernels import is_suspect
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import (
    FRAME_HEADER_SIZE,
    FRAME_SIZE_MAX,
    PROTOCOL_VERSION,
    FrameFlag,
    Operation,
)
from bezant.protocol.records import COMMAND_SIZE, RESULT_SIZE, Bytes, Records, Words

FRAME: Final = np.dtype(
    [
        ("request_id", "<i8"),
        ("first_command", "<i8"),
        ("command_count", "<i8"),
        ("deadline_ns", "<i8"),
    ]
)
"""A COMMANDS frame within a batch."""

SCAN_INCOMPLETE: Final = 0
SCAN_OTHER_OPERATION: Final = 1
SCAN_LONG: Final = 2
SCAN_FULL: Final = 3
SCAN_CHECKSUM_WRONG: Final = 4
SCAN_LENGTH_INVALID: Final = 5
SCAN_VERSION_UNSUPPORTED: Final = 6
SCAN_BODY_MALFORMED: Final = 7

CURSOR_OFFSET: Final = 0
CURSOR_COMMANDS: Final = 1
CURSOR_FRAMES: Final = 2
CURSOR_VERIFIED: Final = 3
CURSOR_DEADLINES: Final = 4
CURSOR_LENGTH: Final = 5
CURSOR_OPEN_CHAINS: Final = 6
CURSOR_SUSPECTS: Final = 7
CURSOR_SIZE: Final = 8
"""What `scan_frames` reads and advances: offset in the buffer, commands and frames in the batch, the offset of a
frame whose checksum has been checked already (-1: none), whether any has a deadline, the length of the frame at which
it stopped, whether any frame leaves a chain open, whether any command may be one that nodes alone may send."""

_COMMAND_WORDS: Final = COMMAND_SIZE // 8
_RESULT_WORDS: Final = RESULT_SIZE // 8
_OPERATION_COMMANDS: Final = int(Operation.COMMANDS)
_REPLY: Final = int(FrameFlag.REPLY)
_DEADLINE_PASSED: Final = int(ResultCode.DEADLINE_PASSED)
_NS_PER_MS: Final = 1_000_000

_REPLY_HEAD: Final = _OPERATION_COMMANDS << 32 | PROTOCOL_VERSION << 40 | _REPLY << 48
"""The second word of a reply's header without its length."""


@inlined
def check_frame(buffer: Bytes, offset: int, end: int, verified: int) -> tuple[int, int]:
    """(status, length) of the frame at an offset; status -1 if it is a whole COMMANDS frame to be taken."""
    if end - offset < FRAME_HEADER_SIZE:
        return SCAN_INCOMPLETE, 0
    word: Any = np.int64(load_word(buffer, offset + 8))
    length = word & 0xFFFFFFFF
    if (word >> 40) & 0xFF != PROTOCOL_VERSION:
        return SCAN_VERSION_UNSUPPORTED, length
    if length < FRAME_HEADER_SIZE or length > FRAME_SIZE_MAX:
        return SCAN_LENGTH_INVALID, length
    if end - offset < length:
        return SCAN_INCOMPLETE, length
    if offset != verified:
        if length > XXH3_SHORT_MAX:
            return SCAN_LONG, length
        if xxh3_64(buffer, offset + 8, offset + length) != load_word(buffer, offset):
            return SCAN_CHECKSUM_WRONG, length
    if (word >> 32) & 0xFF != _OPERATION_COMMANDS:
        return SCAN_OTHER_OPERATION, length
    body_size = length - FRAME_HEADER_SIZE
    if (word >> 48) & 0xFFFF != 0 or body_size == 0 or body_size % COMMAND_SIZE != 0:
        return SCAN_BODY_MALFORMED, length
    return -1, length


@kernel
def scan_frames(buffer: Bytes, end: int, command_words: Words, frames: Records, now_ns: int, cursor: Words) -> int:
    """Take COMMANDS frames from ``buffer[cursor[CURSOR_OFFSET]:end]`` into a batch; returns why it stopped (SCAN_*).

    `command_words` has shape (capacity, 16), `frames` as many rows. The frame at which it stopped is not taken.
    """
    while True:
        offset = cursor[CURSOR_OFFSET]
        status, length = check_frame(buffer, offset, end, cursor[CURSOR_VERIFIED])
        cursor[CURSOR_LENGTH] = length
        if status >= 0:
            return status
        count = (length - FRAME_HEADER_SIZE) // COMMAND_SIZE
        first = cursor[CURSOR_COMMANDS]
        if first + count > len(command_words):
            return SCAN_FULL
        place = offset + FRAME_HEADER_SIZE
        for number in range(first, first + count):
            for word in range(_COMMAND_WORDS):
                command_words[number, word] = np.int64(load_word(buffer, place + 8 * word))
            place += COMMAND_SIZE
            if is_suspect(command_words, number):
                cursor[CURSOR_SUSPECTS] = 1
        if is_linked(command_words, first + count - 1):
            cursor[CURSOR_OPEN_CHAINS] = 1
        frame = frames[cursor[CURSOR_FRAMES]]
        frame["request_id"] = np.int64(load_word(buffer, offset + 16))
        frame["first_command"] = first
        frame["command_count"] = count
        timeout_ms = np.int64(load_word(buffer, offset + 24)) & 0xFFFFFFFF
        frame["deadline_ns"] = 0
        if timeout_ms != 0:
            frame["deadline_ns"] = now_ns + timeout_ms * _NS_PER_MS
            cursor[CURSOR_DEADLINES] = 1
        cursor[CURSOR_FRAMES] += 1
        cursor[CURSOR_COMMANDS] = first + count
        cursor[CURSOR_OFFSET] = offset + length


@kernel
def preset_expired(frames: Records, frame_count: int, now_ns: int, preset: Words) -> None:
    """Refuse the commands of frames whose deadline has passed; `preset` is zero at first."""
    for index in range(frame_count):
        frame = frames[index]
        if frame["deadline_ns"] != 0 and frame["deadline_ns"] < now_ns:
            first = frame["first_command"]
            for number in range(first, first + frame["command_count"]):
                preset[number] = _DEADLINE_PASSED


@inlined
def copy_results(result_words: Words, first: int, count: int, out: Words, place: int) -> None:
    """Copy results into a reply's body."""
    for number in range(first, first + count):
        for word in range(_RESULT_WORDS):
            out[place + word] = result_words[number, word]
        place += _RESULT_WORDS


@kernel
def encode_replies(frames: Records, frame_count: int, result_words: Words, out: Words, out_bytes: Bytes) -> int:
    """Write the replies to all frames; `out` and `out_bytes` are the same memory. Returns how many are too long for
    the kernel's checksum; the caller computes theirs."""
    place = 0
    long_count = 0
    for index in range(frame_count):
        frame = frames[index]
        count = frame["command_count"]
        length = FRAME_HEADER_SIZE + count * RESULT_SIZE
        out[place + 1] = length | _REPLY_HEAD
        out[place + 2] = frame["request_id"]
        out[place + 3] = 0
        copy_results(result_words, frame["first_command"], count, out, place + 4)
        if length <= XXH3_SHORT_MAX:
            start = 8 * place
            store_word(out_bytes, start, xxh3_64(out_bytes, start + 8, start + length))
        else:
            long_count += 1
        place += length // 8
    return long_count


def reply_size(frame_count: int, command_count: int) -> int:
    """Bytes of the replies to so many frames with so many commands together."""
    return frame_count * FRAME_HEADER_SIZE + command_count * RESULT_SIZE


def reply_offset(frames: Any, frame_number: int) -> int:
    """Byte offset, among the replies of a batch, of the reply to a frame."""
    return frame_number * FRAME_HEADER_SIZE + int(frames[frame_number]["first_command"]) * RESULT_SIZE
