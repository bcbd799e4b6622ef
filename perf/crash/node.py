"""A real `bezant serve` in a process of its own, to be killed at any moment from its first instruction on."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from bezant.engine.replica import IDS_MEMORY_BYTES_MIN
from bezant.perf.crash.faults import RigFailed
from bezant.perf.load.processes import (
    NODE_COMMAND,
    NODE_START_TIMEOUT_S,
    NODE_STOP_TIMEOUT_S,
    ChildProcess,
)

_READY: Final = b"listening on "


class CrashNode(ChildProcess):
    """See the module. `start` makes one; ``address`` is where it listens once `await_ready` has returned."""

    address = ""

    @classmethod
    def start(cls, data: Path, segment_size_mib: int, checkpoint_ids: int) -> "CrashNode":
        """Start a node, with little memory for ids, and return at once."""
        options = ("--data", str(data), "--listen", "127.0.0.1:0", "--segment-size-mib", str(segment_size_mib))
        memory = ("--checkpoint-ids", str(checkpoint_ids), "--ids-memory-mib", str(IDS_MEMORY_BYTES_MIN >> 20))
        return cls("the node", (*NODE_COMMAND, *options, *memory), NODE_STOP_TIMEOUT_S)

    def await_ready(self) -> None:
        """Return when it listens. Raises `ProcessFailed` if it ends instead."""
        deadline = time.monotonic() + NODE_START_TIMEOUT_S
        while not self.address:
            line = self.read_line(max(0.0, deadline - time.monotonic()))
            if line.startswith(_READY):
                self.address = line.removeprefix(_READY).decode("ascii", "replace").strip()

    def kill_after(self, delay_s: float) -> bool:
        """Kill it after so long; false if it had ended by itself before."""
        try:
            self._running.wait(delay_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return True
        return False

    def kill(self) -> None:
        """End it with SIGKILL. Raises `RigFailed` if it has ended by itself."""
        if self.ended:
            raise RigFailed(self.describe_end())
        self._running.kill()
        self._running.wait()

    def ask_to_stop(self) -> None:
        """Send SIGTERM."""
        self._running.send_signal(signal.SIGTERM)

    def await_stop(self) -> None:
        """Return when it has stopped with status 0. Raises `RigFailed` if it does not, or not so."""
        try:
            status = self._running.wait(NODE_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise RigFailed(f"the node did not stop within {NODE_STOP_TIMEOUT_S:.0f} s of SIGTERM") from None
        if status != 0:
            raise RigFailed(self.describe_end())
