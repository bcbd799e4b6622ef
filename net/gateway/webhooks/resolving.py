"""Looks names up on threads of its own: the system's way to do it blocks, for as long as a name server is silent.

What waits for such a name holds up nothing else: neither other work of the process that needs threads, nor names that
are answered, as one name takes one thread, however many ask. Threads are not waited for when the process ends.
"""

import asyncio
import ipaddress
import socket
import threading
from typing import Final

LOOKUPS_MAX: Final = 32
"""Names that are looked up at a time; who comes on top waits until its own deadline."""
LOOKUP_S_MAX: Final = 5.0
"""Seconds that somebody waits for a name."""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class Resolver:
    """See the module. Used from one event loop."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(LOOKUPS_MAX)
        self._under_way: dict[str, asyncio.Future[list[Address]]] = {}

    async def look_up(self, host: str) -> list[Address]:
        """All addresses that a name leads to. Raises `OSError`, `UnicodeError`, and `TimeoutError` if that takes too
        long."""
        async with asyncio.timeout(LOOKUP_S_MAX):
            if host not in self._under_way:
                await self._free.acquire()
                if host in self._under_way:
                    self._free.release()
                else:
                    self._begin(host)
            return await asyncio.shield(self._under_way[host])

    def _begin(self, host: str) -> None:
        loop = asyncio.get_running_loop()
        found: asyncio.Future[list[Address]] = loop.create_future()
        # All who wait may have gone before it fails.
        found.add_done_callback(lambda done: done.exception())
        self._under_way[host] = found

        def tell(addresses: list[Address] | None, error: Exception | None) -> None:
            self._free.release()
            del self._under_way[host]
            if addresses is None:
                found.set_exception(error or OSError("the name of the host leads nowhere"))
            else:
                found.set_result(addresses)

        def work() -> None:
            addresses, failure = None, None
            try:
                addresses = addresses_of(host)
            except Exception as error:
                failure = error
            try:
                loop.call_soon_threadsafe(tell, addresses, failure)
            except RuntimeError:
                pass  # The loop is closed, and nobody waits any more.

        threading.Thread(target=work, name=f"bezant name {host[:40]}", daemon=True).start()


def addresses_of(host: str) -> list[Address]:
    """All addresses that a name leads to, by the system's way, which blocks. Raises `OSError`, `UnicodeError`."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [ipaddress.ip_address(place[0]) for *_, place in found]
