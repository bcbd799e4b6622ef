"""The questions that a load asks around the load itself: hello, opening accounts, look-ups, statistics.

One request at a time on one connection; nothing here is measured.
"""

import asyncio
import os
import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

import numpy as np
from typing_extensions import Buffer

from bezant.net.access.credentials import own_credentials
from bezant.protocol.errors import ConnectionFailed, RemoteProtocolError, RequestRefused, RequestTimedOut
from bezant.protocol.frames import (
    FRAME_HEADER_SIZE,
    PROTOCOL_VERSION,
    FrameFlag,
    Operation,
    check_frame,
    check_header,
    decode_header,
    encode_frame,
)
from bezant.protocol.messages import ErrorMessage, Hello, Welcome, decode_message, encode_message
from bezant.protocol.records import ACCOUNT, RESULT, Records
from bezant.protocol.statistics import Statistics

REQUEST_TIMEOUT_S: Final = 60.0
CLIENT_NAME: Final = "bezant-bench"
LOOKUP_COUNT_MAX: Final = 4096
"""Accounts in one look-up; their records fit in one frame."""


def split_address(address: str) -> tuple[str, int]:
    """Split ``HOST:PORT``. Raises `ConnectionFailed` if it is not one."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise ConnectionFailed(f"an address is written HOST:PORT, not {address!r}")
    return host.strip("[]"), int(port)


def connection_failure(address: str, error: OSError) -> ConnectionFailed:
    """The error to raise for one of the operating system's, in its own words rather than asyncio's."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return ConnectionFailed(f"{address}: {error}")
    return ConnectionFailed(f"{address}: {os.strerror(error.errno)}")


def hello_frame() -> bytes:
    """The first frame of every connection of a load, with the token of this process if it has one."""
    token = own_credentials().token
    hello = Hello(client=f"{CLIENT_NAME}/{os.getpid()}", protocol_version=PROTOCOL_VERSION, token=token)
    return encode_frame(Operation.HELLO, 0, encode_message(hello))


class ControlClient:
    """A plain client over asyncio streams, as an async context manager; ``welcome`` is the node's answer to hello."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._request_id = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self.welcome: Welcome

    async def __aenter__(self) -> Self:
        host, port = split_address(self._address)
        own_credentials().check_host(host)
        try:
            self._reader, self._writer = await asyncio.open_connection(host, port)
        except OSError as error:
            raise connection_failure(self._address, error) from error
        try:
            self.welcome = decode_message(await self._exchange(Operation.HELLO, 0, hello_frame()), Welcome)
        except BaseException:
            self._writer.close()
            raise
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except OSError:
            pass  # the node is gone already, and so is what there was to close

    async def request(self, operation: Operation, body: Buffer = b"") -> bytes:
        """Send one request and return the body of its reply.

        Raises `RequestRefused` for an error reply, `RequestTimedOut` after REQUEST_TIMEOUT_S, `ConnectionFailed`.
        """
        self._request_id += 1
        return await self._exchange(operation, self._request_id, encode_frame(operation, self._request_id, body))

    async def submit(self, commands: Records) -> Records:
        """Send one frame of command records and return their result records."""
        results = np.frombuffer(await self.request(Operation.COMMANDS, commands.tobytes()), RESULT)
        if len(results) != len(commands):
            raise RemoteProtocolError(f"{len(commands)} commands got {len(results)} results")
        return results

    async def accounts(self, identifiers: Sequence[bytes]) -> Records:
        """Look up any number of accounts by id, in the order given."""
        parts = []
        for start in range(0, len(identifiers), LOOKUP_COUNT_MAX):
            asked = identifiers[start : start + LOOKUP_COUNT_MAX]
            part = np.frombuffer(await self.request(Operation.LOOKUP_ACCOUNTS, b"".join(asked)), ACCOUNT)
            if len(part) != len(asked):
                raise RemoteProtocolError(f"a look-up of {len(asked)} accounts got {len(part)}")
            parts.append(part)
        return np.concatenate(parts) if parts else np.zeros(0, ACCOUNT)

    async def statistics(self) -> Statistics:
        """The node's counters."""
        return decode_message(await self.request(Operation.STATISTICS), Statistics)

    async def _exchange(self, operation: Operation, request_id: int, frame: bytes) -> bytes:
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                if self._writer.is_closing():
                    raise ConnectionResetError("the connection was closed")
                self._writer.write(frame)
                await self._writer.drain()
                head = await self._reader.readexactly(FRAME_HEADER_SIZE)
                header = decode_header(head)
                check_header(header)
                reply = head + await self._reader.readexactly(header.length - FRAME_HEADER_SIZE)
        except TimeoutError as error:
            raise RequestTimedOut(f"no reply to {operation.name} within {REQUEST_TIMEOUT_S:.0f} s") from error
        except asyncio.IncompleteReadError as error:
            raise ConnectionFailed(f"the node closed the connection instead of answering {operation.name}") from error
        except OSError as error:
            raise connection_failure(self._address, error) from error
        check_frame(reply)
        body = reply[FRAME_HEADER_SIZE:]
        if header.operation == Operation.ERROR:
            refusal = decode_message(body, ErrorMessage)
            raise RequestRefused(refusal.code, refusal.message)
        if (header.operation, header.request_id, header.flags) != (operation, request_id, FrameFlag.REPLY):
            raise RemoteProtocolError(f"a request {operation.name} got a reply to something else")
        return body
