"""`serve`: one node in one process, until SIGTERM or SIGINT.

Order of a start: compile the kernels, lock the folder, recover the ledger, listen, say so. Order of a stop: listen no
more, read no more, answer what came in, give clients a moment to take the answers, mark the stop as clean.
"""

import asyncio
import gc
import logging
import resource
import signal
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Final

import uvloop

from bezant.engine.compiled import kernel_digest
from bezant.engine.replica import Replica, ReplicaSettings, open_replica
from bezant.net.server.clients import CONNECTIONS_MAX, Clients, make_welcome
from bezant.net.server.connection import Connection
from bezant.net.server.echo import EchoProtocol
from bezant.net.server.reactor import Reactor
from bezant.net.server.warm import warm_kernels
from bezant.protocol.errors import UsageError

LISTEN_BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How soon the sync thread gets the interpreter's lock back when the loop is busy."""
FILES_RESERVED: Final = 256
"""Open files that the log and the rest of the process may need; clients get what is left of the system's limit."""
PORT_MAX: Final = 65_535

_log = logging.getLogger("bezant")


def serve(
    data_directory: Path,
    listen: str,
    *,
    say: Callable[[str], None],
    echo: str | None = None,
    settings: ReplicaSettings | None = None,
) -> int:
    """Run a node; returns the exit status. `say` gets a line when it listens, and one for the echo port if asked for.

    Raises `StorageError` and its kinds if the data folder does not let us, `UsageError` for an address in use.
    """
    warm_kernels()
    replica = open_replica(data_directory, settings=settings)
    report = replica.log.recovery
    if report.torn_bytes:
        _log.warning(
            "bezant: the last write before a crash was torn: %d bytes that were never acknowledged are set aside in %s",
            report.torn_bytes,
            report.torn_file,
        )
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()
    try:
        uvloop.run(_serve(replica, listen, echo, say))
    finally:
        replica.close()
    return 0


async def _serve(replica: Replica, listen: str, echo: str | None, say: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    reactor = Reactor(replica, loop)
    welcome = make_welcome(reactor, f"bezant {version('bezant')}", kernel_digest())
    clients = Clients(reactor, welcome, _connections_max())
    server = await _listen(loop, lambda: Connection(clients), listen)
    servers = [server]
    say(f"listening on {_address(server)}")
    if echo is not None:
        servers.append(await _listen(loop, EchoProtocol, echo))
        say(f"echo on {_address(servers[-1])}")
    await stopped.wait()
    for running in servers:
        running.close()
    await clients.stop()
    await reactor.stop()


def _connections_max() -> int:
    """Raise this process's limit of open files as far as the system lets it; return what that leaves for clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + FILES_RESERVED
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return CONNECTIONS_MAX
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
    return max(limit - FILES_RESERVED, 1)


async def _listen(
    loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol], address: str
) -> asyncio.Server:
    host, separator, port = address.rpartition(":")
    if not separator or not (port.isascii() and port.isdecimal()) or int(port) > PORT_MAX:
        raise UsageError(f"an address is written HOST:PORT, not {address!r}")
    try:
        return await loop.create_server(factory, host.strip("[]"), int(port), backlog=LISTEN_BACKLOG)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {address}: {error.strerror or error}; choose another with --listen"
        ) from error


def _address(server: asyncio.Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
