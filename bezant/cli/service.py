"""Tells the service manager that started this process when it is ready: `sd_notify(3)`, for units of Type=notify."""

import os
import socket
from collections.abc import Callable, MutableMapping
from typing import Final

VARIABLE: Final = "NOTIFY_SOCKET"
READY: Final = b"READY=1"


def say_and_notify(
    say: Callable[[str], None], environment: MutableMapping[str, str] = os.environ
) -> Callable[[str], None]:
    """`say`, which tells the service manager as well, with its first line, that the process is ready.

    The manager is taken out of the environment: child processes have nothing to tell it. A manager that does not listen
    is none of ours to fail for.
    """
    address = environment.pop(VARIABLE, "")
    if not address:
        return say
    untold = [READY]

    def told(line: str) -> None:
        say(line)
        if untold:
            notify(address, untold.pop())

    return told


def notify(address: str, state: bytes) -> None:
    """Send a datagram to the manager's socket, a path, or "@" and a name that is in no file system."""
    place = b"\0" + os.fsencode(address[1:]) if address.startswith("@") else os.fsencode(address)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sending:
        sending.setblocking(False)
        try:
            sending.sendto(state, place)
        except OSError:
            return
