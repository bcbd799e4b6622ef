"""`serve`: one node in one process, until SIGTERM or SIGINT.

Order of a start: take the addresses, see whether the folder can be had, compile the kernels, lock the folder, recover
the ledger, listen, say so. Order of a stop: listen no more, read no more, answer what came in, give clients a moment to
take the answers, mark the stop as clean.
"""

import asyncio
import gc
import resource
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
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
from bezant.net.server.starting import prepare_start, tell_findings
from bezant.protocol.errors import UsageError

LISTEN_BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How soon the sync thread gets the interpreter's lock back when the loop is busy."""
FILES_RESERVED: Final = 256
"""Open files that the log and the rest of the process may need; clients get what is left of the system's limit."""
PORT_MAX: Final = 65_535


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
    with ExitStack() as closing:
        sockets = [closing.enter_context(bound) for bound in _bind(listen)]
        echo_sockets = [closing.enter_context(bound) for bound in (_bind(echo) if echo is not None else ())]
        prepare_start(data_directory)
        replica = open_replica(data_directory, settings=settings)
        closing.callback(replica.close)
        tell_findings(replica)
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        gc.freeze()
        uvloop.run(_serve(replica, sockets, echo_sockets, say))
    return 0


async def _serve(
    replica: Replica, sockets: list[socket.socket], echo_sockets: list[socket.socket], say: Callable[[str], None]
) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    reactor = Reactor(replica, loop)
    welcome = make_welcome(reactor, f"bezant {version('bezant')}", kernel_digest())
    clients = Clients(reactor, welcome, _connections_max())
    servers = await _listen(loop, lambda: Connection(clients), sockets)
    say(f"listening on {_address(sockets[0])}")
    if echo_sockets:
        servers += await _listen(loop, EchoProtocol, echo_sockets)
        say(f"echo on {_address(echo_sockets[0])}")
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


def _bind(address: str) -> list[socket.socket]:
    """Take an address, on which nobody can connect before `_listen`. Raises `UsageError`."""
    host, separator, port = address.rpartition(":")
    if not separator or not (port.isascii() and port.isdecimal()) or int(port) > PORT_MAX:
        raise UsageError(f"an address is written HOST:PORT, not {address!r}")
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(
            host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        for family, kind, protocol, _, place in dict.fromkeys(found):
            bound = socket.socket(family, kind, protocol)
            sockets.append(bound)
            bound.setblocking(False)
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.bind(place)
    except OSError as error:
        for bound in sockets:
            bound.close()
        raise _taken(address, error) from error
    return sockets


async def _listen(
    loop: asyncio.AbstractEventLoop, factory: Callable[[], asyncio.BaseProtocol], sockets: list[socket.socket]
) -> list[asyncio.Server]:
    """Let clients connect. Raises `UsageError` if another process has begun to listen there meanwhile."""
    try:
        for bound in sockets:
            bound.listen(LISTEN_BACKLOG)  # uvloop would not tell that somebody else listens there
        return [await loop.create_server(factory, sock=bound, backlog=LISTEN_BACKLOG) for bound in sockets]
    except OSError as error:
        raise _taken(_address(sockets[0]), error) from error


def _taken(address: str, error: OSError) -> UsageError:
    return UsageError(f"cannot listen on {address}: {error.strerror or error}; choose another with --listen")


def _address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
