"""Counters of a reactor: what it did, and where its time went."""

import time

from bezant.engine.replica import Replica
from bezant.protocol.messages import Statistics


class Counters:
    """Plain numbers that the reactor adds to; `snapshot` is what the STATISTICS operation answers."""

    def __init__(self, replica: Replica) -> None:
        self._replica = replica
        self._started_s = time.monotonic()
        self._stage_s: dict[str, float] = {}
        self._step_s_max = 0.0
        self._step_recent_s_max = 0.0
        self.connections = 0
        self.commands = 0
        self.events = 0
        self.syncs = 0
        self.syncs_inline = 0
        self.bytes_in = 0
        self.bytes_out = 0

    def add(self, stage: str, seconds: float) -> None:
        """Add to the time spent in a stage."""
        self._stage_s[stage] = self._stage_s.get(stage, 0.0) + seconds

    def note_step(self, seconds: float) -> None:
        """Take notice of how long one step of the loop took."""
        self._step_recent_s_max = max(self._step_recent_s_max, seconds)

    def snapshot(self, bytes_in_flight: int, replicas: int) -> Statistics:
        """The counters now, in a group of so many voters; the longest step is looked for anew from here on."""
        step_recent_s_max, self._step_recent_s_max = self._step_recent_s_max, 0.0
        self._step_s_max = max(self._step_s_max, step_recent_s_max)
        log, ledger = self._replica.log, self._replica.ledger
        return Statistics(
            uptime_s=time.monotonic() - self._started_s,
            connections=self.connections,
            commands=self.commands,
            events=self.events,
            accounts=ledger.account_count,
            entries=log.last_index,
            syncs=self.syncs,
            syncs_inline=self.syncs_inline,
            bytes_in=self.bytes_in,
            bytes_out=self.bytes_out,
            log_bytes=log.bytes_count,
            durable_index=log.durable_index,
            durable_sequence=log.durable_sequence,
            bytes_in_flight=bytes_in_flight,
            stage_s=dict(self._stage_s),
            loop_stall_max_ms=1e3 * self._step_s_max,
            durable=self._replica.durable,
            replicas=replicas,
            loop_stall_recent_ms=1e3 * step_recent_s_max,
        )
