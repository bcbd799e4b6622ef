"""A server of a few small pages within the process that they are about: GET of HTTP/1.1, one request a connection.

For machines that watch, on this machine or on a network that is trusted: without TLS, tokens or names, so what it tells
must be nothing but numbers. Bounds: CONNECTIONS_MAX at a time, HEAD_BYTES_MAX of a request, and CONNECTION_S_MAX for
all of it; who exceeds them is cut off. A body is not read.
"""

import asyncio
import ipaddress
import logging
import re
import socket
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple, cast

import msgspec

from bezant.net.access.settings import INSECURE_OPTION
from bezant.protocol.errors import UsageError

CONNECTIONS_MAX: Final = 32
"""Connections at a time; more are closed at once."""
HEAD_BYTES_MAX: Final = 8 << 10
"""Of the request line and the headers."""
CONNECTION_S_MAX: Final = 10.0
"""Seconds from the connecting to the end."""
JSON: Final = "application/json"
PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Pages that say no more than yes or no, and so to everybody, by whatever name they ask."""
_HOST: Final = re.compile(r"(?:\[([0-9a-f:.%a-z]+)\]|([^:\[\]@/\s]+))(?::[0-9]{0,5})?")
_END_OF_HEAD: Final = b"\r\n\r\n"
_REQUEST_WORDS: Final = 3

_log = logging.getLogger("bezant")


class Answer(NamedTuple):
    """What a page says."""

    status: int
    content_type: str
    body: bytes


Pages = Mapping[str, Callable[[str], Answer]]
"""By path, what is answered to who accepts this (the header; "" if there is none)."""


class Verdict(msgspec.Struct, frozen=True, omit_defaults=True):
    """Whether all is well, and if not, why."""

    status: str
    reason: str = ""


def verdict(fault: str) -> Answer:
    """200 if there is no fault, else 503 with it."""
    status = HTTPStatus.SERVICE_UNAVAILABLE if fault else HTTPStatus.OK
    return Answer(status, JSON, msgspec.json.encode(Verdict("unavailable" if fault else "ok", fault)))


def check_watchers(sockets: Iterable[socket.socket], *, insecure_listen: bool) -> None:
    """Raise `UsageError` if others than this machine could connect, unless that was asked for."""
    for bound in sockets:
        host = str(bound.getsockname()[0])
        if not insecure_listen and not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            raise UsageError(
                f"{host} can be reached from elsewhere, and metrics are told to everybody, without TLS: use an address"
                f" of loopback or, if the network is trusted, {INSECURE_OPTION}"
            )


class Watchers:
    """Those who are connected."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.connections: set[_Connection] = set()

    def connection(self) -> asyncio.BaseProtocol:
        """For the next one."""
        return _Connection(self)

    def close(self) -> None:
        """Cut all of them off."""
        for connection in tuple(self.connections):
            connection.abort()


def is_own_name(host: str) -> bool:
    """Whether a Host header names this machine, and not what a stranger's page may have been made to lead here.

    Such a page (DNS rebinding) is at a public name. So an address will do, a name without a dot, and the machine's own.
    """
    matched = _HOST.fullmatch(host.lower())
    if matched is None:
        return False
    name = matched[1] or matched[2]
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return matched[1] is None and ("." not in name.rstrip(".") or name == socket.gethostname().lower())
    return True


class _Connection(asyncio.Protocol):
    """One request."""

    def __init__(self, watchers: Watchers) -> None:
        self._watchers = watchers
        self._transport: asyncio.Transport | None = None
        self._head = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._answered = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Somebody has connected."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are asyncio's by duck typing alone
        if len(self._watchers.connections) >= CONNECTIONS_MAX:
            self._transport.abort()
            return
        self._watchers.connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(CONNECTION_S_MAX, self.abort)

    def connection_lost(self, error: Exception | None) -> None:
        """They have gone."""
        self._watchers.connections.discard(self)
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        """Bytes have come; what follows the head is of no interest."""
        if self._answered or self._transport is None:
            return
        self._head += data
        end = self._head.find(_END_OF_HEAD)
        if max(end, 0) > HEAD_BYTES_MAX or (end < 0 and len(self._head) > HEAD_BYTES_MAX):
            self._answer(Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, JSON, b"{}"))
        elif end >= 0:
            self._answer(self._answer_to(bytes(self._head[:end]).decode("latin-1").split("\r\n")))

    def _answer_to(self, lines: list[str]) -> Answer:
        words = lines[0].split(" ")
        if len(words) != _REQUEST_WORDS or not words[2].startswith("HTTP/1."):
            return Answer(HTTPStatus.BAD_REQUEST, JSON, b"{}")
        if words[0] != "GET":
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, JSON, b"{}")
        page = self._watchers.pages.get(words[1].partition("?")[0])
        if page is None:
            return Answer(HTTPStatus.NOT_FOUND, JSON, b"{}")
        fields = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines[1:])]
        hosts = [value for name, value in fields if name == "host"]
        if words[1].partition("?")[0] not in PROBES and not all(is_own_name(host) for host in hosts):
            return Answer(HTTPStatus.MISDIRECTED_REQUEST, JSON, b"{}")
        accept = ",".join(value for name, value in fields if name == "accept")
        try:
            return page(accept)
        except Exception:
            _log.exception("bezant: %s failed", words[1])
            return Answer(HTTPStatus.INTERNAL_SERVER_ERROR, JSON, b"{}")

    def _answer(self, answer: Answer) -> None:
        if self._transport is None:
            return
        self._answered = True
        self._head.clear()
        head = (
            f"HTTP/1.1 {int(answer.status)} {HTTPStatus(answer.status).phrase}\r\n"
            f"content-type: {answer.content_type}\r\n"
            f"content-length: {len(answer.body)}\r\ncache-control: no-store\r\nx-content-type-options: nosniff\r\n"
            "connection: close\r\n"
        )
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            head += "allow: GET\r\n"
        self._transport.write(head.encode("latin-1") + b"\r\n" + answer.body)
        self._transport.close()

    def abort(self) -> None:
        """Cut it off."""
        if self._transport is not None:
            self._transport.abort()
