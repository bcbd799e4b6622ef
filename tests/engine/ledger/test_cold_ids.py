"""The ledger whose ids leave the memory, against the model: wherever an id lies, the outcome is the same."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from bezant.engine.ledger.generations import FULL_PERCENT, Generations
from bezant.engine.ledger.ledger import Ledger
from bezant.engine.ledger.state import EXPIRES_PER_ENTRY_MAX, SEQUENCE_MASK
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import LedgerError, StorageError
from bezant.protocol.records import RULES_VERSION, Words

from . import strategies as drawn
from .model_records import Command
from .pair import Pair
from .tables import MAX, capture, hold, id_of, open_account, release, transfer
from .test_machine import IS_COMPILED, SETTINGS, LedgerMachine, fund

CAPACITY = 1 << 12


class Shelf:
    """Ids that were put away, as a list of dictionaries: what files of runs are, without the files."""

    def __init__(self) -> None:
        self.runs: list[dict[tuple[int, int], int]] = []
        self.asked = 0

    @property
    def time_ms_max(self) -> int:
        return 1 << 48

    def put(self, hashes: Words, values: Words) -> None:
        pairs = zip(hashes.tolist(), values.tolist(), strict=True)
        self.runs.insert(0, {(key, value & SEQUENCE_MASK): value for key, value in pairs})

    def merge(self) -> None:
        merged: dict[tuple[int, int], int] = {}
        for run in reversed(self.runs):
            merged |= run
        self.runs = [merged]

    def find(self, hashes: Words, times_ms: Words, count: int) -> tuple[Words, Words]:
        self.asked += count
        wanted = set(hashes[:count].tolist())
        found: dict[tuple[int, int], int] = {}
        for run in reversed(self.runs):
            found |= {key: value for key, value in run.items() if key[0] in wanted}
        return (
            np.array([key for key, _ in found], np.int64),
            np.array(list(found.values()), np.int64),
        )


class ColdPair(Pair):
    """A pair whose ledger keeps few ids in memory."""

    def __init__(self, *, shard: int = 0, accounts_max: int = 64, holds_max: int = 64) -> None:
        super().__init__(shard=shard, accounts_max=accounts_max, holds_max=holds_max, rules_version=RULES_VERSION)
        self.shelf = Shelf()
        self.frozen: tuple[Words, Words] | None = None
        self.ledger = self.new_ledger(None)
        self.ledger.switch_rules(RULES_VERSION)

    def new_ledger(self, salts: tuple[int, int] | None) -> Ledger:
        ledger = Ledger(
            shard=self.shard,
            accounts_max=self.accounts_max,
            holds_max=self.holds_max,
            generation_capacity=CAPACITY,
            salts=salts,
            fetch_events=self._fetch_events,
        )
        ledger.cold_ids = self.shelf
        return ledger

    def freeze(self) -> None:
        """What a checkpoint behind this entry would write is what the table has now."""
        self.frozen = self.ledger.generations.items()
        self.ledger.generations.freeze()

    def drop(self) -> None:
        if self.frozen is None:
            raise AssertionError("nothing is frozen")
        self.shelf.put(*self.frozen)
        self.ledger.generations.drop()
        self.frozen = None

    def start_again(self) -> None:
        """As a start from a checkpoint behind the last entry does it."""
        if self.frozen is not None:
            self.drop()
        self.shelf.put(*self.ledger.generations.items())
        before = self.ledger
        self.ledger = self.new_ledger(before.salts)
        self.ledger.restore(before.image())
        if self.ledger.digest() != before.digest():
            raise AssertionError("the image of a ledger makes another one")


class ColdMachine(LedgerMachine):
    """The same machine; ids are frozen, put away, merged, and the ledger is made anew from its image."""

    @initialize(
        shard=drawn.shards,
        accounts_max=st.sampled_from([64, 64, 64, 8]),
        holds_max=st.sampled_from([64, 64, 5]),
        is_funded=st.sampled_from([True, True, True, False]),
    )
    def start(self, shard: int, accounts_max: int, holds_max: int, is_funded: bool) -> None:  # type: ignore[override]
        self.pair = ColdPair(shard=shard, accounts_max=accounts_max, holds_max=holds_max)
        for code, decimals in drawn.CURRENCIES.items():
            self.pair.register_currency(code, decimals)
        if is_funded:
            fund(self.pair)

    @property
    def cold(self) -> ColdPair:
        if not isinstance(self.pair, ColdPair):
            raise AssertionError("the machine has not started")
        return self.pair

    @precondition(lambda self: isinstance(self.pair, ColdPair) and self.pair.frozen is None)
    @rule()
    def freeze(self) -> None:
        self.cold.freeze()

    @precondition(lambda self: isinstance(self.pair, ColdPair) and self.pair.frozen is not None)
    @rule()
    def drop(self) -> None:
        self.cold.drop()

    @precondition(lambda self: isinstance(self.pair, ColdPair) and len(self.pair.shelf.runs) > 1)
    @rule()
    def merge(self) -> None:
        self.cold.shelf.merge()

    @precondition(lambda self: isinstance(self.pair, ColdPair) and self.pair.sent)
    @rule()
    def start_again(self) -> None:
        self.cold.start_again()


TestColdMachine = ColdMachine.TestCase
TestColdMachine.settings = settings(SETTINGS, max_examples=60 if IS_COMPILED else 20, stateful_step_count=20)


def funded() -> ColdPair:
    pair = ColdPair()
    pair.register_currency("EUR", 2)
    pair.execute([open_account("world", MAX), open_account("ann"), open_account("bob")], 1_000)
    pair.execute([transfer("world", "ann", 1_000, id=id_of(1))], 2_000)
    return pair


def put_away(pair: ColdPair) -> None:
    pair.freeze()
    pair.drop()


def codes(pair: ColdPair, commands: Sequence[Command], timestamp_ns: int) -> list[int]:
    return list(pair.execute(commands, timestamp_ns))


def test_an_id_that_was_put_away_is_still_known() -> None:
    pair = funded()
    put_away(pair)
    assert pair.ledger.generations.key_count == 0
    again = transfer("world", "ann", 1_000, id=id_of(1))
    other = transfer("world", "ann", 1_001, id=id_of(1))
    assert codes(pair, [again, other], 3_000) == [Code.COMMITTED, Code.ID_CONFLICT]
    assert pair.shelf.asked > 0


@pytest.mark.parametrize("put_away_when", ["open", "closed", "both"])
@pytest.mark.parametrize(
    ("close", "code"),
    [(capture("ann", "bob", id_of(2), 60), Code.HOLD_CAPTURED), (release("ann", id_of(2)), Code.HOLD_RELEASED)],
)
def test_the_fate_of_a_hold_outlives_its_place(put_away_when: str, close: Command, code: Code) -> None:
    """The hold's id is put away while it is open; its fate, which comes later, is what counts from then on."""
    pair = funded()
    codes(pair, [hold("ann", "bob", 60, id=id_of(2))], 3_000)
    if put_away_when in ("open", "both"):
        put_away(pair)
    assert codes(pair, [replace(close, id=id_of(3))], 4_000) == [Code.COMMITTED]
    if put_away_when in ("closed", "both"):
        put_away(pair)
    assert codes(pair, [replace(close, id=id_of(4))], 5_000) == [code]
    pair.shelf.merge() if pair.shelf.runs else None
    pair.start_again()
    assert codes(pair, [replace(close, id=id_of(5))], 6_000) == [code]


def test_a_hold_that_is_settled_while_its_id_is_frozen_keeps_its_fate() -> None:
    """The frozen table may be on disk already, as it was: the fate must be in the next one as well."""
    pair = funded()
    codes(pair, [hold("ann", "bob", 60, id=id_of(2))], 3_000)
    pair.freeze()
    assert codes(pair, [capture("ann", "bob", id_of(2), 60, id=id_of(3))], 4_000) == [Code.COMMITTED]
    pair.drop()
    put_away(pair)
    late = [capture("ann", "bob", id_of(2), 60, id=id_of(4)), release("ann", id_of(2), id=id_of(5))]
    assert codes(pair, late, 5_000) == [Code.HOLD_CAPTURED, Code.HOLD_CAPTURED]


def test_within_a_history_own_ids_are_not_asked_for() -> None:
    pair = funded()
    put_away(pair)
    pair.shelf.asked = 0
    pair.ledger.replaying = True
    codes(pair, [transfer("world", "ann", 1, id=id_of(9))], 3_000)
    assert pair.shelf.asked == 0
    pair.ledger.replaying = False
    codes(pair, [transfer("world", "ann", 1, id=id_of(10))], 4_000)
    assert pair.shelf.asked == 1


def test_a_full_table_refuses_before_it_executes() -> None:
    pair = funded()
    room = FULL_PERCENT * CAPACITY // 100
    assert pair.ledger.has_room_for_ids(1)
    commands = (room - EXPIRES_PER_ENTRY_MAX) // 4
    assert not pair.ledger.has_room_for_ids(commands)
    with pytest.raises(LedgerError, match="no room"):
        pair.execute([transfer("world", "ann", 1, id=id_of(10 + number)) for number in range(commands)], 3_000)


def test_tables_are_frozen_and_dropped_in_turn() -> None:
    tables = Generations(16, (1, 2))
    with pytest.raises(LedgerError, match="no ids have been frozen"):
        tables.drop()
    tables.freeze()
    with pytest.raises(LedgerError, match="have not been dropped"):
        tables.freeze()
    tables.drop()
    tables.freeze()
    for capacity in (0, 1, 3, 12):
        with pytest.raises(ValueError, match="power of two"):
            Generations(capacity, (1, 2))


def test_a_table_that_comes_again_is_empty() -> None:
    """What was dropped is zeroed before its turn, in shares or at once."""
    pair = funded()
    for turn in range(6):
        put_away(pair)
        assert len(pair.ledger.generations.items()[0]) == 0
        paid = [transfer("world", "ann", 1, id=id_of(100 + 10 * turn + number)) for number in range(turn)]
        codes(pair, paid, 10_000 * (turn + 1))
        assert sorted(pair.ledger.generations.items()[1].tolist()) == [
            pair.ledger.next_sequence - turn + number for number in range(turn)
        ]


def test_an_image_needs_a_new_ledger_with_room() -> None:
    pair = funded()
    image = pair.ledger.image()
    with pytest.raises(LedgerError, match="done nothing yet"):
        pair.ledger.restore(image)
    with pytest.raises(StorageError, match="3 accounts"):
        Ledger(accounts_max=2).restore(image)
    bad = image._replace(rows=image.rows.copy())
    bad.rows["currency_number"][1] = 7
    with pytest.raises(LedgerError, match="names a currency"):
        Ledger(accounts_max=4).restore(bad)


def test_the_digest_tells_holds_apart_by_id_and_by_account() -> None:
    def digest(credit: str, number: int) -> str:
        pair = funded()
        codes(pair, [hold("ann", credit, 60, id=id_of(number))], 3_000)
        return pair.ledger.digest()

    assert len({digest("bob", 2), digest("bob", 3), digest("world", 2)}) == 3
