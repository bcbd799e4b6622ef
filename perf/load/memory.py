"""Memory of a node: of its process and of all that it has started."""

from pathlib import Path
from typing import Final

_PEAK: Final = "VmHWM:"
_UNIT_BYTES: Final = 1024


class MemoryPeak:
    """The most memory that a process and its descendants were seen to have; ``bytes_max`` is None if never.

    A sample adds up the peaks of the resident memory (VmHWM of proc(5), mapped files included) of those that are alive,
    so that one that has ended counts in the samples of its lifetime only. Pages that they share count several times.
    """

    def __init__(self, process_id: int) -> None:
        self._process_id = process_id
        self.bytes_max: int | None = None

    def sample(self) -> None:
        """Look at all of them now."""
        peaks = [peak for process_id in family(self._process_id) if (peak := peak_bytes(process_id)) is not None]
        if peaks:
            self.bytes_max = max(self.bytes_max or 0, sum(peaks))


def family(process_id: int) -> list[int]:
    """The process and all its descendants, as far as the system tells."""
    found = [process_id]
    for parent in found:
        for listing in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += map(int, listing.read_text().split())
            except OSError:
                continue  # the thread or the process has ended meanwhile
    return found


def peak_bytes(process_id: int) -> int | None:
    """The most resident memory that a process has had; None if it has ended or the system does not say."""
    try:
        lines = Path(f"/proc/{process_id}/status").read_text().splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(_PEAK)]
    return int(found[0]) * _UNIT_BYTES if found else None
