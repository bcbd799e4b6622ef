"""Makes a failing seed smaller: without the kinds of trouble that it does not need, and shorter.

Each kind has its own stream of chance, so that leaving one out moves no other.
"""

from collections.abc import Callable, Iterable

SHORTENING = 0.7
TROUBLE_US_LEAST = 50_000

Fails = Callable[[frozenset[str], int], bool]


def shrink(kinds: Iterable[str], trouble_us: int, fails: Fails) -> tuple[frozenset[str], int]:
    """(kinds left out, time of trouble in us), with which `fails` still says yes. It is called once an attempt."""
    without: frozenset[str] = frozenset()
    for kind in kinds:
        if fails(without | {kind}, trouble_us):
            without |= {kind}
    while (shorter_us := int(trouble_us * SHORTENING)) >= TROUBLE_US_LEAST and fails(without, shorter_us):
        trouble_us = shorter_us
    return without, trouble_us
