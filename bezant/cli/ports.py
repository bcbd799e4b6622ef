"""Ports of this machine for servers that are told where to listen before they are started.

None of those that the system gives to whoever asks for any: until the server listens, and whenever it is started again,
every connection that anybody makes might take one of them for its own end. And none that another process has drawn, for
as long as that runs, whether its server listens just now or not: where the system has abstract names, each port that is
drawn is claimed by one.
"""

import errno
import itertools
import random
import socket
import sys
from collections.abc import Set
from contextlib import suppress
from typing import Final

from bezant.cli.errors import CommandFailed

HOST: Final = "127.0.0.1"
PORT_MIN: Final = 16_384
PORTS_COUNT: Final = 16_384
"""Ports to draw from: below 32,768, where the range begins that Linux takes the ends of connections from."""

_offsets: Final = itertools.count(random.SystemRandom().randrange(PORTS_COUNT))
"""Each process begins somewhere else, and draws no port twice."""
_CLAIM: Final = "\0bezant-port-{}"
"""The name of a socket of Linux that is no file, and gone when nobody has it open any more."""


def free_ports(count: int, taken: Set[int] = frozenset()) -> list[int]:
    """Ports that nobody has just now, each another one, and none of those that are `taken`. Raises `CommandFailed`."""
    found: list[int] = []
    for offset in itertools.islice(_offsets, PORTS_COUNT):
        port = PORT_MIN + offset % PORTS_COUNT
        if port in taken or not _claim(port):
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind((HOST, port))
            found.append(port)
        if len(found) == count:
            return found
    raise CommandFailed(f"no {count} ports from {PORT_MIN} on are free")


def _claim(port: int) -> bool:
    """Claim a port for the rest of this process, unless another process has."""
    if sys.platform != "linux":
        return True
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(_CLAIM.format(port))
    except OSError as error:
        claim.close()
        return error.errno != errno.EADDRINUSE
    claim.detach()  # Nobody closes it: it ends with the process.
    return True


def free_addresses(count: int) -> list[str]:
    """The same, as addresses."""
    return [f"{HOST}:{port}" for port in free_ports(count)]
