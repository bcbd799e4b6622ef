"""The kernel and the model side by side: both get the same entries, and everything that can be seen is compared."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from bezant.engine.ledger.ledger import Ledger
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import COMMAND, COMMAND_SIZE, EVENT, Records

from .model import Model
from .model_records import Command, encode_commands
from .tables import expect, words_of

LIST_COUNT = 1 << 20


class Entry(NamedTuple):
    """An entry of the history: its time and its events."""

    timestamp_ns: int
    events: Records


class Registration(NamedTuple):
    """A currency that was registered between two entries."""

    code: str
    decimals: int


class Settlement(NamedTuple):
    """Tries (sequences) whose other shards were told, between two entries."""

    sequences: list[int]


class Pair:
    """A ledger and the model, and the history that they wrote, which is what `fetch_events` reads from.

    With `fetches` the ledger reads earlier events back through `fetch_events`, otherwise it keeps them itself.
    """

    def __init__(
        self,
        *,
        shard: int = 0,
        accounts_max: int = 64,
        holds_max: int = 64,
        ids_capacity_initial: int = 16,
        fetches: bool = True,
        rules_version: int = 1,
    ) -> None:
        self.shard = shard
        self.accounts_max = accounts_max
        self.holds_max = holds_max
        self.ledger = Ledger(
            shard=shard,
            accounts_max=accounts_max,
            holds_max=holds_max,
            ids_capacity_initial=ids_capacity_initial,
            fetch_events=self._fetch_events if fetches else None,
        )
        self.model = Model(shard=shard, accounts_max=accounts_max, holds_max=holds_max)
        self.rules_version = rules_version
        self.ledger.switch_rules(rules_version)
        self.model.switch_rules(rules_version)
        self.sent: list[Command] = []
        self.history: list[Entry | Registration | Settlement] = []
        self.fetched: list[int] = []  # sequences, in the order in which entries asked for them
        self._events: list[np.void] = []

    def _fetch_events(self, sequences: npt.NDArray[np.int64]) -> Records:
        """Events of earlier entries, in the order asked; the ledger must ask for no others."""
        events = np.zeros(len(sequences), EVENT)
        for number, sequence in enumerate(sequences.tolist()):
            if not 1 <= sequence <= len(self._events):
                raise AssertionError(f"event {sequence} was asked for, and earlier entries have {len(self._events)}")
            events[number] = self._events[sequence - 1]
            self.fetched.append(sequence)
        return events

    def register_currency(self, code: str, decimals: int) -> None:
        self.ledger.register_currency(code, decimals)
        self.model.register_currency(code, decimals)
        self.history.append(Registration(code, decimals))

    def settle(self, sequences: list[int]) -> None:
        self.ledger.settle(np.array(sequences, np.int64))
        self.model.settle(np.array(sequences, np.int64))
        self.history.append(Settlement(sequences))
        self.compare_counters()

    def execute(
        self, commands: Sequence[Command], timestamp_ns: int, presets: Sequence[int] | None = None
    ) -> Sequence[int]:
        """Execute one entry on both sides, compare, and return the codes."""
        records = encode_commands(commands)
        sent = records.tobytes()
        preset = np.array([0] * len(commands) if presets is None else presets, np.int64)
        if preset.any():
            executed = self.ledger.execute(records, timestamp_ns, preset)
        else:
            executed = self.ledger.execute(records, timestamp_ns)
        expected = self.model.execute(records, timestamp_ns, preset)
        expect("the bytes of the commands, afterwards", records.tobytes(), sent)
        if executed.results.tobytes() != expected.results.tobytes():
            for number, command in enumerate(commands):
                found, wanted = fields_of(executed.results[number]), fields_of(expected.results[number])
                expect(f"result {number}, of {command}", found, wanted)
        compare_records("event", executed.events, expected.events)
        compare_records("result", executed.results, expected.results)
        self.sent.extend(commands)
        self.history.append(Entry(timestamp_ns, executed.events.copy()))
        self._events.extend(executed.events.copy())
        self.compare_look_ups(records)
        self.compare_counters()
        return [int(code) for code in executed.results["code"]]

    def compare_look_ups(self, keys: Records) -> None:
        """The events of these commands' ids."""
        count = len(self.fetched)
        sequences, events = self.ledger.find_events(keys)
        del self.fetched[count:]
        wanted_sequences, wanted_events = self.model.find_events(keys)
        expect("sequences of found events", sequences.tolist(), wanted_sequences.tolist())
        compare_records("found event", events, wanted_events)

    def compare_counters(self) -> None:
        expect("next sequence", self.ledger.next_sequence, self.model.next_sequence)
        expect("last timestamp", self.ledger.last_timestamp_ns, self.model.last_timestamp_ns)
        expect("number of accounts", self.ledger.account_count, self.model.account_count)
        expect("number of open holds", self.ledger.hold_count, self.model.hold_count)
        expect("number of those with a deadline", self.ledger.holds_with_deadline, self.model.holds_with_deadline)
        expect("next deadline", self.ledger.next_deadline_ns, self.model.next_deadline_ns)
        expect("open tries", self.ledger.open_tries().tolist(), self.model.open_tries().tolist())
        expect("what is unsettled", self.ledger.unsettled().tolist(), self.model.unsettled().tolist())

    def compare_accounts(self) -> None:
        """Every account, byte by byte, listed and looked up; and the books sum to zero in each currency."""
        accounts = self.ledger.list_accounts(0, LIST_COUNT)
        compare_records("account", accounts, self.model.list_accounts(0, LIST_COUNT))
        ids = words_of(
            [*self.model.state.accounts, bytes(16), b"\xff" * 16, *(command.debit for command in self.sent[-5:])]
        )
        compare_records("looked-up account", self.ledger.lookup_accounts(ids), self.model.lookup_accounts(ids))
        totals: dict[int, int] = defaultdict(int)
        for currency, balance in zip(accounts["currency"].tolist(), accounts["balance"].tolist(), strict=True):
            totals[currency] += balance
        expect("sums of the balances", set(totals.values()) - {0}, set())
        self.ledger.check_invariants()
        self.model.check_invariants()

    def replay(self) -> None:
        """Rebuild the commands from the events and execute them anew: the same bytes, the same accounts."""
        again = Ledger(
            shard=self.shard, accounts_max=self.accounts_max, holds_max=self.holds_max, ids_capacity_initial=128
        )
        again.switch_rules(self.rules_version)
        for part in self.history:
            if isinstance(part, Registration):
                again.register_currency(part.code, part.decimals)
            elif isinstance(part, Settlement):
                again.settle(np.array(part.sequences, np.int64))
            elif len(part.events):
                executed = again.execute(commands_of(part.events), part.timestamp_ns)
                compare_records("replayed event", executed.events, part.events)
        accounts = self.ledger.list_accounts(0, LIST_COUNT)
        compare_records("replayed account", again.list_accounts(0, LIST_COUNT), accounts)
        expect("replayed next sequence", again.next_sequence, self.ledger.next_sequence)
        expect("replayed last timestamp", again.last_timestamp_ns, self.ledger.last_timestamp_ns)
        expect("replayed state", again.digest(), self.ledger.digest())
        again.check_invariants()
        restored = Ledger(
            shard=self.shard, accounts_max=self.accounts_max, holds_max=self.holds_max, ids_capacity_initial=128
        )
        restored.restore(self.ledger.image())
        expect("restored state", restored.digest(), self.ledger.digest())


def commands_of(events: Records) -> Records:
    """The commands in events: their first 128 bytes, of which the last 8 are the outcome's and become zero again.

    Not those that expired a hold: nobody sent them.
    """
    sent = np.ascontiguousarray(events[events["kind"] != CommandKind.EXPIRE])
    data = sent.view(np.uint8).reshape(len(sent), EVENT.itemsize)[:, :COMMAND_SIZE]
    commands: Records = np.frombuffer(data.tobytes(), COMMAND).copy()
    commands["reserved"] = 0
    return commands


def fields_of(record: np.void) -> dict[str, int]:
    """A record by field, to be read in a failure."""
    return dict(zip(record.dtype.names or (), record.item(), strict=True))


def compare_records(what: str, found: Records, wanted: Records) -> None:
    """Compare two arrays of records byte by byte, and say where they part."""
    expect(f"number of {what}s", len(found), len(wanted))
    expect(f"type of {what}s", found.dtype, wanted.dtype)
    if found.tobytes() == wanted.tobytes():
        return
    for number in range(len(found)):
        expect(f"{what} {number}", fields_of(found[number]), fields_of(wanted[number]))
        expect(f"bytes of {what} {number}", found[number].tobytes(), wanted[number].tobytes())
