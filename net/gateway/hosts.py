"""Which pages a browser may ask from: those of the gateway itself.

A browser runs what strangers wrote, beside us and with our addresses in reach. It names in ``Host`` whom it believes to
ask, so a stranger's name that was made to lead here (DNS rebinding) gives itself away; and in ``Origin`` the page that
asks, whenever that page could be told something or change something.
"""

import ipaddress
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from bezant.net.gateway.asgi import Scope
from bezant.net.gateway.problems import GatewayProblem, refusal

STATIC_PATHS: Final = ("/docs", "/docs/", "/console", "/console/", "/openapi.json")
"""What says the same to everybody: pages of any origin may have it. One that ends with a slash has all below it."""
_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^:\[\]@/\s]+))(?::[0-9]{0,5})?")
_NAMES_REMEMBERED_MAX: Final = 256


class Hosts:
    """The names by which a gateway may be asked: those of loopback, and those that it was told."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(name.lower() for name in names)

    def check(self, scope: Scope) -> None:
        """Raise `ProblemRaised` if a request was meant for another host, or comes from a page of another."""
        host = origin = None
        for name, value in scope["headers"]:
            if name == b"host":
                if host is not None:
                    raise refusal(GatewayProblem.REQUEST_INVALID, "a request has one Host")
                host = value.lower()
            elif name == b"origin":
                if origin is not None:
                    raise refusal(GatewayProblem.REQUEST_INVALID, "a request has one Origin")
                origin = value.lower()
        name = _name_of(host or b"")
        if not (_is_loopback(name) or name in self._names):
            raise refusal(GatewayProblem.HOST_UNKNOWN, "give its name to the gateway with --host")
        if origin is None or is_static(scope["path"]):
            return
        if origin not in (b"http://%s" % host, b"https://%s" % host):
            raise refusal(GatewayProblem.ORIGIN_FOREIGN)


def is_static(path: str) -> bool:
    """Whether it is one of STATIC_PATHS, or below one."""
    return any(path == one or (one.endswith("/") and path.startswith(one)) for one in STATIC_PATHS)


@lru_cache(_NAMES_REMEMBERED_MAX)
def _name_of(host: bytes) -> str:
    """The name, or the address without brackets, of a Host header; empty if it is none."""
    matched = _HOST.fullmatch(host.decode("latin-1"))
    return (matched[1] or matched[2]) if matched else ""


@lru_cache(_NAMES_REMEMBERED_MAX)
def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
