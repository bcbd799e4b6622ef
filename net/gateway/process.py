"""Runs a gateway: takes its address, connects to the ledger, and serves until it is told to stop."""

import asyncio
import contextlib
import gc
import ipaddress
import logging
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import msgspec
import uvicorn
import uvloop

from bezant.net.access.credentials import (
    Credentials,
    make_credentials,
    own_credentials,
    read_token_file,
    split_scheme,
)
from bezant.net.access.tls import TlsListener, listening_context
from bezant.net.client.sharding import open_channel
from bezant.net.client.wallet import Wallet
from bezant.net.client.watching import ClusterWatch
from bezant.net.gateway.application import make_application
from bezant.net.gateway.asking import Ledger
from bezant.net.gateway.authorizing import Ledgers
from bezant.net.gateway.cluster import Cluster
from bezant.net.gateway.connections import with_limit
from bezant.net.gateway.front import Front
from bezant.net.gateway.metering import Meter, Metered
from bezant.net.gateway.own import OwnLedger
from bezant.net.gateway.push import Pushes
from bezant.net.gateway.settings import GatewaySettings
from bezant.net.gateway.webhooks.hooks import Webhooks
from bezant.protocol.errors import AccessDenied, UsageError

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

    Raises `UsageError` for an address that cannot be had, for files that are none, and where others than this machine
    could reach it without TLS and tokens; `ConnectionFailed` if no node answers, `AccessDenied` if they want a token
    that this process does not have.
    """
    tls = _clients_context(settings)
    with contextlib.closing(bind(listen)) as bound:
        uvloop.run(_serve(settings, tls, bound, say))


async def _serve(
    settings: GatewaySettings, tls: ssl.SSLContext | None, bound: socket.socket, say: Callable[[str], None]
) -> None:
    nodes = Nodes(settings)
    ledger = await nodes.open(nodes.own.token)
    watch = ClusterWatch(nodes.addresses, nodes.own)

    async def reopen() -> Ledger:
        fresh = await nodes.open_again()
        watch.show(nodes.own)
        return fresh

    own = OwnLedger(ledger, reopen)
    ledgers = Ledgers(ledger, nodes.open, own_is_for_all=not nodes.own.token)
    tasks = [asyncio.create_task(ledgers.close_idle()), asyncio.create_task(own.watch(), name="bezant own ledger")]
    try:
        check_listening(bound, settings, nodes_want_tokens=await nodes.want_tokens())
        pushes = Pushes(count_max=settings.streams_max, client_count_max=settings.client_streams_max)
        cluster, meter = Cluster(watch), Meter(own)
        meter.loop_watch.start()
        webhooks = Webhooks(own, settings) if settings.webhooks else None
        if webhooks is not None:
            webhooks.start()
            meter.more = webhooks.families

        async def on_stop() -> None:
            await pushes.close()
            await cluster.close()
            if webhooks is not None:
                await webhooks.close()
            meter.loop_watch.stop()

        names = (*settings.hosts, str(bound.getsockname()[0]))
        front = Front(
            make_application(pushes, cluster, meter, webhooks), ledgers, msgspec.structs.replace(settings, hosts=names)
        )
        await serve_application(Metered(front, meter), settings, bound, say, on_stop, tls=tls)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await ledgers.close()
        await own.close()


class Nodes:
    """The nodes behind the gateway, and how it connects to them: with whichever token, trusting whom it was told."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.addresses, asks_for_tls = split_scheme(settings.connect)
        shown = own_credentials()
        tls = shown.tls or make_credentials(tls=asks_for_tls).tls
        self.own = Credentials(shown.token, tls, shown.insecure)
        """What is shown to ask how they are; nobody is served with it."""
        self._timeout_s = settings.timeout_s
        self._token_file = settings.token_file

    async def open_again(self) -> Ledger:
        """The ledger as seen with our token, which is read from its file again. Raises `BezantError`."""
        token = read_token_file(self._token_file) if self._token_file else self.own.token
        ledger = await self.open(token)
        self.own = self.own._replace(token=token)
        return ledger

    async def open(self, token: str) -> Ledger:
        """The ledger as seen with a token; "" is none, whatever this process has. Raises `BezantError`."""
        channel = await open_channel(self.addresses, self._timeout_s, self.own._replace(token=token))
        return Ledger(await Wallet.open_over(channel, self._timeout_s), self._timeout_s)

    async def want_tokens(self) -> bool:
        """Whether they let nobody in without one. Raises `BezantError`."""
        if not self.own.token:
            return False  # We are in.
        try:
            ledger = await self.open("")
        except AccessDenied:
            return True
        await ledger.wallet.close()
        return False


def _clients_context(settings: GatewaySettings) -> ssl.SSLContext | None:
    """For the connections of clients; None without TLS. Raises `UsageError` for files that are none."""
    if not settings.certificate:
        return None
    context = listening_context(settings.certificate, settings.key, None, ssl.CERT_NONE)
    context.set_alpn_protocols(["http/1.1"])
    return context


async def serve_application(
    front: Any,
    settings: GatewaySettings,
    bound: socket.socket,
    say: Callable[[str], None],
    on_stop: _OnStop,
    *,
    tls: ssl.SSLContext | None = None,
) -> None:
    """Serve an ASGI application; `on_stop` ends what would otherwise never end. With `tls` by TLS alone."""
    # No warnings: what clients send that is no HTTP would fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
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
    scheme = "http" if tls is None else "https"
    server = _Server(config, lambda: say(f"listening on {scheme}://{address_of(bound)}"), on_stop, tls)
    # What has been loaded stays for ever: to look through it would hold requests up for tens of milliseconds.
    gc.collect()
    gc.freeze()
    await server.serve([bound])


class _Server(uvicorn.Server):
    """Ends quietly with a signal, and says when it is ready."""

    def __init__(
        self, config: uvicorn.Config, on_ready: Callable[[], None], on_stop: _OnStop, tls: ssl.SSLContext | None
    ) -> None:
        super().__init__(config)
        self._on_ready = on_ready
        self._on_stop = on_stop
        self._tls = tls
        self._listeners: list[TlsListener] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve."""
        await super().startup(sockets if self._tls is None else [])
        if self._tls is not None:
            # An event loop by itself would let any number of handshakes wait.
            for bound in sockets or []:
                bound.listen(BACKLOG)
                self._listeners.append(TlsListener(self._protocol, bound, self._tls))
        if self.started:
            self._on_ready()

    def _protocol(self) -> asyncio.BaseProtocol:
        """What serves a connection whose handshake is done."""
        make: Any = self.config.http_protocol_class
        made: asyncio.BaseProtocol = make(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End."""
        for listener in self._listeners:
            listener.close()
            await listener.wait_closed()
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


def check_listening(bound: socket.socket, settings: GatewaySettings, *, nodes_want_tokens: bool) -> None:
    """Raise `UsageError` if others than this machine could reach it without TLS, or without a token."""
    host = str(bound.getsockname()[0]).partition("%")[0]
    if settings.insecure_listen or ipaddress.ip_address(host).is_loopback:
        return
    lacks = []
    if not settings.certificate:
        lacks.append("the wire is not private (give --listen-cert and --listen-key)")
    if not nodes_want_tokens:
        lacks.append("the nodes let everybody in (make tokens: bezant tokens create)")
    if lacks:
        raise UsageError(
            f"{host} can be reached from elsewhere, and {' and '.join(lacks)};"
            " if the network is trusted, say so: --insecure-listen"
        )


def bind(address: str) -> socket.socket:
    """Take an address, "HOST:PORT". Raises `UsageError` if it cannot be had."""
    host, separator, port = address.rpartition(":")
    if not separator or not (port.isascii() and port.isdecimal()) or int(port) > _PORT_MAX:
        raise UsageError(f"an address is written HOST:PORT, not {address!r}")
    host = host.strip("[]")
    try:
        place = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError as error:
        raise UsageError(f"the gateway listens on an address, such as 127.0.0.1, not on {host!r}") from error
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
