"""TLS at the same ports as the frames: version 1.3 at least, certificates checked on both sides where there are two.

An event loop tells of a connection only when its handshake is done, and would let any number of handshakes wait until
then, each with a file of its own. So who listens with TLS accepts by hand, and bounds them.

    accepted --HANDSHAKES_MAX under way--> closed        --handshake fails, or takes HANDSHAKE_S_MAX--> closed
             --there is room--> handshake                --done--> the protocol, as without TLS
"""

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple

from bezant.net.access.addresses import SHARE, place_of_peer
from bezant.protocol.errors import UsageError

HANDSHAKE_S_MAX: Final = 10.0
"""Seconds that a handshake may take; one across the world takes less than one."""
HANDSHAKES_MAX: Final = 256
"""Handshakes at a time at one address of ours; who comes on top is turned away, and may come again. So is who has one
in SHARE of them under way already: nobody keeps all others out."""
SHUTDOWN_S_MAX: Final = 2.0
"""Seconds that the other side has to agree that a connection ends; then it ends anyway."""
ACCEPTS_PER_STEP_MAX: Final = 64
"""Connections that are accepted before it is others' turn."""
ACCEPT_BACKOFF_S: Final = 0.1
"""Seconds before connections are accepted again when the system has no files left."""

_NO_FILES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_log = logging.getLogger("bezant")

PathOrText = str | os.PathLike[str]


class PeerTls(NamedTuple):
    """Contexts for the connections of both directions between nodes, each of which wants a certificate of the other."""

    listening: ssl.SSLContext
    dialling: ssl.SSLContext


def dialling_context(
    ca: PathOrText | None, certificate: PathOrText | None = None, key: PathOrText | None = None
) -> ssl.SSLContext:
    """For who dials: the other side must show a certificate for the host, signed by `ca` (None: who the system trusts).

    With `certificate` and `key` this side shows one, too. Raises `UsageError` for files that are none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    _trust(context, ca)
    if certificate is not None or key is not None:
        _show(context, certificate, key)
    return context


def listening_context(
    certificate: PathOrText, key: PathOrText, ca: PathOrText | None, verify: ssl.VerifyMode
) -> ssl.SSLContext:
    """For who listens: shows a certificate, and asks for one signed by `ca` as `verify` says. Raises `UsageError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0  # Connections last; a ticket would be one more secret, and let in who is trusted no more.
    _show(context, certificate, key)
    if ca is not None:
        _trust(context, ca)
        context.verify_mode = verify
    elif verify is not ssl.CERT_NONE:
        raise UsageError("certificates can be asked for only of an authority that is named")
    return context


def _trust(context: ssl.SSLContext, ca: PathOrText | None) -> None:
    try:
        if ca is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"the certificate of the authority cannot be read from {ca}: {error}") from error


def _show(context: ssl.SSLContext, certificate: PathOrText | None, key: PathOrText | None) -> None:
    if certificate is None or key is None:
        raise UsageError("a certificate is of no use without its key, nor a key without its certificate")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(f"certificate {certificate} and key {key} cannot be used: {error}") from error


def _no_password() -> str:
    """OpenSSL would ask at the terminal, of a node that may have none."""
    raise UsageError("the key is locked with a password, which nobody could type at every start")


def is_private(transport: asyncio.BaseTransport | None) -> bool:
    """Whether a connection goes by TLS."""
    return transport is not None and transport.get_extra_info("sslcontext") is not None


def name_of_peer(transport: asyncio.BaseTransport | None) -> str | None:
    """The name in the certificate that the other side has shown, and that was found to be good; None if it showed none.

    The common name or, of a certificate without one, the first name of the host; "" if it has neither.
    """
    certificate: dict[str, Any] | None = None if transport is None else transport.get_extra_info("peercert")
    if not certificate:
        return None
    for part in certificate.get("subject", ()):
        for name, value in part:
            if name == "commonName":
                return str(value)
    return next((str(value) for _, value in certificate.get("subjectAltName", ())), "")


class TlsListener:
    """Accepts connections on a bound socket that listens, which it owns, and begins each with a handshake."""

    def __init__(
        self, factory: Callable[[], asyncio.BaseProtocol], sock: socket.socket, context: ssl.SSLContext
    ) -> None:
        """`factory` makes the protocol of a connection whose handshake is done."""
        self._factory = factory
        self._socket = sock
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._handshakes: set[asyncio.Task[None]] = set()
        self._handshakes_of: Counter[str] = Counter()
        self._unbegun: set[socket.socket] = set()
        """Accepted, and not in the hands of the loop yet."""
        self.failed_count = 0
        """Connections whose handshake failed, or for which there was no room."""
        self._retry: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._loop.add_reader(sock, self._accept)

    def close(self) -> None:
        """Accept nothing more, and end what is not past its handshake. Connections go on. May be called again."""
        if self._retry is not None:
            self._retry.cancel()
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()
        for handshake in self._handshakes:
            handshake.cancel()
        while self._unbegun:
            self._unbegun.pop().close()

    async def wait_closed(self) -> None:
        """Return when no handshake is under way any more; after `close`."""
        if self._handshakes:
            await asyncio.wait(set(self._handshakes))

    def _accept(self) -> None:
        """Somebody may be there."""
        for _ in range(ACCEPTS_PER_STEP_MAX):
            try:
                accepted, address = self._socket.accept()
            except OSError as error:
                if error.errno in _NO_FILES:
                    _log.warning("bezant: no connection can be accepted for a moment: %s", error)
                    self._loop.remove_reader(self._socket)
                    self._retry = self._loop.call_later(
                        ACCEPT_BACKOFF_S, self._loop.add_reader, self._socket, self._accept
                    )
                return  # Nobody is there, or whoever was has gone again.
            place = place_of_peer(address)
            if len(self._handshakes) >= HANDSHAKES_MAX or self._handshakes_of[place] >= HANDSHAKES_MAX // SHARE:
                self.failed_count += 1
                accepted.close()
                continue
            accepted.setblocking(False)
            self._unbegun.add(accepted)
            handshake = self._loop.create_task(self._shake_hands(accepted))
            self._handshakes.add(handshake)
            self._handshakes_of[place] += 1
            handshake.add_done_callback(partial(self._on_over, place))

    def _on_over(self, place: str, handshake: "asyncio.Task[None]") -> None:
        self._handshakes.discard(handshake)
        self._handshakes_of[place] -= 1
        if not self._handshakes_of[place]:
            del self._handshakes_of[place]

    async def _shake_hands(self, accepted: socket.socket) -> None:
        self._unbegun.discard(accepted)
        try:
            await self._loop.connect_accepted_socket(
                self._factory,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=HANDSHAKE_S_MAX,
                ssl_shutdown_timeout=SHUTDOWN_S_MAX,
            )
        except (OSError, ssl.SSLError, TimeoutError) as error:
            self.failed_count += 1
            _log.debug("bezant: a connection ended before it was private: %s", error)
