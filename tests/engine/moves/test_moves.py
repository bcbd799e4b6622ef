"""Claim: accounts that move between shards, with their holds and ids, behave as if they had never moved.

Two replicas take commands and hand slots to each other; a third, which has everything, takes the same commands.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bezant.engine import doctor
from bezant.engine.diagnosis import Verdict
from bezant.engine.moves.copies import is_copy
from bezant.engine.moves.leaving import CopyReader, account_outs, find_hindrance, hold_outs, outline, went_out
from bezant.engine.moves.stepping import take_step
from bezant.engine.moves.taking import take_part
from bezant.engine.projections.queries import AsOf
from bezant.engine.replica import Replica, ReplicaSettings, open_replica
from bezant.engine.transactions.legs import build_transit_open
from bezant.engine.verify import verify
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import UsageError
from bezant.protocol.kinds import CommandFlag, CommandKind, ResultFlag
from bezant.protocol.moves import PART_RECORDS_MAX, MoveStep, TakeSlots, encode_slots
from bezant.protocol.names import account_id
from bezant.protocol.placement import SLOT_COUNT, slots_of_words
from bezant.protocol.records import COMMAND, EVENT, LIMIT_UNLIMITED, Records, id_words

from ..commands import opening, transfer
from ..conftest import Clock
from ..projections.fed import Fed

NAMES = [f"{{tag-{number // 2}}}:{number}" for number in range(10)]
WORLD = [f"{{tag-{number}}}:world" for number in range(5)]
ALL = [*WORLD, *NAMES]
_EXPIRE = int(CommandKind.EXPIRE)
TOLD = ("code", "effective_amount", "debit_balance", "debit_held", "credit_balance", "credit_held")
TOLD_AGAIN = (*TOLD, "position", "timestamp_ns")


def slot(name: str) -> int:
    return int(slots_of_words(np.array([id_words(account_id(name, "EUR"))[0]], np.int64))[0])


SLOTS = sorted({slot(name) for name in ALL})


class Two:
    """Two shards, the replica that has everything, and who has each slot."""

    def __init__(self, path: Path, settings: ReplicaSettings, clock: Clock) -> None:
        self.path, self.settings, self.clock = path, settings, clock
        self.owner = dict.fromkeys(SLOTS, 0)
        self.asked: list[tuple[Records, np.void]] = []
        self.moves = 0
        self.falls_due = ""
        """Whether all that has a deadline falls due when the slots are "sealed", or when everything has "come"."""
        self.shards = [self.open(str(shard), shard) for shard in (0, 1)]
        self.whole = self.open("whole", 2)
        for replica in (*self.shards, self.whole):
            replica.switch_rules(2)
            replica.register_currency("EUR", 2)

    def open(self, name: str, shard: int) -> Replica:
        return open_replica(self.path / name, shard=shard, settings=self.settings, clock_ns=self.clock)

    def reopen(self) -> None:
        digests = [replica.ledger.digest() for replica in self.shards]
        for shard, replica in enumerate(self.shards):
            replica.write_group()
            replica.close()
            self.shards[shard] = self.open(str(shard), shard)
        assert [replica.ledger.digest() for replica in self.shards] == digests

    def replica_of(self, command: Records) -> Replica:
        return self.shards[self.owner[int(slots_of_words(command["debit_head"])[0])]]

    def execute(self, command: Records) -> np.void:
        self.clock.now_ns += 10_000_300
        (result,) = self.replica_of(command).execute(command).results
        (expected,) = self.whole.execute(command).results
        assert [result[name] for name in TOLD] == [expected[name] for name in TOLD]
        self.asked.append((command, result))
        return result

    def ask_again(self, command: Records, first: np.void) -> None:
        self.clock.now_ns += 10_000_300
        (result,) = self.replica_of(command).execute(command).results
        assert [result[name] for name in TOLD_AGAIN] == [first[name] for name in TOLD_AGAIN]
        assert result["flags"] & ResultFlag.REPEATED
        (answer,) = self.replica_of(command).lookup_events(
            np.array([[*(int(command[f"{name}_{word}"][0]) for name in ("id", "debit") for word in ("head", "tail"))]])
        )
        event = np.frombuffer(answer["event"].tobytes(), EVENT)[0]
        assert (answer["position"], event["kind"]) == (first["position"], command["kind"][0])

    def move(self, slots: list[int], source: int, target: int, chance: random.Random) -> None:
        """Move slots as two leaders do, of whom the source's may be lost at any part, and begins anew."""
        self.clock.now_ns += 10_000_300
        leaving, taking = self.shards[source], self.shards[target]
        mask = np.zeros(SLOT_COUNT, np.bool_)
        mask[slots] = True
        self.moves += 1
        step = MoveStep(self.moves.to_bytes(16, "big"), "begun", target, encode_slots(mask))
        assert find_hindrance(leaving, mask) == ""
        told = outline(leaving.ledger, mask)
        for currency in told.currencies:
            leaving.execute(build_transit_open(source, target, currency.code, "once"))
        take_step(leaving, step)
        take_part(taking, TakeSlots(step.move, source, step.slots, "prepare", *told), _none())
        reader = CopyReader(leaving, step)
        while reader.next_index <= leaving.log.last_index and chance.random() < 0.8:
            self.send(taking, step, source, "copies", reader.read(leaving.log.last_index))
        take_step(leaving, MoveStep(step.move, "sealed", target, step.slots))
        self.let_fall_due("sealed")
        while len(events := hold_outs(leaving.ledger, mask)):
            leaving.execute_moves(events)
        while len(events := account_outs(leaving.ledger, mask, target)):
            leaving.execute_moves(events)
        if chance.random() < 0.5:
            reader = CopyReader(leaving, step)
        for _ in range(chance.choice((1, 2))):
            while reader.next_index <= leaving.log.last_index:
                self.send(taking, step, source, "copies", reader.read(leaving.log.last_index))
            while len(copies := reader.read_deferred()):
                self.send(taking, step, source, "copies", copies)
            accounts, holds = went_out(leaving, step, leaving.ledger.moves.sealed_index, leaving.log.last_index)
            self.send(taking, step, source, "accounts", accounts)
            self.send(taking, step, source, "holds", holds)
            self.let_fall_due("come")
        assert take_part(taking, TakeSlots(step.move, source, step.slots, "taken"), _none())
        assert take_part(taking, TakeSlots(step.move, source, step.slots, "accounts"), accounts)
        take_step(leaving, MoveStep(step.move, "ended", target, step.slots))
        self.owner |= dict.fromkeys(slots, target)
        for replica in self.shards:
            replica.ledger.check_invariants()

    def let_fall_due(self, moment: str) -> None:
        if self.falls_due == moment:
            self.clock.now_ns += 200_000_000
            for replica in (*self.shards, self.whole):
                replica.execute(np.zeros(0, COMMAND))

    def send(self, taking: Replica, step: MoveStep, source: int, part: str, records: Records) -> None:
        for first in range(0, len(records), PART_RECORDS_MAX):
            self.clock.now_ns += 1_000_100
            piece = records[first : first + PART_RECORDS_MAX]
            assert not take_part(taking, TakeSlots(step.move, source, step.slots, part), piece)  # type: ignore[arg-type]

    def account(self, name: str) -> np.void:
        ids = np.array([id_words(account_id(name, "EUR"))], np.int64)
        return self.shards[self.owner[slot(name)]].ledger.lookup_accounts(ids)[0]

    def close(self) -> None:
        for replica in (*self.shards, self.whole):
            replica.write_group()
            replica.close()


def _none() -> Records:
    return np.zeros(0, EVENT)


@pytest.fixture
def two(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> Iterator[Two]:
    opened = Two(tmp_path, small, clock)
    yield opened
    opened.close()


def draw(two: Two, chance: random.Random, holds: list[Records]) -> Records:
    """A command about accounts that lie in one shard now."""
    shard = chance.choice((0, 1))
    names = [name for name in ALL if two.owner[slot(name)] == shard]
    if len(names) < 2:
        names = [name for name in ALL if two.owner[slot(name)] != shard]
    debit, credit = chance.sample(names, 2)
    kind = chance.choice([CommandKind.TRANSFER] * 4 + [CommandKind.HOLD] * 3 + [CommandKind.CAPTURE] * 3 + _RARE)
    if kind in (CommandKind.CAPTURE, CommandKind.RELEASE) and holds:
        made = chance.choice(holds)
        ended = transfer(debit, credit, chance.choice((0, 3)) if kind is CommandKind.CAPTURE else 0, kind=int(kind))
        for word in ("head", "tail"):
            ended[f"reference_{word}"] = made[f"id_{word}"]
            ended[f"debit_{word}"] = made[f"debit_{word}"]
            ended[f"credit_{word}"] = made[f"credit_{word}"] if kind is CommandKind.CAPTURE else 0
        ended["flags"] = int(CommandFlag.KEEP_OPEN) if kind is CommandKind.CAPTURE and chance.random() < 0.5 else 0
        return ended
    if kind is CommandKind.HOLD:
        # The account that is paid has the same tag: holds that reach over slots that part would keep them together.
        tag = debit.partition("}")[0]
        credit = chance.choice([name for name in ALL if name != debit and name.startswith(tag)])
        held = transfer(debit, credit, chance.randrange(1, 20), kind=int(kind), timeout_ms=chance.choice((0, 150)))
        holds.append(held)
        return held
    if kind in (CommandKind.FREEZE, CommandKind.UNFREEZE, CommandKind.CLOSE):
        alone = transfer(debit, debit, 0, kind=int(kind))
        alone["credit_head"] = alone["credit_tail"] = 0
        return alone
    return transfer(debit, credit, chance.randrange(1, 60))


_RARE = [CommandKind.RELEASE, CommandKind.FREEZE, CommandKind.UNFREEZE, CommandKind.UNFREEZE, CommandKind.CLOSE]


@pytest.mark.parametrize("seed", range(8))
def test_accounts_that_move_behave_as_if_they_stayed(two: Two, seed: int) -> None:
    chance = random.Random(seed)
    for name in ALL:
        two.execute(opening(name, LIMIT_UNLIMITED if name in WORLD else 0))
    holds: list[Records] = []
    for round_number in range(6):
        for _ in range(25):
            two.execute(draw(two, chance, holds))
        for command, first in chance.sample(two.asked, 10):
            two.ask_again(command, first)
        source = chance.choice(sorted(set(two.owner.values())))
        owned = [number for number in SLOTS if two.owner[number] == source]
        two.move(chance.sample(owned, chance.randrange(1, len(owned) + 1)), source, 1 - source, chance)
        if round_number % 2:
            two.reopen()
    for command, first in two.asked:
        two.ask_again(command, first)
    two.clock.now_ns += 10_000_300
    for replica in (*two.shards, two.whole):
        replica.execute(np.zeros(0, COMMAND))  # What is due expires in all of them.
    for name in ALL:
        ids = np.array([id_words(account_id(name, "EUR"))], np.int64)
        whole, own = two.whole.ledger.lookup_accounts(ids)[0], two.account(name)
        for field in ("balance", "held", "limit", "flags", "name", "currency"):
            assert own[field] == whole[field], (name, field)
    assert two.shards[0].ledger.hold_count + two.shards[1].ledger.hold_count == two.whole.ledger.hold_count


@pytest.mark.parametrize("seed", range(4))  # Sent once or twice, by one leader or by two.
@pytest.mark.parametrize("moment", ["sealed", "come"])
def test_a_hold_that_falls_due_while_its_slot_moves_is_given_back_once(two: Two, moment: str, seed: int) -> None:
    payer, payee = NAMES[:2]
    for name in ALL:
        two.execute(opening(name, LIMIT_UNLIMITED if name in WORLD else 0))
    two.execute(transfer(WORLD[0], payer, 50))
    held = transfer(payer, payee, 20, kind=int(CommandKind.HOLD), timeout_ms=150)
    two.execute(held)
    two.falls_due = moment
    two.move([slot(payer)], 0, 1, random.Random(seed))
    expires = [
        np.count_nonzero(replica.log.read_events(np.arange(1, replica.ledger.next_sequence))["kind"] == _EXPIRE)
        for replica in two.shards
    ]
    assert expires == ([1, 0] if moment == "sealed" else [0, 1])
    assert (two.account(payer)["balance"], two.account(payer)["held"]) == (50, 0)
    assert [replica.ledger.hold_count for replica in two.shards] == [0, 0]
    capture = transfer(payer, payee, 20, kind=int(CommandKind.CAPTURE))
    for word in ("head", "tail"):
        capture[f"reference_{word}"] = held[f"id_{word}"]
    assert two.execute(capture)["code"] == ResultCode.HOLD_EXPIRED
    two.reopen()
    for command, first in two.asked:
        two.ask_again(command, first)


def test_what_moved_can_be_verified_and_is_in_projections(
    two: Two, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(99)
    for name in ALL:
        two.execute(opening(name, LIMIT_UNLIMITED if name in WORLD else 0))
    holds: list[Records] = []
    for _ in range(5):
        for _ in range(25):
            two.execute(draw(two, chance, holds))
        for source in (0, 1):
            owned = [number for number in SLOTS if two.owner[number] == source]
            if owned:
                two.move(chance.sample(owned, (len(owned) + 1) // 2), source, 1 - source, chance)
    two.reopen()
    for shard, replica in enumerate(two.shards):
        fed = Fed(tmp_path / f"fed-{shard}", shard=shard)
        fed.register("EUR", 2)
        events = replica.log.read_events(np.arange(1, replica.ledger.next_sequence))
        assert is_copy(events).any()
        for first in range(0, len(events), 5):
            fed.add(events[first : first + 5])
        numbers = np.arange(replica.ledger.account_count)
        accounts = replica.ledger.list_accounts(0, len(numbers))
        view = fed.questions.view()
        ids = np.stack([accounts["id_head"], accounts["id_tail"]], axis=1)
        found = fed.questions.accounts(view, ids, fed.questions.moment(view, AsOf())).records
        for field in ("balance", "held", "limit", "last_position", "event_count", "name"):
            assert np.array_equal(found[field], accounts[field]), field
        fed.close()
    digest = two.shards[0].ledger.digest()
    two.close()
    assert verify(two.path / "0").state_digest == digest
    for shard in (0, 1):
        monkeypatch.setattr(doctor, "likely_shard_of_folder", lambda _, shard=shard: shard)
        found = doctor.examine(two.path / str(shard), free_space_floor=0)
        assert found.verdict is Verdict.HEALTHY, found.findings


def test_a_step_that_cannot_come_next_is_refused(two: Two) -> None:
    slots = np.zeros(SLOT_COUNT, np.bool_)
    slots[SLOTS[0]] = True
    step = MoveStep(bytes(15) + b"1", "begun", 1, encode_slots(slots))
    for phase in ("sealed", "ended", "called_off"):
        with pytest.raises(UsageError):
            take_step(two.shards[0], MoveStep(step.move, phase, 1, step.slots))  # type: ignore[arg-type]
    take_step(two.shards[0], step)
    for refused in (
        step,
        MoveStep(bytes(15) + b"2", "begun", 1, step.slots),
        MoveStep(step.move, "ended", 1, step.slots),
    ):
        with pytest.raises(UsageError):
            take_step(two.shards[0], refused)
    take_step(two.shards[0], MoveStep(step.move, "called_off", 1, step.slots))
    with pytest.raises(UsageError, match="has ended"):
        take_step(two.shards[0], step)
    with pytest.raises(UsageError, match="one shard to another"):
        take_step(two.shards[1], MoveStep(step.move, "taken", 1, step.slots))


def test_slots_do_not_come_back_before_the_move_that_took_them_has_ended(two: Two) -> None:
    """It may have the slot map replaced still, and that would say then that they are where they went."""
    shard = two.shards[0]
    gone, other = (encode_slots(np.arange(SLOT_COUNT) == number) for number in SLOTS[:2])
    take_step(shard, MoveStep(b"a" * 16, "begun", 2, gone))
    take_step(shard, MoveStep(b"a" * 16, "sealed", 2, gone))
    with pytest.raises(UsageError, match="has not ended"):
        take_part(shard, TakeSlots(b"b" * 16, 1, gone, "prepare"), _none())
    assert not take_part(shard, TakeSlots(b"b" * 16, 1, other, "prepare"), _none())
    take_step(shard, MoveStep(b"a" * 16, "ended", 2, gone))
    assert not take_part(shard, TakeSlots(b"b" * 16, 1, gone, "prepare"), _none())
