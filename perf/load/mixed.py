"""The mixed load: what each command of a frame is, the kernel that builds it, and the one that holds results to it.

Every place of the ring has a part to play, laid out once per run (`lay_out_parts`), at random by the seed. A frame
reuses the slot of the frame `slots` before it, which has been answered by then; and that is where its captures find
their holds: in the commands that still lie in the slot, behind the place of the capture, so that they are read before
they are overwritten. So a hold is captured once, whole or in part, by a frame that is built after its answer came,
on whichever connection. Two exceptions: the first frames have nothing to capture and the last ones hold nothing, since
nobody would capture it; these commands are plain transfers, and so are all of a last frame that is shorter.

The outcome of every command is known ahead, because only those that are meant to be are refused: some pay from
accounts that have nothing and a limit of 0, others to an account that nobody has opened.
"""

# ruff: noqa: PLR0917 - kernels take their arrays by position: Numba unpacks names at every call.

from enum import IntEnum, unique
from typing import Final

import numpy as np

from bezant.engine.compiled import inlined, kernel
from bezant.engine.hashing import xxh3_64
from bezant.perf.load.frames import (
    AMOUNT_MAX,
    CODE_COUNT,
    COMMAND_WORDS,
    HEADER_WORDS,
    KIND_WORD,
    REQUEST_WORD,
    RESULT_WORDS,
    TOTAL_REPEATED,
    TOTAL_UNEXPECTED_NUMBER,
    TOTAL_UNEXPECTED_PART,
    Checksums,
    ReplyFault,
    draw,
    write_id,
)
from bezant.perf.load.zipf import pick
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import BezantError
from bezant.protocol.frames import CHECKSUM_OFFSET_END, FRAME_HEADER_SIZE
from bezant.protocol.kinds import CommandFlag, CommandKind, ResultFlag
from bezant.protocol.records import COMMAND_SIZE, Bytes, Words

CHAIN_LENGTH: Final = 4
UNFUNDED_COUNT: Final = 16
"""Accounts without money and with limit 0, behind the others in the arrays of accounts; the unknown one is the last."""
HOLD_TIMEOUT_MS_MIN: Final = 3_600_000
"""No hold may expire before its capture: a load that stands still gives up long before."""
_TIMEOUT_BITS: Final = (1 << 22) - 1
"""Deadlines spread over 70 minutes more, so that holds do not expire in the order of making."""

HOLDS_PER_COMMAND: Final = (1, 10)
"""Of a hundred commands, ten are holds and ten are captures."""
CHAINS_PER_COMMAND: Final = (1, 10 * CHAIN_LENGTH)
REFUSALS_PER_COMMAND: Final = (1, 50)


class UnexpectedResult(BezantError):  # noqa: N818 - it says what happened, as in `bezant.protocol.errors`
    """A command of a load whose outcomes are known ahead was answered otherwise."""


@unique
class Part(IntEnum):
    """What the command in a place of the ring is."""

    PLAIN = 0
    HOLD = 1
    CAPTURE = 2
    LINKED = 3
    CHAIN_END = 4
    UNFUNDED = 5
    UNKNOWN = 6


EXPECTED_CODES: Final = {
    **dict.fromkeys(Part, ResultCode.COMMITTED),
    Part.UNFUNDED: ResultCode.INSUFFICIENT_FUNDS,
    Part.UNKNOWN: ResultCode.CREDIT_ACCOUNT_UNKNOWN,
}
REFUSED: Final = "refused"
PART_NAMES: Final = {
    Part.PLAIN: "plain",
    Part.HOLD: "hold",
    Part.CAPTURE: "capture",
    Part.LINKED: "chained",
    Part.CHAIN_END: "chained",
    Part.UNFUNDED: REFUSED,
    Part.UNKNOWN: REFUSED,
}

_PLAIN: Final = int(Part.PLAIN)
_HOLD: Final = int(Part.HOLD)
_CAPTURE: Final = int(Part.CAPTURE)
_LINKED: Final = int(Part.LINKED)
_UNFUNDED: Final = int(Part.UNFUNDED)
_UNKNOWN: Final = int(Part.UNKNOWN)
_FLAGS_SHIFT: Final = 32
_KIND_SHIFT: Final = 48
_LINKED_WORD: Final = KIND_WORD | CommandFlag.LINKED << _FLAGS_SHIFT
_HOLD_WORD: Final = CommandKind.HOLD << _KIND_SHIFT
_CAPTURE_WORD: Final = CommandKind.CAPTURE << _KIND_SHIFT
_LOW_47: Final = (1 << 47) - 1
_REPEATED: Final = int(ResultFlag.REPEATED)
_FAULT_RESULT_CODE: Final = -int(ReplyFault.RESULT_CODE)
_FAULT_UNEXPECTED: Final = -int(ReplyFault.UNEXPECTED)


def lay_out_parts(slots: int, batch: int, seed: int) -> Bytes:
    """The `Part` of every place of a ring, uint8 of shape (slots * batch,); a chain lies within its slot.

    The shares are kept over all slots together; in each, the parts are in random order but that captures and holds
    take turns, a capture first.
    """
    chance = np.random.default_rng(seed)
    rows = []
    refused = 0
    for slot in range(slots):
        pairs, chains, refusals = (
            (slot + 1) * batch * share // of - slot * batch * share // of
            for share, of in (HOLDS_PER_COMMAND, CHAINS_PER_COMMAND, REFUSALS_PER_COMMAND)
        )
        items = np.zeros(batch - (CHAIN_LENGTH - 1) * chains, np.uint8)
        items[: 2 * pairs] = Part.HOLD
        items[2 * pairs :][:chains] = Part.LINKED
        items[2 * pairs + chains :][:refusals] = Part.UNFUNDED
        items[2 * pairs + chains :][refused % 2 : refusals : 2] = Part.UNKNOWN
        refused += refusals
        chance.shuffle(items)
        lengths = np.where(items == Part.LINKED, CHAIN_LENGTH, 1)
        row = np.repeat(items, lengths)
        row[np.cumsum(lengths)[items == Part.LINKED] - 1] = Part.CHAIN_END
        row[np.flatnonzero(row == Part.HOLD)[::2]] = Part.CAPTURE
        rows.append(row)
    return np.concatenate(rows)


def expected_codes() -> Words:
    """The result code that is expected of each part, int64."""
    return np.array([EXPECTED_CODES[part] for part in Part], np.int64)


@inlined
def part_in_frame(part: int, frame: int, slots: int, whole_frames: int) -> int:
    """The part of a place as frame `frame` plays it, of `whole_frames` that are not cut short by the end of the run."""
    nothing_held = part == _CAPTURE and frame < slots
    never_captured = part == _HOLD and frame + slots >= whole_frames
    if frame >= whole_frames or nothing_held or never_captured:
        return _PLAIN
    return part


@inlined
def _write_capture(words: Words, command: int, hold: int, random: Words) -> None:
    """Write all of a capture but its id: of the hold at word `hold`, whole or, as often, of a part of it."""
    for word in range(2, 6):
        words[command + word] = words[hold + word]
    words[command + 6] = words[hold]
    words[command + 7] = words[hold + 1]
    choice = draw(random)
    part = 1 + (choice >> 16 & _LOW_47) % words[hold + 10]
    words[command + 10] = part if choice & 1 else 0
    words[command + 13] = 0
    words[command + 14] = _CAPTURE_WORD


@inlined
def _write_movement(
    words: Words, command: int, part: int, table: Words, account_heads: Words, account_tails: Words, random: Words
) -> None:
    """Write all of a transfer or hold but its id, between two accounts chosen by the table."""
    debit = pick(table, random)
    credit = pick(table, random)
    while credit == debit:
        credit = pick(table, random)
    if part == _UNFUNDED:
        debit = table.shape[0] + debit % UNFUNDED_COUNT
    if part == _UNKNOWN:
        credit = account_heads.shape[0] - 1
    words[command + 2] = account_heads[debit]
    words[command + 3] = account_tails[debit]
    words[command + 4] = account_heads[credit]
    words[command + 5] = account_tails[credit]
    words[command + 6] = 0
    words[command + 7] = 0
    choice = draw(random)
    words[command + 10] = 1 + (choice >> 16 & _LOW_47) % AMOUNT_MAX
    words[command + 13] = HOLD_TIMEOUT_MS_MIN + (draw(random) & _TIMEOUT_BITS) if part == _HOLD else 0
    words[command + 14] = _HOLD_WORD if part == _HOLD else _LINKED_WORD if part == _LINKED else KIND_WORD


@kernel
def build_parts(
    ring: Bytes,
    words: Words,
    checksums: Checksums,
    frame_first: int,
    frame_count: int,
    commands_total: int,
    batch: int,
    rising_from_ms: int,
    parts: Bytes,
    table: Words,
    account_heads: Words,
    account_tails: Words,
    random: Words,
) -> None:
    """Write frames into their slots as `frames.build_commands` does, each command as its place's part says.

    `table` chooses among the accounts that are first in the arrays; see UNFUNDED_COUNT for the rest. The slots hold
    the frames that used them before, all answered.
    """
    frame_words = HEADER_WORDS + batch * COMMAND_WORDS
    slots = words.shape[0] // frame_words
    whole_frames = commands_total // batch
    rising = np.int64(0)
    for frame in range(frame_first, frame_first + frame_count):
        slot = frame & (slots - 1)
        start = slot * frame_words
        count = min(batch, commands_total - frame * batch)
        length = FRAME_HEADER_SIZE + count * COMMAND_SIZE
        words[start + 1] = REQUEST_WORD | length
        words[start + 2] = frame
        for number in range(count):
            command = start + HEADER_WORDS + number * COMMAND_WORDS
            place = slot * batch + number
            part = part_in_frame(parts[place], frame, slots, whole_frames)
            if part == _CAPTURE:
                ahead = 1
                while parts[place + ahead] != _HOLD:
                    ahead += 1
                _write_capture(words, command, command + ahead * COMMAND_WORDS, random)
            else:
                _write_movement(words, command, part, table, account_heads, account_tails, random)
            write_id(words, command, rising_from_ms, rising, random)
            rising += 1
        if batch == 1:
            checksums[start] = xxh3_64(ring, start * 8 + CHECKSUM_OFFSET_END, start * 8 + length)


@kernel
def check_results(
    words: Words,
    first_word: int,
    count: int,
    frame: int,
    slots: int,
    whole_frames: int,
    batch: int,
    parts: Bytes,
    expected: Words,
    part_counts: Words,
    codes: Words,
    totals: Words,
) -> int:
    """Hold the `count` results of a frame to what is expected of each, and count them by code and by part.

    Returns 0, or the negative of a `ReplyFault`; if it is UNEXPECTED, TOTAL_UNEXPECTED_NUMBER is the command's number
    in the frame and TOTAL_UNEXPECTED_PART its part. A repeat is never expected.
    """
    place = (frame & (slots - 1)) * batch
    for number in range(count):
        part = part_in_frame(parts[place + number], frame, slots, whole_frames)
        word = words[first_word + number * RESULT_WORDS]
        code = word & 0xFFFF
        repeated = (word >> 16) & _REPEATED
        if code >= CODE_COUNT:
            return _FAULT_RESULT_CODE
        if code != expected[part] or repeated != 0:
            totals[TOTAL_UNEXPECTED_NUMBER] = number
            totals[TOTAL_UNEXPECTED_PART] = part
            return _FAULT_UNEXPECTED
        codes[code] += 1
        part_counts[part] += 1
        totals[TOTAL_REPEATED] += repeated
    return 0
