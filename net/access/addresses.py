"""Who counts as one where places are few: an address, or the network that whoever has one by IPv6 chooses from."""

import ipaddress
from functools import lru_cache
from typing import Any, Final

SHARE: Final = 2
"""One address has at most one in so many of the places of those who have not said yet who they are."""
_REMEMBERED_MAX: Final = 4096


@lru_cache(_REMEMBERED_MAX)
def place_of(address: str) -> str:
    """An address, or the network of 64 bits of one by IPv6. What is no address is a place by itself."""
    if ":" not in address:
        return address
    try:
        inner = ipaddress.IPv6Address(address.partition("%")[0])
    except ValueError:
        return address
    if inner.ipv4_mapped is not None:
        return str(inner.ipv4_mapped)
    return str(ipaddress.IPv6Network((inner, 64), strict=False))


def place_of_peer(name: Any) -> str:
    """The same of what a socket calls its other side; "" if it has no name."""
    return place_of(str(name[0])) if isinstance(name, tuple) and name else ""


def is_of_this_machine(host: str) -> bool:
    """Whether what is sent to a host, a name or an address, surely stays on this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return False
