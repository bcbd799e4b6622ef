"""Processor time of the processes of a measurement."""

import os
import time
from pathlib import Path


class ProcessorTimes:
    """Seconds of processor time that this process and another use from its making on."""

    def __init__(self, other_process_id: int) -> None:
        self._other_process_id = other_process_id
        self._other_before = process_cpu_seconds(other_process_id)
        self._own_before = time.process_time()

    def own(self) -> float:
        """Seconds that this process has used since."""
        return time.process_time() - self._own_before

    def other(self) -> float | None:
        """Seconds that the other one has used since; None if the system does not say."""
        now = process_cpu_seconds(self._other_process_id)
        return None if now is None or self._other_before is None else now - self._other_before


def process_cpu_seconds(process_id: int) -> float | None:
    """Seconds of processor time of a process so far, in all its threads; None if the system does not say."""
    try:
        # Field 2 of proc(5) is the name in brackets, which may hold anything; what follows it begins with field 3.
        fields = Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    user, system = fields[11], fields[12]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
