"""What a measurement of a history found."""

import msgspec

AS_OF_MS_MAX = 10.0
STATEMENT_MS_MAX = 2.0
CATCH_UP_EVENTS_PER_S_MIN = 1_000_000
VERIFY_EVENTS_PER_S_MIN = 4_000_000
RECEIPT_BYTES_MAX = 2048
RECEIPT_CHECK_MS_MAX = 1.0

Latencies = dict[str, float | None]
"""Microseconds by percentile, and the maximum."""


class Verify(msgspec.Struct, frozen=True):
    """`bezant verify` of the history. The processor time is of all its processes, their start and end included."""

    events_per_s: int
    parts: int
    processes: int
    processor_ns_per_event: float
    doubt: str


class CatchUp(msgspec.Struct, frozen=True):
    """A reader that takes the history in from its beginning: projections and tree, in the thread that it uses for both.

    `events_per_s` until the last event can be asked for, `settled_events_per_s` until every file is merged, too. The
    processor times are of that thread for reading and checking the log, for projections and for the tree; and of the
    threads that write and merge files.
    """

    events_per_s: int
    settled_events_per_s: int
    log_ns_per_event: float
    projections_ns_per_event: float
    tree_ns_per_event: float
    files_ns_per_event: float


class Receipts(msgspec.Struct, frozen=True):
    """Receipts for events chosen at random: how soon they are given, and checked by whoever has one alone."""

    count: int
    issue_us: Latencies
    check_us: Latencies
    size_bytes_max: int


class HistoryReport(msgspec.Struct, frozen=True):
    """Figures. Hot accounts take part in half of all transfers.

    `reader_bytes` are what a reader keeps of the history on the disk, in `index_files` and a few others; `reopen_s` is
    how long it takes to have all of it at hand again.
    """

    events: int
    accounts: int
    make_events_per_s: int
    verify: Verify
    catch_up: CatchUp
    reader_bytes: int
    index_files: int
    reopen_s: float
    balance_as_of_us: dict[str, Latencies]
    statement_100_us: dict[str, Latencies]
    transfer_by_id_us: Latencies
    receipts: Receipts
    kernel_digest: str

    @property
    def missed(self) -> list[str]:
        """The targets that are not met, in words."""
        slowest = {
            "balance as of a past time": (self.balance_as_of_us, AS_OF_MS_MAX),
            "last 100 lines of a statement": (self.statement_100_us, STATEMENT_MS_MAX),
            "check of a receipt": ({"all": self.receipts.check_us}, RECEIPT_CHECK_MS_MAX),
        }
        found = [
            f"{what}, {which}: p99 of {latencies['p99']} us, at most {limit_ms:g} ms are allowed"
            for what, (by_kind, limit_ms) in slowest.items()
            for which, latencies in by_kind.items()
            if (latencies["p99"] or 0) > limit_ms * 1000
        ]
        for what, measured, least in (
            ("catching up", self.catch_up.events_per_s, CATCH_UP_EVENTS_PER_S_MIN),
            ("verify", self.verify.events_per_s, VERIFY_EVENTS_PER_S_MIN),
        ):
            if measured < least:
                found.append(f"{what}: {measured:,} events/s of at least {least:,}")
        if self.receipts.size_bytes_max > RECEIPT_BYTES_MAX:
            found.append(f"a receipt has {self.receipts.size_bytes_max} bytes, more than {RECEIPT_BYTES_MAX}")
        return found

    def rows(self) -> list[tuple[str, str, str]]:
        """(what, measured, target) for people."""
        catch_up, verify, receipts = self.catch_up, self.verify, self.receipts
        rows = [
            (
                f"reader catching up with {self.events:,} events, {self.accounts:,} accounts",
                f"{catch_up.events_per_s:,} events/s; {catch_up.settled_events_per_s:,} with all files merged",
                f"{CATCH_UP_EVENTS_PER_S_MIN:,} events/s",
            ),
            (
                "processor time an event: log, projections, tree; files",
                f"{catch_up.log_ns_per_event:.0f}, {catch_up.projections_ns_per_event:.0f},"
                f" {catch_up.tree_ns_per_event:.0f}; {catch_up.files_ns_per_event:.0f} ns",
                "",
            ),
            (
                f"verify, {verify.parts} parts, {verify.processes} at a time",
                f"{verify.events_per_s:,} events/s; {verify.processor_ns_per_event:.0f} ns of processor an event",
                f"{VERIFY_EVENTS_PER_S_MIN:,} events/s",
            ),
            (
                "a reader's files",
                f"{self.reader_bytes / 1e6:,.1f} MB, {self.index_files} of indexes; opened in {self.reopen_s:.2f} s",
                "",
            ),
        ]
        for what, by_kind, limit_ms in (
            ("balance as of a past time", self.balance_as_of_us, AS_OF_MS_MAX),
            ("last 100 lines of a statement", self.statement_100_us, STATEMENT_MS_MAX),
        ):
            rows += [
                (f"{what}, {which}: p50 / p99", _p50_p99_ms(latencies), f"{limit_ms:g} ms")
                for which, latencies in by_kind.items()
            ]
        return [
            *rows,
            ("transfer by its id: p50 / p99", _p50_p99_ms(self.transfer_by_id_us), ""),
            ("receipt, given: p50 / p99", _p50_p99_ms(receipts.issue_us), ""),
            ("receipt, checked: p50 / p99", _p50_p99_ms(receipts.check_us), f"{RECEIPT_CHECK_MS_MAX:g} ms"),
            ("receipt, size", f"{receipts.size_bytes_max} bytes", f"{RECEIPT_BYTES_MAX} bytes"),
        ]


def _p50_p99_ms(latencies: Latencies) -> str:
    return f"{(latencies['p50'] or 0) / 1000:.3f} / {(latencies['p99'] or 0) / 1000:.3f} ms"
