"""One attempt to send a message to an address: where it may go, how it is signed, what counts as taken.

Messages are signed as in Standard Webhooks 1.0 (standardwebhooks.com): HMAC-SHA256 over id, time and body. A name is
resolved at each attempt, refused unless all that it leads to may be reached, and connected to at what was looked at, so
that it cannot lead elsewhere in between. Redirections are not followed.
"""

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import ssl
from collections.abc import Sequence
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import h11

from bezant.net.gateway.webhooks.resolving import LOOKUP_S_MAX, Address, Resolver
from bezant.protocol.errors import UsageError

URL_SIZE_MAX: Final = 2000
HOST_SIZE_MAX: Final = 253
"""Bytes of the name of a host (RFC 1035, section 2.3.4, as text)."""
ATTEMPT_S_MAX: Final = 10.0
"""Seconds that an attempt may take, from resolving the name to the end of the answer's head."""
ANSWER_BYTES_MAX: Final = 16 << 10
"""Of the answer, which is read no further."""
SECRET_PREFIX: Final = "whsec_"
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_PORTS: Final = {"http": 80, "https": 443}

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class SendFailed(Exception):  # noqa: N818 - it says what happened, like our other exceptions
    """A message was not taken: why, in words without secrets."""


class Target(NamedTuple):
    """Where a message goes: "https" or "http", and the parts of the address."""

    scheme: str
    host: str
    port: int
    path: str


def target_of(url: str) -> Target:
    """The parts of an address. Raises `UsageError` for what is none that messages can go to."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"the address of a webhook is a URL: {error}") from error
    if len(url) > URL_SIZE_MAX or not url.isascii() or any(ord(one) <= ord(" ") or ord(one) == 127 for one in url):
        raise UsageError(f"the address of a webhook has up to {URL_SIZE_MAX} printable ASCII characters")
    if parts.scheme not in _PORTS or not parts.hostname:
        raise UsageError("the address of a webhook begins with https://, or http:// where that is allowed")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise UsageError("the address of a webhook has no user, no password and no fragment")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.scheme, parts.hostname, port or _PORTS[parts.scheme], path)


def place_of(url: str) -> str:
    """Host and port of an address, as the audit has them: the path and what is behind it may be secrets.

    What is longer than the name of any host is cut to its end, where it says whose it is.
    """
    target = target_of(url)
    host = target.host[-HOST_SIZE_MAX:]
    return f"[{host}]:{target.port}" if ":" in host else f"{host}:{target.port}"


def is_public(address: Address) -> bool:
    """Whether an address is one of the public Internet, whatever form it is written in."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


def check_address(target: Target, address: Address, allowed: Sequence[Network]) -> None:
    """Raise `SendFailed` if nothing may be sent there: that is not public, or by http, unless it is allowed."""
    plain = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped else address
    if any(plain in network for network in allowed):
        return
    if target.scheme != "https":
        raise SendFailed("http is for addresses that the gateway was told to allow")
    if not is_public(address):
        raise SendFailed("the name leads to an address that is not public, and not allowed")


async def resolve(target: Target, allowed: Sequence[Network], resolver: Resolver) -> Address:
    """The address that a name leads to, if all that it leads to may be reached. Raises `SendFailed`."""
    try:
        addresses = await resolver.look_up(target.host)
    except TimeoutError as error:
        raise SendFailed(f"the name of the host was not found within {LOOKUP_S_MAX:g} s") from error
    except (OSError, UnicodeError) as error:
        raise SendFailed("the name of the host leads nowhere") from error
    if not addresses:
        raise SendFailed("the name of the host leads nowhere")
    for address in addresses:
        check_address(target, address, allowed)
    return addresses[0]


def signature_of(secrets: Sequence[bytes], message: str, time_s: int, body: bytes) -> str:
    """What the header webhook-signature has: a signature by each secret."""
    signed = b"%s.%d.%s" % (message.encode(), time_s, body)
    digests = [hmac.new(secret, signed, hashlib.sha256).digest() for secret in secrets]
    return " ".join("v1," + base64.b64encode(digest).decode() for digest in digests)


def secret_text(secret: bytes) -> str:
    """A secret as receivers are given it."""
    return SECRET_PREFIX + base64.b64encode(secret).decode()


class Way(NamedTuple):
    """How a gateway gets anywhere: networks that it may reach although not public, its TLS, and who knows names."""

    allowed: Sequence[Network]
    tls: ssl.SSLContext | None
    resolver: Resolver


async def send(url: str, headers: Sequence[tuple[str, str]], body: bytes, way: Way) -> int:
    """Send a message once, and return the status of the answer. Raises `SendFailed` if there is none."""
    try:
        target = target_of(url)
        async with asyncio.timeout(ATTEMPT_S_MAX):
            address = await resolve(target, way.allowed, way.resolver)
            context = way.tls if target.scheme == "https" else None
            name = target.host if context is not None else None
            reader, writer = await asyncio.open_connection(
                str(address), target.port, ssl=context, server_hostname=name, limit=ANSWER_BYTES_MAX
            )
            try:
                return await _ask(reader, writer, target, headers, body)
            finally:
                writer.transport.abort()
    except TimeoutError as error:
        raise SendFailed(f"no answer within {ATTEMPT_S_MAX:g} s") from error
    except UsageError as error:
        raise SendFailed(str(error)) from error
    except ssl.SSLError as error:
        raise SendFailed(f"no private connection: {error.reason or 'refused'}") from error
    except OSError as error:
        raise SendFailed(f"cannot be reached: {error.strerror or 'refused'}") from error
    except h11.RemoteProtocolError as error:
        # What is wrong with it would repeat what whoever is there has sent, to administrators and in the log.
        raise SendFailed("the answer is no HTTP") from error


async def _ask(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    target: Target,
    headers: Sequence[tuple[str, str]],
    body: bytes,
) -> int:
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=ANSWER_BYTES_MAX)
    host = f"[{target.host}]" if ":" in target.host else target.host
    if target.port != _PORTS[target.scheme]:
        host += f":{target.port}"
    own = [("Host", host), ("Content-Length", str(len(body))), ("Connection", "close"), *headers]
    if writer.is_closing():
        raise SendFailed("the connection was closed without an answer")
    for part in (h11.Request(method="POST", target=target.path, headers=own), h11.Data(body), h11.EndOfMessage()):
        writer.write(connection.send(part) or b"")
    await writer.drain()
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Response):
            return event.status_code
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(ANSWER_BYTES_MAX))
        elif isinstance(event, h11.ConnectionClosed):
            raise SendFailed("the connection was closed without an answer")
