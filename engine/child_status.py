"""How a child has ended, in words for whoever reads them."""

import signal
from typing import Final

_MEANINGS: Final = {
    signal.SIGBUS: "a file that it reads was shortened meanwhile, or the disk could not read a page of it",
    signal.SIGKILL: "somebody killed it, or the system was out of memory",
}


def tell_status(status: int) -> str:
    """What a status says, as `subprocess` gives it: negative for a signal."""
    if status >= 0:
        return f"status {status}"
    try:
        number = signal.Signals(-status)
    except ValueError:
        return f"signal {-status}"
    meaning = _MEANINGS.get(number)
    return number.name if meaning is None else f"{number.name}: {meaning}"
