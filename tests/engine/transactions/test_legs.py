"""Claim: what a coordinator builds carries a transfer from one shard to another, all or nothing, however often it is
repeated and in whatever order it comes: two ledgers, and nothing between them but the arrays."""

import uuid
from typing import Final

import blake3
import numpy as np
import pytest

from bezant.engine.ledger.ledger import Execution, Ledger
from bezant.engine.transactions.ids import derived_ids
from bezant.engine.transactions.legs import (
    build_decisions,
    build_second_legs,
    build_transit_open,
    build_try_credits,
    build_try_debits,
    find_decisions,
    transit_id,
)
from bezant.engine.transactions.times import AHEAD_S_MAX, check_floor, floor_of
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import UsageError
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import EVENT, RULES_VERSION, Records, Words, id_bytes, id_words, position_of
from bezant.protocol.transactions import Leg, derived_id

from ..ledger.model_records import encode_commands
from ..ledger.tables import MAX, close, freeze, open_account, set_limit, transfer

HERE, THERE = 5, 6
SALT: Final = 0x1234_5678_9ABC_DEF0
ANN_HAS: Final = 100
FAR_TRANSIT: Final = np.array(id_words(transit_id(THERE, HERE, "EUR")), np.int64)
TRANSIT: Final = np.array([id_words(transit_id(HERE, THERE, "EUR"))], np.int64)


class Shard:
    """A ledger with EUR and a transit account to the other one."""

    def __init__(self, number: int, other: int) -> None:
        self.ledger = Ledger(shard=number, accounts_max=16, holds_max=16, ids_capacity_initial=16)
        self.ledger.switch_rules(RULES_VERSION)
        self.ledger.register_currency("EUR", 2)
        self.run(build_transit_open(number, other, "EUR", "once"))

    def run(self, commands: Records) -> Execution:
        timestamp_ns = max(self.ledger.last_timestamp_ns + 1_000, floor_of(commands) + 1)
        execution = self.ledger.execute(commands, timestamp_ns)
        self.ledger.check_invariants()
        return execution

    def codes(self, commands: Records) -> list[int]:
        codes: list[int] = self.run(commands).results["code"].tolist()
        return codes

    def account(self, name: str) -> tuple[int, int, int]:
        """(balance, held, incoming)."""
        for row in self.ledger.list_accounts(0, 16):
            if row["name"] == name.encode():
                return int(row["balance"]), int(row["held"]), int(row["incoming"])
        raise AssertionError(f"there is no {name}")


@pytest.fixture
def here() -> Shard:
    """The shard of ann and eve, who have 100 each."""
    shard = Shard(HERE, THERE)
    shard.run(encode_commands([open_account("world", MAX), open_account("ann"), open_account("eve")]))
    shard.run(encode_commands([transfer("world", name, ANN_HAS) for name in ("ann", "eve")]))
    return shard


@pytest.fixture
def there() -> Shard:
    """The shard of bob."""
    shard = Shard(THERE, HERE)
    shard.run(encode_commands([open_account("bob")]))
    return shard


def asked(*amounts: int, debit: str = "ann", credit: str = "bob") -> Records:
    """Clients' transfers to another shard, with ids that are UUIDs of version 7."""
    head = int(uuid.UUID("017f22e2-79b0-7cc3-98c4-dc0c0c07398f"))
    return encode_commands(
        [
            transfer(debit, credit, amount, id=(head + number).to_bytes(16, "big"), user_data=b"u" * 16, code=7)
            for number, amount in enumerate(amounts)
        ]
    )


def begin(here: Shard, transfers: Records) -> Records:
    """Try the transfers, which must stand; their events."""
    execution = here.run(build_try_debits(transfers, TRANSIT))
    assert set(execution.results["code"].tolist()) == {Code.UNDECIDED}
    return execution.events


def read(shard: Shard, sequences: Words) -> Records:
    """Events by their sequences, as a coordinator reads them from the log."""
    return shard.ledger._fetch_events(np.asarray(sequences, np.int64)) if len(sequences) else np.zeros(0, EVENT)


# ---- ids ----


def test_ids_are_what_the_formula_says() -> None:
    tries = asked(1, 2)
    for leg in Leg:
        for command, words in zip(tries, derived_ids(tries, leg, salt=SALT).tolist(), strict=True):
            identifier = id_bytes(command["id_head"], command["id_tail"])
            debit = id_bytes(command["debit_head"], command["debit_tail"])
            material = b"bezant leg" + SALT.to_bytes(8, "little") + identifier + debit + bytes([leg])
            expected = bytearray(blake3.blake3(material).digest(16))
            expected[:6] = identifier[:6]
            made = uuid.UUID(bytes=id_bytes(*words))
            assert (made.version, made.variant) == (7, uuid.RFC_4122)
            expected[6], expected[8] = expected[6] & 0x0F | 0x70, expected[8] & 0x3F | 0x80
            assert made.bytes == bytes(expected)


def test_an_id_without_a_time_gives_ids_without_one() -> None:
    tries = asked(1)
    tries["id_head"], tries["id_tail"] = 1, 2
    for leg in Leg:
        assert uuid.UUID(bytes=id_bytes(*derived_ids(tries, leg)[0].tolist())).version == 8


def test_ids_differ_by_try_account_leg_and_salt() -> None:
    tries = np.concatenate([asked(1, 2), asked(1, 2, debit="eve")])
    every = [derived_ids(tries, leg, salt=salt) for leg in Leg for salt in (0, 1, -1)]
    assert len({tuple(words) for ids in every for words in ids.tolist()}) == len(tries) * len(Leg) * 3


# ---- all or nothing ----


def test_a_transfer_that_both_shards_take(here: Shard, there: Shard) -> None:
    tries = begin(here, asked(30, 40))
    assert here.account("ann") == (ANN_HAS, 70, 0)
    assert here.ledger.open_tries().tolist() == [7, 8]
    assert find_decisions(here.ledger, tries)["code"].tolist() == [Code.UNDECIDED] * 2
    answers = there.run(build_try_credits(tries, FAR_TRANSIT)).results
    assert there.account("bob") == (0, 0, 70)
    assert there.account("transit:6:5") == (0, 70, 0)
    decided = here.run(build_decisions(tries, answers["code"].astype(np.int64)))
    assert here.account("ann") == (30, 0, 0)
    assert here.account("transit:5:6") == (70, 0, 0)
    assert here.ledger.unsettled().tolist() == [(7, 9, 1), (8, 10, 1)]
    assert there.codes(build_second_legs(tries, decided.events, FAR_TRANSIT)) == [Code.COMMITTED] * 2
    assert there.account("bob") == (70, 0, 0)
    assert there.account("transit:6:5") == (-70, 0, 0)
    here.ledger.settle(np.array([8]))
    assert here.ledger.unsettled().tolist() == [(7, 9, 1)]
    found = find_decisions(here.ledger, tries)
    assert found["code"].tolist() == [Code.COMMITTED] * 2
    assert found["position"].tolist() == [position_of(HERE, 9), position_of(HERE, 10)]
    assert (found["debit_balance"].tolist(), found["effective_amount"].tolist()) == ([70, 30], [30, 40])
    for events in (tries, decided.events):
        assert set(events["code"].tolist()) == {7}
        assert id_bytes(*events[["user_data_head", "user_data_tail"]][0].tolist()) == b"u" * 16


def test_a_transfer_that_the_other_shard_refuses(here: Shard, there: Shard) -> None:
    """Nothing is left there that had to be told, so nothing is unsettled here."""
    tries = begin(here, np.concatenate([asked(30, credit="nobody"), asked(5, debit="eve")]))
    answers = there.run(build_try_credits(tries, FAR_TRANSIT)).results["code"].astype(np.int64)
    assert answers.tolist() == [Code.CREDIT_ACCOUNT_UNKNOWN, Code.COMMITTED]
    assert here.codes(build_decisions(tries, answers)) == [Code.COMMITTED] * 2
    assert (here.account("ann"), here.account("eve")) == ((ANN_HAS, 0, 0), (95, 0, 0))
    assert here.ledger.unsettled()["try_sequence"].tolist() == [8]
    assert find_decisions(here.ledger, tries)["code"].tolist() == answers.tolist()


def test_a_transfer_that_is_given_up(here: Shard, there: Shard) -> None:
    """Its second leg finds the try, or comes before it: then that is refused for ever."""
    tries = begin(here, asked(30, 40))
    assert there.codes(build_try_credits(tries[:1], FAR_TRANSIT)) == [Code.COMMITTED]
    decided = here.run(build_decisions(tries, np.full(2, int(Code.DEADLINE_PASSED)))).events
    assert here.account("ann") == (ANN_HAS, 0, 0)
    assert here.ledger.unsettled().tolist() == [(7, 9, 0), (8, 10, 0)]
    second = build_second_legs(tries, decided, FAR_TRANSIT)
    assert there.codes(second) == [Code.COMMITTED] * 2
    assert there.codes(build_try_credits(tries, FAR_TRANSIT)) == [Code.ID_FORBIDDEN] * 2
    assert there.codes(second) == [Code.COMMITTED] * 2
    assert there.account("bob") == (0, 0, 0)
    assert find_decisions(here.ledger, tries)["code"].tolist() == [Code.DEADLINE_PASSED] * 2


def test_every_step_can_be_repeated(here: Shard, there: Shard) -> None:
    """As a coordinator does that takes over: from what the ledger says is open, and from what it says is unsettled."""
    transfers = asked(30, 40)
    begin(here, transfers)
    for _ in range(2):
        tries = read(here, here.ledger.open_tries())
        answers = there.run(build_try_credits(tries, FAR_TRANSIT)).results["code"].astype(np.int64)
    for _ in range(2):
        assert here.codes(build_decisions(tries, answers)) == [Code.COMMITTED] * 2
    assert here.ledger.open_tries().tolist() == []
    for _ in range(2):
        unsettled = here.ledger.unsettled()
        tries, decided = read(here, unsettled["try_sequence"]), read(here, unsettled["decision_sequence"])
        assert there.codes(build_second_legs(tries, decided, FAR_TRANSIT)) == [Code.COMMITTED] * 2
    here.ledger.settle(here.ledger.unsettled()["try_sequence"])
    assert len(here.ledger.unsettled()) == 0
    assert (here.account("ann"), there.account("bob")) == ((30, 0, 0), (70, 0, 0))
    # A client that repeats its transfer is told that it is a try, whichever the server makes of it.
    for repeated in (transfers, build_try_debits(transfers, TRANSIT)):
        assert here.codes(repeated) == [Code.UNDECIDED] * 2


def test_what_becomes_of_the_accounts_meanwhile_stops_nothing(here: Shard, there: Shard) -> None:
    tries = begin(here, asked(30))
    answers = there.run(build_try_credits(tries, FAR_TRANSIT)).results["code"].astype(np.int64)
    here.run(encode_commands([freeze("ann"), set_limit("ann", 0)]))
    assert there.codes(encode_commands([close("bob"), freeze("bob")])) == [Code.ACCOUNT_NOT_EMPTY, Code.COMMITTED]
    decided = here.run(build_decisions(tries, answers)).events
    assert there.codes(build_second_legs(tries, decided, FAR_TRANSIT)) == [Code.COMMITTED]
    assert (here.account("ann"), there.account("bob")) == ((70, 0, 0), (30, 0, 0))


def test_the_first_decision_stands(here: Shard, there: Shard) -> None:
    """A CONFIRM and a CANCEL of one try: the later one is refused, and changes nothing of what clients are told."""
    tries = begin(here, asked(30, 40))
    both = [build_decisions(tries, np.full(2, code)) for code in (0, int(Code.DEADLINE_PASSED))]
    assert here.codes(np.concatenate([both[0][:1], both[1][1:]])) == [Code.COMMITTED] * 2
    assert here.codes(np.concatenate([both[1][:1], both[0][1:]])) == [Code.HOLD_CAPTURED, Code.HOLD_RELEASED]
    assert here.account("ann") == (70, 0, 0)
    assert find_decisions(here.ledger, tries)["code"].tolist() == [Code.COMMITTED, Code.DEADLINE_PASSED]
    assert len(there.ledger.unsettled()) == 0


def test_what_is_refused_here_is_no_try(here: Shard) -> None:
    refused = here.run(build_try_debits(asked(ANN_HAS + 1), TRANSIT))
    assert refused.results["code"].tolist() == [Code.INSUFFICIENT_FUNDS]
    assert here.codes(build_try_debits(asked(1, debit="nobody"), np.zeros((1, 2), np.int64))) == [
        Code.DEBIT_ACCOUNT_UNKNOWN
    ]
    assert here.codes(build_try_debits(asked(1, debit="eve"), np.zeros((1, 2), np.int64))) == [Code.TRANSIT_UNKNOWN]
    assert here.ledger.open_tries().tolist() == []


# ---- times ----


def test_legs_have_the_time_of_what_they_follow_from(here: Shard, there: Shard) -> None:
    tries = begin(here, asked(30, 40))
    legs = build_try_credits(tries, FAR_TRANSIT)
    assert legs["client_timestamp_ns"].tolist() == tries["timestamp_ns"].tolist()
    answers = there.run(legs).results
    assert (answers["timestamp_ns"] > tries["timestamp_ns"].max()).all()
    codes = answers["code"].astype(np.int64)
    commands = build_decisions(tries, codes, times=answers["timestamp_ns"])
    assert commands["client_timestamp_ns"].tolist() == answers["timestamp_ns"].tolist()
    decided = here.run(commands).events
    with pytest.raises(UsageError, match="has its time"):
        build_second_legs(tries, commands, FAR_TRANSIT)
    for second in (
        build_second_legs(tries, decided, FAR_TRANSIT),
        build_second_legs(tries, commands, FAR_TRANSIT, times=decided["timestamp_ns"]),
    ):
        assert second["client_timestamp_ns"].tolist() == decided["timestamp_ns"].tolist()
        assert there.codes(second) == [Code.COMMITTED] * 2


def test_a_leg_is_not_executed_at_the_time_of_its_cause(here: Shard, there: Shard) -> None:
    """It uses up no id, and stands when it comes again with another time: its coordinator may have been lost before
    it had committed what it follows from."""
    leg = build_try_credits(begin(here, asked(30)), FAR_TRANSIT)
    moment_ns = there.ledger.last_timestamp_ns + 1_000
    leg["client_timestamp_ns"] = moment_ns
    refused = there.ledger.execute(leg, moment_ns)
    assert (refused.results["code"].tolist(), len(refused.events)) == ([Code.IMPORTED_TIMESTAMP_IN_FUTURE], 0)
    assert there.ledger.execute(leg, moment_ns + 1).results["code"].tolist() == [Code.COMMITTED]
    leg["client_timestamp_ns"] = moment_ns + 5
    assert there.codes(leg) == [Code.COMMITTED]
    assert there.account("bob") == (0, 0, 30)
    leg["client_timestamp_ns"] = -1
    assert there.codes(leg) == [Code.TIMESTAMP_INVALID]


def test_a_time_that_is_too_far_ahead_is_refused() -> None:
    legs = asked(1, 2)
    assert floor_of(legs) == floor_of(legs[:0]) == 0
    legs["client_timestamp_ns"] = [5, AHEAD_S_MAX * 10**9 + 7]
    check_floor(legs, 7)
    with pytest.raises(UsageError, match="one of the two clocks is wrong"):
        check_floor(legs, 6)


def test_opening_a_transit_account_again_changes_nothing(here: Shard) -> None:
    assert here.codes(build_transit_open(HERE, THERE, "EUR", "again")) == [Code.ACCOUNT_EXISTS]


def test_answers_that_decide_nothing_are_refused(here: Shard) -> None:
    tries = begin(here, asked(30))
    with pytest.raises(UsageError, match="UNDECIDED"):
        build_decisions(tries, np.array([int(Code.UNDECIDED)]))
    with pytest.raises(UsageError, match="CONFIRM or a CANCEL"):
        build_second_legs(tries, tries, FAR_TRANSIT)
    assert tries["kind"].tolist() == [CommandKind.TRY_DEBIT]


def test_nor_is_the_half_of_a_transaction(here: Shard, there: Shard) -> None:
    leg = build_try_credits(begin(here, asked(30)), FAR_TRANSIT)
    part = leg.copy()
    part["kind"] = int(CommandKind.TRY_PART)
    for word in ("head", "tail"):
        part[f"debit_{word}"], part[f"credit_{word}"] = leg[f"credit_{word}"], leg[f"reference_{word}"]
        part[f"reference_{word}"] = leg[f"debit_{word}"]
    moment_ns = there.ledger.last_timestamp_ns + 1_000
    part["client_timestamp_ns"] = moment_ns
    refused = there.ledger.execute(part, moment_ns)
    assert (refused.results["code"].tolist(), len(refused.events)) == ([Code.IMPORTED_TIMESTAMP_IN_FUTURE], 0)
    assert len(there.ledger.execute(part, moment_ns + 1).events) == 1


@pytest.mark.parametrize(
    "identifier",
    [uuid.UUID(int=7 << 76).bytes, uuid.uuid4().bytes, bytes(range(16)), bytes(5) + b"\x01" + b"\x7a" * 10],
)
def test_clients_and_coordinators_derive_the_same_ids(identifier: bytes) -> None:
    tries = np.zeros(1, EVENT)
    debit = bytes(range(16, 32))
    for field, value in (("id", identifier), ("debit", debit)):
        tries[f"{field}_head"], tries[f"{field}_tail"] = id_words(value)
    for leg in Leg:
        assert id_bytes(*derived_ids(tries, leg)[0].tolist()) == derived_id(identifier, debit, leg)
