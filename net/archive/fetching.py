"""Fetches one file from an archive: a program that the engine starts, which has no network itself.

An order in JSON comes on the standard input; what goes wrong is one line on the error output, and status 1.
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from bezant.net.archive.store import open_store
from bezant.protocol.errors import BezantError, StorageError

ORDER_SIZE_MAX = 1 << 16
"""Bytes of an order, at most."""


class Order(msgspec.Struct, frozen=True):
    """Make the file `made` of what the target has at `path`, which must be `size_bytes` long."""

    target: str
    path: str
    made: str
    size_bytes: int


async def fetch_file(order: Order) -> None:
    """Do it. Raises `UsageError`, `StorageError`, `OSError`."""
    size_bytes = 0
    with Path(order.made).open("wb") as file:
        async for part in open_store(order.target).read(order.path):
            size_bytes += len(part)
            if size_bytes > order.size_bytes:
                raise StorageError(f"what is kept at {order.path} is longer than {order.size_bytes} bytes")
            file.write(part)


def main() -> str | None:
    """Carry out the order on the standard input; what has gone wrong, as `sys.exit` tells it."""
    try:
        asyncio.run(fetch_file(msgspec.json.decode(sys.stdin.buffer.read(ORDER_SIZE_MAX), type=Order)))
    except (BezantError, OSError, msgspec.DecodeError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return None


if __name__ == "__main__":
    sys.exit(main())
