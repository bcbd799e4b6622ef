"""The process with the subscribers: a connection each, as light as can be, so that it takes little of the machine.

Reads its plan as a line of JSON, says `ready` when all subscribe, and at the end of its input writes to a file what
each was told: positions, as int64, behind their number.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Final, cast

import msgspec
import numpy as np
import uvloop

from bezant.protocol.frames import PROTOCOL_VERSION, FrameHeader, FrameReader, Operation, encode_frame
from bezant.protocol.messages import Hello, Subscribe, encode_message
from bezant.protocol.records import PUSHED_EVENT

CONNECTING_MAX: Final = 100
"""Connections that are being made at a time."""
_STANDARD_OUTPUT: Final = 1


class Plan(msgspec.Struct, frozen=True):
    """Where the reader is, the ids of the accounts, one for each subscriber, and where the outcome goes."""

    host: str
    port: int
    accounts: list[bytes]
    outcome: str


class Listener(asyncio.Protocol):
    """One subscriber."""

    def __init__(self, account: bytes) -> None:
        self._account = account
        self._frames = FrameReader()
        self.subscribed = asyncio.get_running_loop().create_future()
        self.bodies: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        hello = encode_frame(Operation.HELLO, 1, encode_message(Hello("bench", PROTOCOL_VERSION)))
        subscribe = encode_frame(Operation.SUBSCRIBE, 2, encode_message(Subscribe(accounts=self._account)))
        cast(asyncio.Transport, transport).write(hello + subscribe)

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        for header, body in self._frames.feed(data):
            self._take(header, body)

    def _take(self, header: FrameHeader, body: memoryview) -> None:
        if header.operation == Operation.EVENTS:
            self.bodies.append(bytes(body))
        elif header.operation == Operation.SUBSCRIBE:
            self.subscribed.set_result(None)
        elif header.operation == Operation.ERROR and not self.subscribed.done():
            self.subscribed.set_exception(ConnectionError(bytes(body).decode("utf-8", "replace")))

    def positions(self) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        """All that it was told, in the order in which it came."""
        records = np.frombuffer(b"".join(self.bodies), PUSHED_EVENT)
        return np.ascontiguousarray(records["position"])


async def run(plan: Plan) -> None:
    """Subscribe, listen until the input ends, write the outcome."""
    loop = asyncio.get_running_loop()
    listeners = [Listener(account) for account in plan.accounts]
    for start in range(0, len(listeners), CONNECTING_MAX):
        part = listeners[start : start + CONNECTING_MAX]
        await asyncio.gather(
            *(loop.create_connection(lambda one=one: one, plan.host, plan.port) for one in part)  # type: ignore[misc]
        )
        await asyncio.gather(*(one.subscribed for one in part))
    os.write(_STANDARD_OUTPUT, b"ready\n")
    await loop.run_in_executor(None, sys.stdin.buffer.read)
    with Path(plan.outcome).open("wb") as file:
        for listener in listeners:
            positions = listener.positions()
            file.write(len(positions).to_bytes(8, "little"))
            file.write(positions.tobytes())


def read_outcome(path: Path) -> "list[np.ndarray[tuple[int], np.dtype[np.int64]]]":
    """What each subscriber was told."""
    data, found, offset = path.read_bytes(), [], 0
    while offset < len(data):
        count = int.from_bytes(data[offset : offset + 8], "little")
        found.append(np.frombuffer(data, np.int64, count, offset + 8))
        offset += 8 + 8 * count
    return found


if __name__ == "__main__":
    uvloop.run(run(msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)))
