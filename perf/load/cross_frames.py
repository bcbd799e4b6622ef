"""Kernel of the frames for one of several shards: a share of the transfers pays into accounts that others have."""

# ruff: noqa: PLR0917 - kernels take their arrays by position: Numba unpacks names at every call.

from typing import Final

import numpy as np

from bezant.engine.compiled import kernel
from bezant.engine.hashing import xxh3_64
from bezant.perf.load.frames import (
    AMOUNT_MAX,
    COMMAND_WORDS,
    HEADER_WORDS,
    KIND_WORD,
    REQUEST_WORD,
    Checksums,
    draw,
    write_id,
)
from bezant.protocol.frames import CHECKSUM_OFFSET_END, FRAME_HEADER_SIZE
from bezant.protocol.records import COMMAND_SIZE, Bytes, Words

CROSS_ALWAYS: Final = 1 << 32
"""As a share: every transfer."""
_WORD: Final = 8
_CHECKSUM_END: Final = CHECKSUM_OFFSET_END
_LOW_32: Final = (1 << 32) - 1
_LOW_47: Final = (1 << 47) - 1


@kernel
def build_cross_commands(
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
    own_count: int,
    cross: int,
    random: Words,
) -> None:
    """As `build_commands`, between the first `own_count` accounts, which are the shard's; but `cross` of CROSS_ALWAYS
    transfers pay into one of the accounts behind them."""
    frame_words = HEADER_WORDS + batch * COMMAND_WORDS
    slots = words.shape[0] // frame_words
    foreign_count = account_heads.shape[0] - own_count
    rising = np.int64(0)
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
            debit = ((choice >> 32 & _LOW_32) * own_count) >> 32
            if (draw(random) >> 16 & _LOW_32) < cross:
                credit = own_count + (((choice & _LOW_32) * foreign_count) >> 32)
            else:
                credit = ((choice & _LOW_32) * (own_count - 1)) >> 32
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
