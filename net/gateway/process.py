"""Runs a gateway: takes its address, connects to the ledger, and serves until it is told to stop."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import uvicorn
import uvloop

from bezant.net.client.opening import connect
from bezant.net.client.watching import ClusterWatch
from bezant.net.gateway.application import make_application
from bezant.net.gateway.asking import Ledger
from bezant.net.gateway.cluster import Cluster
from bezant.net.gateway.connections import with_limit
from bezant.net.gateway.front import Front
from bezant.net.gateway.metering import Meter, Metered
from bezant.net.gateway.push import Pushes
from bezant.net.gateway.settings import GatewaySettings
from bezant.protocol.errors import UsageError

BACKLOG: Final = 2048
"""Connections that may wait to be accepted."""
KEEP_ALIVE_S: Final = 75
"""Seconds that a connection may be idle between two requests."""
STOP_S_MAX: Final = 10
"""Seconds that requests under way are given at the end."""
SOCKET_MESSAGE_BYTES_MAX: Final = 4096
"""Of a message that a client sends over a WebSocket."""
ANSWER_HEADERS: Final = (
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-resource-policy", "same-origin"),
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none';"
        " form-action 'none'; frame-ancestors 'none'",
    ),
)
"""Of every answer: a browser takes it for what it says that it is, shows it in no frame, and runs nothing but ours."""
_OnStop = Callable[[], Awaitable[None]]
_PORT_MAX: Final = 65_535


def run_gateway(settings: GatewaySettings, listen: str, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT; `say` is told the address once requests are taken.

    Raises `UsageError` for an address that cannot be had or is not on loopback, `ConnectionFailed` if no node answers.
    """
    bound = bind_loopback(listen)
    with contextlib.closing(bound):
        uvloop.run(_serve(settings, bound, say))


async def _serve(settings: GatewaySettings, bound: socket.socket, say: Callable[[str], None]) -> None:
    async with connect(settings.connect, timeout_s=settings.timeout_s) as wallet:
        ledger = Ledger(wallet, settings.timeout_s)
        await ledger.fetch_currencies()
        pushes = Pushes(count_max=settings.streams_max, client_count_max=settings.client_streams_max)
        cluster, meter = Cluster(ClusterWatch(settings.connect)), Meter(wallet)
        meter.loop_watch.start()

        async def on_stop() -> None:
            await pushes.close()
            await cluster.close()
            meter.loop_watch.stop()

        front = Front(make_application(ledger, pushes, cluster, meter), ledger, settings)
        await serve_application(Metered(front, meter), settings, bound, say, on_stop)


async def serve_application(
    front: Any,
    settings: GatewaySettings,
    bound: socket.socket,
    say: Callable[[str], None],
    on_stop: _OnStop,
) -> None:
    """Serve an ASGI application; `on_stop` ends what would otherwise never end."""
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    config = uvicorn.Config(
        front,
        loop="none",
        http=with_limit(settings.connections_max),
        ws="websockets-sansio",
        ws_max_size=SOCKET_MESSAGE_BYTES_MAX,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        headers=list(ANSWER_HEADERS),
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=STOP_S_MAX,
    )
    server = _Server(config, lambda: say(f"listening on http://{address_of(bound)}"), on_stop)
    # What has been loaded stays for ever: to look through it would hold requests up for tens of milliseconds.
    gc.collect()
    gc.freeze()
    await server.serve([bound])


class _Server(uvicorn.Server):
    """Ends quietly with a signal, and says when it is ready."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: _OnStop) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        await self._on_stop()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop at SIGTERM and SIGINT; a second one stops without waiting for what is under way."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)


def bind_loopback(address: str) -> socket.socket:
    """Take an address. Raises `UsageError` unless it is one of this machine's own, which nobody else can reach."""
    host, separator, port = address.rpartition(":")
    if not separator or not (port.isascii() and port.isdecimal()) or int(port) > _PORT_MAX:
        raise UsageError(f"an address is written HOST:PORT, not {address!r}")
    host = host.strip("[]")
    try:
        place = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise UsageError(f"the gateway listens on an address of loopback, such as 127.0.0.1, not {host!r}") from error
    if not place.is_loopback:
        raise UsageError(
            f"{host} can be reached from elsewhere, and the gateway lets everybody in: it listens on"
            " loopback only, such as 127.0.0.1"
        )
    bound = socket.socket(socket.AF_INET6 if place.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        bound.setblocking(False)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((str(place), int(port)))
    except OSError as error:
        bound.close()
        raise UsageError(
            f"cannot listen on {address}: {error.strerror or error}; choose another with --listen"
        ) from error
    return bound


def address_of(bound: socket.socket) -> str:
    """Where a socket is bound, "host:port"."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
