"""Logs with events made up for the tests of subscriptions, what must be told of them by plain reading, and to whom."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from bezant.engine.following import Follower, open_follower
from bezant.engine.log.log import SEGMENT_SIZE_MIN, open_log
from bezant.engine.log.storage import Directory
from bezant.engine.publication import Publisher
from bezant.net.reader.hub import Filter
from bezant.protocol.frames import FrameFlag, FrameReader, Operation
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.names import currency_word
from bezant.protocol.records import EVENT, PROGRESS, PUSHED_EVENT, RULES_VERSION, Records, position_of

CURRENCIES = ("EUR", "USD", "JPY")
ACCOUNTS = 6
REQUEST_ID = 2**63 + 5


class Row(NamedTuple):
    """An event as tests write it; accounts are numbers, 0 is none."""

    kind: int
    debit: int
    credit: int = 0
    result: int = 0


class Wanted(NamedTuple):
    """A filter as tests write it."""

    accounts: tuple[int, ...] = ()
    currency: str = ""
    kinds: tuple[int, ...] = ()
    refused: bool = False

    @property
    def filter(self) -> Filter:
        accounts = np.array([id_of(account) for account in self.accounts], np.int64) if self.accounts else None
        currency = currency_word(self.currency) if self.currency else 0
        return Filter(accounts, currency, sum(1 << kind for kind in set(self.kinds)), refused=self.refused)

    def wants(self, row: Row, currency: str) -> bool:
        credit = 0 if row.kind == CommandKind.OPEN else row.credit
        return (
            (not self.accounts or row.debit in self.accounts or credit in self.accounts)
            and (not self.currency or currency == self.currency)
            and (not self.kinds or row.kind in self.kinds)
            and (self.refused or row.result == 0)
        )


def id_of(account: int) -> tuple[int, int]:
    """The words of an account's id; some have a zero in one of them."""
    return (account, 0) if account % 2 else (0, account)


class History:
    """A log that is written event by event, and published when the test says so."""

    def __init__(self, folder: Path, segment_size: int = SEGMENT_SIZE_MIN) -> None:
        self.directory = Directory(folder)
        self.directory.create()
        self.log = open_log(self.directory, segment_size=segment_size, free_space_floor=0)
        list(self.log.open())
        self.log.term = 1
        self.publisher = Publisher(folder, self.log.log_id)
        self.rows: list[Row] = []
        self.currencies: dict[int, str] = {}
        self._currency_then: list[str] = []
        self.events = np.zeros(0, EVENT)

    def write(self, *rows: Row) -> None:
        """Append one entry with these events, durably, and publish nothing yet."""
        events = np.zeros(len(rows), EVENT)
        for number, row in enumerate(rows):
            if row.kind == CommandKind.OPEN and row.result == 0 and row.debit not in self.currencies:
                self.currencies[row.debit] = CURRENCIES[row.debit % len(CURRENCIES)]
            event = events[number]
            event["debit_head"], event["debit_tail"] = id_of(row.debit)
            if row.credit:
                event["credit_head"], event["credit_tail"] = id_of(row.credit)
            if row.kind == CommandKind.OPEN:
                event["currency"] = currency_word(CURRENCIES[row.debit % len(CURRENCIES)])
            event["kind"], event["result"] = row.kind, row.result
            event["amount"] = event["timestamp_ns"] = len(self.rows) + number + 1
        first_sequence = len(self.rows) + 1
        self.log.append(
            EntryKind.EVENTS,
            events.tobytes(),
            first_sequence=first_sequence,
            count=len(rows),
            timestamp_ns=first_sequence,
            rules_version=RULES_VERSION,
        )
        self._write_group()
        self.rows += rows
        self.events = np.concatenate([self.events, events])

    def write_filler(self) -> None:
        """Append an entry without events."""
        first_sequence = len(self.rows) + 1
        self.log.append(
            EntryKind.FILLER,
            bytes(64),
            first_sequence=first_sequence,
            count=0,
            timestamp_ns=first_sequence,
            rules_version=RULES_VERSION,
        )
        self._write_group()

    def _write_group(self) -> None:
        group = self.log.begin_group()
        assert group is not None
        group.write_and_sync()
        self.log.finish_group(group)
        self.log.tidy()

    def publish(self) -> None:
        """Let everything written be read."""
        self.publisher.publish(self.log.durable_index)

    def follower(self) -> Follower:
        follower = open_follower(self.directory)
        assert follower is not None
        follower.begin()
        return follower

    def told(self, wanted: Wanted, after: int, until: int | None = None) -> list[tuple[int, str, bytes]]:
        """(position, currency, event) of all that must be told behind a sequence: read naively."""
        found = []
        for sequence, (row, event) in enumerate(zip(self.rows, self.events, strict=True), start=1):
            if after < sequence <= (len(self.rows) if until is None else until):
                # The currency of an account is known as soon as the reader has seen it opened, which may be later.
                currency = self.currencies.get(row.debit, "")
                if wanted.wants(row, currency):
                    found.append((position_of(0, sequence), currency, event.tobytes()))
        return found

    def close(self) -> None:
        self.publisher.close()
        self.log.close()


class Listener:
    """Stands for a connection: takes what is pushed, and is congested when the test says so."""

    def __init__(self) -> None:
        self.is_congested = False
        self.frames = FrameReader()
        self.events: dict[int, list[tuple[int, str, bytes]]] = {}
        self.progress: dict[int, list[int]] = {}
        self.bytes = 0
        self.congest_at: int | None = None
        self.on_congested = lambda: None

    def push(self, view: memoryview) -> None:
        self.bytes += len(view)
        for header, body in self.frames.feed(bytes(view)):
            assert header.flags == FrameFlag.REPLY
            if header.operation == Operation.EVENTS:
                self._take(header.request_id, np.frombuffer(body, PUSHED_EVENT))
            else:
                assert header.operation == Operation.PROGRESS
                (record,) = np.frombuffer(body, PROGRESS)
                events = self.events.get(header.request_id, [])
                assert not events or record["position"] >= events[-1][0]
                self.progress.setdefault(header.request_id, []).append(int(record["position"]))
        if self.congest_at is not None and self.bytes >= self.congest_at:
            self.congest_at, self.is_congested = None, True
            self.on_congested()

    def _take(self, request_id: int, records: Records) -> None:
        known = self.events.setdefault(request_id, [])
        for position, word, event in records.tolist():
            progress = self.progress.get(request_id, [])
            assert not progress or position > progress[-1]
            code = int(word).to_bytes(8, "little").rstrip(b"\0").decode()
            known.append((position, code, event))
