"""Checkpoints that are kept for `verify` alone: where it cuts a history to execute its parts at the same time.

A start never uses one. When a checkpoint is too old for a start it becomes a cut by a change of its name, if it lies
well: cuts are spread evenly over the whole history and thinned out as that grows, so that there are always between half
as many and as many as allowed. The files of ids that it lists go, because `verify` takes ids from the history itself.
"""

import re
from collections.abc import Iterable
from typing import Final

CUTS_KEPT_MAX: Final = 64
"""Cuts kept at a time. Small parts are quick: the ids of one are in memory, and of 100 million events those in parts of
two million took 500 ns of processor time each where those in parts of eight million took 890."""
CUTS_SHARE_OF_LOG: Final = 16
"""Cuts take up at most this fraction (one of so many parts) of the bytes of the log, so that many accounts cost time
and not disk."""
_NAME: Final = re.compile(r"cut-(\d{10,})-(\d+)", re.ASCII)


def cut_name(index: int, sequence: int) -> str:
    """File name of the cut behind the entry with this index, whose last event has this sequence."""
    return f"cut-{index:010d}-{sequence}"


def parse_cut_name(name: str) -> tuple[int, int] | None:
    """(index, sequence) of a cut by its file name; None if it is not one."""
    match = _NAME.fullmatch(name)
    return None if match is None else (int(match[1]), int(match[2]))


def cuts_to_keep(sequences: Iterable[int], last_sequence: int, count_max: int) -> set[int]:
    """Which of the places (sequences) where a history can be cut are to be kept, `count_max` at most.

    The history is divided into spans of a power of two of events, the shortest of which there are no more than that;
    of each span but the first the earliest place is kept. As the history grows two spans become one, whose earliest
    place was kept before: nothing that is wanted later has ever been thrown away.
    """
    if count_max < 1:
        return set()
    span = 1
    while last_sequence // span > count_max:
        span *= 2
    earliest: dict[int, int] = {}
    for sequence in sequences:
        number = sequence // span
        earliest[number] = min(earliest.get(number, sequence), sequence)
    return {sequence for number, sequence in earliest.items() if number > 0}
