"""What a measurement of pushes found."""

import msgspec

LATENCY_MS_P50_MAX = 1.0
LATENCY_MS_P99_MAX = 5.0
WRITE_RATE_LOSS_MAX = 0.10


class Latency(msgspec.Struct, frozen=True):
    """One subscriber, transfers at a steady rate; times in milliseconds.

    ``after_reply``: from when the client that made the transfer was told that it is committed to when the subscriber
    had the event, both in one process; below zero if the subscriber was first. ``after_timestamp``: from the time that
    the event has, before its write to the disk even began, to when the subscriber had it: an upper bound.
    ``reader_processor_us``: processor time of the reader for each transfer, each of which comes by itself.
    """

    transfers: int
    rate: float
    after_reply_ms_p50: float
    after_reply_ms_p99: float
    after_timestamp_ms_p50: float
    after_timestamp_ms_p99: float
    reader_processor_us: float


class FanOut(msgspec.Struct, frozen=True):
    """Many subscribers, each to its own account. Rates are transfers a second.

    ``reader_processor_us``: processor time of the reader for each transfer at the offered rate; also while nobody
    subscribes.
    """

    subscribers: int
    seconds: float
    offered_rate: float
    rate_without_reader: float
    rate_without_subscribers: float
    rate: float
    delivered: int
    missed: int
    repeated: int
    unordered: int
    unbounded_rate_without_reader: float
    unbounded_rate: float
    reader_processor_us_without_subscribers: float
    reader_processor_us: float


class PushReport(msgspec.Struct, frozen=True):
    """All of it."""

    latency: Latency
    fan_out: FanOut

    @property
    def faults(self) -> list[str]:
        """What was promised and not kept, in words: no target of speed, which is a matter of the machine."""
        fan_out = self.fan_out
        found = {"missed": fan_out.missed, "repeated": fan_out.repeated, "out of order": fan_out.unordered}
        return [f"{count} events were {what}" for what, count in found.items() if count]

    def rows(self) -> list[tuple[str, str, str]]:
        """(what, measured, target) for people."""
        latency, fan_out = self.latency, self.fan_out
        kept = fan_out.rate / max(fan_out.rate_without_reader, 1.0)
        return [
            (
                f"commit to received, {latency.rate:,.0f} transfers/s: p50 / p99",
                f"{latency.after_reply_ms_p50:.2f} / {latency.after_reply_ms_p99:.2f} ms",
                f"{LATENCY_MS_P50_MAX:g} / {LATENCY_MS_P99_MAX:g} ms",
            ),
            (
                "the same from the event's own time, with the write to disk",
                f"{latency.after_timestamp_ms_p50:.2f} / {latency.after_timestamp_ms_p99:.2f} ms",
                "",
            ),
            (
                f"{fan_out.subscribers:,} subscribers, each its own account: delivered",
                f"{fan_out.delivered:,}",
                "all",
            ),
            ("missed, repeated", f"{fan_out.missed:,}, {fan_out.repeated:,}", "0, 0"),
            (
                f"transfers/s of {fan_out.offered_rate:,.0f}: without a reader / with one / and its subscribers",
                f"{fan_out.rate_without_reader:,.0f} / {fan_out.rate_without_subscribers:,.0f} / {fan_out.rate:,.0f}",
                f"at least {1 - WRITE_RATE_LOSS_MAX:.0%} of the first ({kept:.0%})",
            ),
            (
                "processor time of the reader for a transfer: one subscriber / none / all",
                f"{latency.reader_processor_us:.1f} / {fan_out.reader_processor_us_without_subscribers:.1f} /"
                f" {fan_out.reader_processor_us:.1f} us",
                "",
            ),
            (
                "transfers/s, as many as it takes: without a reader / with one",
                f"{fan_out.unbounded_rate_without_reader:,.0f} / {fan_out.unbounded_rate:,.0f}",
                "stated",
            ),
        ]
