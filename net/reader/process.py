"""The process of a reader: a child of its node, or one that an operator starts on a data folder.

A child gets its set-up as a line of JSON on its standard input, and ends when that ends, because the node has ended
however it did. It reads the log and its own folder, and asks the node for nothing but to keep named positions.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from typing import Final, NoReturn

import msgspec
import uvloop

from bezant.net.access.credentials import use_credentials
from bezant.net.logs import TEXT, begin_logs
from bezant.net.reader.server import ReaderServer
from bezant.net.reader.setup import Setup
from bezant.protocol.errors import BezantError

SWITCH_INTERVAL_S: Final = 0.0005
"""How soon the loop gets the interpreter's lock back from a thread that computes."""
_STANDARD_INPUT: Final = 0
_READ_SIZE: Final = 4096

_log = logging.getLogger("bezant")


def run_reader(
    setup: Setup, sockets: list[socket.socket], metrics: list[socket.socket], *, ends_with_input: bool
) -> None:
    """Serve until SIGTERM, or SIGINT, or the end of the standard input. Raises `StorageError` and its kinds,
    `UsageError` for files of its security that cannot be used."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    use_credentials(setup.security.credentials())
    gc.freeze()
    uvloop.run(_run(setup, sockets, metrics, ends_with_input=ends_with_input))


async def _run(
    setup: Setup, sockets: list[socket.socket], metrics: list[socket.socket], *, ends_with_input: bool
) -> None:
    loop = asyncio.get_running_loop()
    # What kernels have been loaded with stays for ever too: to look through it holds all up for 40 ms.
    server = ReaderServer(setup, sockets, metrics, on_begun=gc.freeze)
    loop.add_signal_handler(signal.SIGTERM, server.stop)
    if ends_with_input:
        loop.add_reader(_STANDARD_INPUT, _read_on, loop, server)
    else:
        loop.add_signal_handler(signal.SIGINT, server.stop)
    try:
        await server.run()
    except (BezantError, OSError) as error:
        if not server.leaves_thread:
            raise
        _end_now(_log_end(error))
    if server.leaves_thread:
        _end_now(0)


def _log_end(error: Exception) -> int:
    """Say why the reader ends; returns the exit status."""
    _log.error("bezant: the reader ends: %s", error)
    return 1


def _end_now(status: int) -> NoReturn:
    """End past a thread that does not: the interpreter would wait for its helpers, or end it inside of a library."""
    os._exit(status)


def _read_on(loop: asyncio.AbstractEventLoop, server: ReaderServer) -> None:
    """The node says nothing more; its end is the end of this."""
    if not os.read(_STANDARD_INPUT, _READ_SIZE):
        loop.remove_reader(_STANDARD_INPUT)
        server.stop()


def _sockets(descriptors: list[int]) -> list[socket.socket]:
    return [socket.socket(fileno=number) for number in descriptors]


def run_child() -> int:
    """Serve as a node's child (`child.py`); the exit status is 1 after an error, which is told."""
    line = bytearray()
    while not line.endswith(b"\n"):
        part = os.read(_STANDARD_INPUT, _READ_SIZE)
        if not part:
            return 0
        line += part
    setup = msgspec.json.decode(line, type=Setup)
    begin_logs(TEXT, "reader", shard=setup.shard)
    try:
        run_reader(setup, _sockets(setup.listening), _sockets(setup.metrics), ends_with_input=True)
    except (BezantError, OSError) as error:
        return _log_end(error)
    return 0
