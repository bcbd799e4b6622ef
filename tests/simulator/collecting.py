"""Garbage collection while seeds are run: seldom, and not of what is there before the first one.

Compilers and libraries are half a million objects that never go. A seed's own are held by few cycles, and most are gone
with the seed.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (50_000, 20, 100)
"""New objects before the youngest are looked at, and how often that happens before older ones are: some MB of memory,
for a twentieth of all time."""


@contextmanager
def few_collections() -> Iterator[None]:
    """Collect little as long as this lasts."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
