"""Addresses that somebody listens at: taken early, opened to clients late."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Final, Protocol

from bezant.net.access.tls import TlsListener
from bezant.protocol.errors import UsageError

LISTEN_BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""
PORT_MAX: Final = 65_535


def bind_address(address: str) -> list[socket.socket]:
    """Take an address, on which nobody can connect before `listen_on`. Raises `UsageError`."""
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


class Listener(Protocol):
    """Somebody who listens."""

    def close(self) -> None:
        """Let nobody connect any more; connections go on."""
        ...


async def listen_on(
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], asyncio.BaseProtocol],
    sockets: list[socket.socket],
    tls: ssl.SSLContext | None = None,
) -> list[Listener]:
    """Let clients connect, by TLS if there is a context for it.

    Raises `UsageError` if another process has begun to listen there meanwhile.
    """
    try:
        for bound in sockets:
            bound.listen(LISTEN_BACKLOG)  # uvloop would not tell that somebody else listens there
        if tls is not None:
            return [TlsListener(factory, bound, tls) for bound in sockets]
        return [await loop.create_server(factory, sock=bound, backlog=LISTEN_BACKLOG) for bound in sockets]
    except OSError as error:
        raise _taken(address_of(sockets[0]), error) from error


def _taken(address: str, error: OSError) -> UsageError:
    return UsageError(f"cannot listen on {address}: {error.strerror or error}; choose another with --listen")


def address_of(bound: socket.socket) -> str:
    """Where a socket is bound, "host:port"."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
