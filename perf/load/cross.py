"""The frames of one of several shards: those of a `FrameRing`, some of which pay into accounts of other shards."""

from typing import Any

import numpy as np

from bezant.perf.load.cross_frames import CROSS_ALWAYS, build_cross_commands
from bezant.perf.load.ring import FrameRing
from bezant.protocol.records import Words


class CrossRing(FrameRing):
    """A ring for one shard, with its own accounts and those of all others; `cross` is the share of transfers, 0 to 1,
    whose credit account is another shard's. `frames` are the arguments of `FrameRing`."""

    def __init__(self, *, own: tuple[Words, Words], others: tuple[Words, Words], cross: float, **frames: Any) -> None:
        heads, tails = (np.concatenate(pair) for pair in zip(own, others, strict=True))
        super().__init__(account_heads=heads, account_tails=tails, **frames)
        self._own_count = len(own[0])
        self._cross = round(cross * CROSS_ALWAYS)

    def _build(self, count: int) -> None:
        build_cross_commands(
            self._bytes,
            self._words,
            self._checksums,
            self.built,
            count,
            self.transfers,
            self.batch,
            self._next_millisecond(count * self.batch),
            self._account_heads,
            self._account_tails,
            self._own_count,
            self._cross,
            self._random,
        )
