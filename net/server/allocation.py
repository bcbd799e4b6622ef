"""What the allocator of the C library does with memory that is freed.

Every batch needs a few buffers of a megabyte or two, for its commands, its events and its replies. The GNU allocator
gives such memory back to the system as soon as it is free, and gets it again for the next batch, page by page, each
zeroed by the kernel: a tenth of a follower's processor time. So it is told to keep some.
"""

import ctypes
from typing import Final

MAPPED_BYTES_MIN: Final = 32 << 20
"""Bytes of an allocation that gets a mapping of its own, which goes when it is freed: tables of the ledger. It is the
most that the allocator can be told on 64-bit systems."""
KEPT_BYTES_MAX: Final = 64 << 20
"""Bytes of freed memory at the end of the heap that are kept for the next batches."""

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3


def keep_freed_memory() -> bool:
    """Have up to KEPT_BYTES_MAX of freed memory kept for this process; False if this allocator cannot be told.

    See mallopt(3). Nothing depends on it but speed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # of the GNU C library alone
    if mallopt is None:
        return False
    # The one is not enough: that the other is set ends its adjusting itself by what is freed.
    return bool(mallopt(_M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)) and bool(mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES_MAX))
