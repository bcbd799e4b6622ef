"""Counters of a reactor: what it did, and where its time went.

Plain numbers and lists that are added to once for a frame, a batch or a group, and never for each transfer.
`reporting.py` makes the message of them that STATISTICS is answered with.
"""

import time

import numpy as np

from bezant.net.metrics.latencies import Latencies
from bezant.protocol.codes import CODE_ROW
from bezant.protocol.records import Records
from bezant.protocol.statistics import Histogram


class Counters:
    """See the module. `connections` is what there is now; everything else only grows."""

    def __init__(self) -> None:
        self.started_s = time.monotonic()
        self.stage_s: dict[str, float] = {}
        self.waited_s: dict[str, float] = {}
        self.requests: dict[str, int] = {}
        self._results: dict[int, int] = {}
        self._step_s_max = 0.0
        self._step_recent_s_max = 0.0
        self.connections = 0
        self.commands = 0
        self.events = 0
        self.syncs = 0
        self.syncs_inline = 0
        self.bytes_in = 0
        self.bytes_out = 0
        self.request = Latencies()
        self.execute = Latencies()
        self.sync = Latencies()
        self.commit = Latencies()
        self.loop = Latencies()

    def add(self, stage: str, seconds: float) -> None:
        """Add to the time spent in a stage."""
        self.stage_s[stage] = self.stage_s.get(stage, 0.0) + seconds

    def wait(self, stage: str, seconds: float) -> None:
        """Add to the time that batches waited for a stage."""
        self.waited_s[stage] = self.waited_s.get(stage, 0.0) + seconds

    def note_request(self, operation: str, count: int = 1) -> None:
        """So many requests of a kind have been answered."""
        self.requests[operation] = self.requests.get(operation, 0) + count

    def note_results(self, results: Records) -> None:
        """Results are told to those who asked."""
        codes = results["code"]
        refused = int(np.count_nonzero(codes))
        self._results[0] = self._results.get(0, 0) + len(codes) - refused
        if refused:
            found, counts = np.unique(codes, return_counts=True)
            for code, count in zip(found.tolist(), counts.tolist(), strict=True):
                if code:
                    self._results[code] = self._results.get(code, 0) + count

    def results(self) -> dict[str, int]:
        """Results by what became of the commands."""
        told = {"committed": 0, "refused": 0, "not_executed": 0}
        for code, count in self._results.items():
            leaves_event = CODE_ROW[code].leaves_event
            told["committed" if not code else "refused" if leaves_event else "not_executed"] += count
        return told

    def note_step(self, seconds: float) -> None:
        """Take notice of how long one step of the loop took."""
        self._step_recent_s_max = max(self._step_recent_s_max, seconds)

    def take_longest_steps(self) -> tuple[float, float]:
        """Seconds of the longest step since the start, and since this was last called."""
        step_recent_s_max, self._step_recent_s_max = self._step_recent_s_max, 0.0
        self._step_s_max = max(self._step_s_max, step_recent_s_max)
        return self._step_s_max, step_recent_s_max

    def latencies(self) -> dict[str, Histogram]:
        """All histograms, by name."""
        return {name: getattr(self, name).told() for name in ("request", "execute", "sync", "commit", "loop")}
