"""Claim: a transaction of several legs is done as a whole or not at all, whatever is lost, late or repeated."""

import asyncio
import random
from collections.abc import Sequence

import numpy as np
import pytest

from bezant.engine.transactions.under_way import transactions_under_way
from bezant.net.server import transacting, transacting_steps
from bezant.net.server.requests import AnsweredElsewhere, WrongShard
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import ConnectionFailed, RemoteProtocolError
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.names import currency_word
from bezant.protocol.records import LIMIT_UNLIMITED, RESULT, Records, id_words
from bezant.protocol.transactions import Leg as Follows
from bezant.protocol.transactions import Transact, Transacted, TransactionMode, TransactionsUnderWay

from ...engine.commands import join, opening, transfer
from .node import until
from .two_shards import Network, Shard, fund, make_alike, name_in, settled

TRIES = [int(CommandKind.TRY_CREDIT), int(CommandKind.TRY_PART)]
COMMITTED = int(Code.COMMITTED)
TCC, SAGA = TransactionMode.TCC, TransactionMode.SAGA
Leg = tuple[str, str, int]


def encode_legs(legs: Sequence[Leg], *currencies: str) -> Records:
    """Legs in one currency, or in one each."""
    each = list(currencies or ["EUR"]) * (len(legs) if len(currencies) < 2 else 1)
    commands = join(*(transfer(*leg, currency=currency) for leg, currency in zip(legs, each, strict=True)))
    commands["id_head"] = commands["id_tail"] = 0
    commands["currency"] = [currency_word(currency) for currency in each]
    return commands


def new_id() -> bytes:
    return np.random.default_rng().bytes(16)


async def ask(
    shard: Shard,
    legs: Sequence[Leg],
    *,
    key: bytes | None = None,
    mode=TCC,
    applied: bool = True,
    currencies: Sequence[str] = (),
) -> Transacted:
    """What a client of the shard is told."""
    await until(lambda: shard.member.is_leader)
    future = shard.asking()

    def respond(answer: bytes | Exception) -> None:
        if future.done():
            return  # Who asked has gone.
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(decode_message(answer, Transacted))

    asked = Transact(key or new_id(), int(mode), encode_legs(legs, *currencies).tobytes(), await_applied=applied)
    shard.reactor.coordinator.transactor.ask(encode_message(asked), 1, respond)
    async with asyncio.timeout(20):
        return await future


async def test_a_payout_over_two_shards(pair: tuple[Shard, Shard]) -> None:
    first, second = pair
    a, b = first.names, second.names
    told = await ask(first, [(a[0], b[0], 30), (b[1], a[1], 20), (a[2], a[3], 5), (b[2], b[3], 6)])
    assert told == Transacted(COMMITTED, applied=True)
    await settled(first, second)
    assert first.balances(*a) == [70, 120, 95, 105]
    assert second.balances(*b) == [130, 80, 94, 106]


@pytest.mark.parametrize("mode", [TCC, SAGA])
async def test_a_circle_and_an_account_in_several_legs(pair: tuple[Shard, Shard], mode: TransactionMode) -> None:
    first, second = pair
    a, b = first.names, second.names
    legs = [(a[0], b[0], 10), (b[0], a[1], 20), (a[1], a[0], 30), (a[0], b[0], 1), (a[0], a[1], 2)]
    assert await ask(first, legs, mode=mode) == Transacted(COMMITTED, applied=True)
    await settled(first, second)
    assert first.balances(a[0], a[1]) == [100 - 13 + 30, 100 - 30 + 22]
    assert second.balances(b[0]) == [100 - 20 + 11]


REFUSALS = {
    "no first account": (lambda a, b: [(name_in(0, 50), a[0], 1), (a[1], b[1], 1)], Code.DEBIT_ACCOUNT_UNKNOWN, 0),
    "no money in the first leg": (lambda a, b: [(a[0], b[0], 101), (a[1], b[1], 1)], Code.INSUFFICIENT_FUNDS, 0),
    "no money in a far leg": (lambda a, b: [(a[0], b[0], 1), (b[1], a[1], 101)], Code.INSUFFICIENT_FUNDS, 1),
    "money that the transaction brings": (
        lambda a, b: [(a[0], b[0], 90), (b[0], a[1], 150)],
        Code.INSUFFICIENT_FUNDS,
        1,
    ),
    "no far account": (lambda a, b: [(a[0], b[0], 1), (a[1], name_in(1, 50), 1)], Code.CREDIT_ACCOUNT_UNKNOWN, 1),
    "no near account": (lambda a, b: [(a[0], name_in(0, 50), 1), (a[1], b[0], 1)], Code.CREDIT_ACCOUNT_UNKNOWN, 0),
}


@pytest.mark.parametrize("mode", [TCC, SAGA])
@pytest.mark.parametrize("name", REFUSALS)
async def test_what_one_leg_is_refused_for_refuses_all(
    pair: tuple[Shard, Shard], name: str, mode: TransactionMode
) -> None:
    first, second = pair
    make, code, leg = REFUSALS[name]
    await ask(first, [(first.names[0], first.names[1], 1), (first.names[1], first.names[0], 1)])
    key, legs = new_id(), make(first.names, second.names)
    told = await ask(first, legs, key=key, mode=mode)
    assert (told.code, told.leg, told.applied) == (code, leg, True)
    again = await ask(first, legs, key=key, mode=mode)
    assert (again.code, again.leg, again.repeated) == (code, leg, True)
    await settled(first, second)
    assert first.balances(*first.names) == second.balances(*second.names) == [100] * 4
    assert held(first) == held(second) == 0


def held(shard: Shard) -> int:
    return sum(int(shard.account(name)["held"]) + int(shard.account(name)["incoming"]) for name in shard.names)


async def test_what_is_wrong_by_itself_leaves_nothing(pair: tuple[Shard, Shard]) -> None:
    first, second = pair
    a, b = first.names, second.names
    sequence = first.ledger.next_sequence
    assert (await ask(first, [(a[0], b[0], 1), (a[0], b[0], 0)])).code == Code.AMOUNT_NOT_POSITIVE
    assert (await ask(first, [(a[0], b[0], 1), (a[0], a[0], 1)])).leg == 1
    assert (await ask(first, [(a[0], b[0], 1)], key=bytes(16))).code == Code.ID_INVALID
    with pytest.raises(WrongShard):
        await ask(first, [(b[0], a[0], 1)])
    for wrong in (
        Transact(b"short", 1, encode_legs([(a[0], b[0], 1)]).tobytes()),
        Transact(new_id(), 3, encode_legs([(a[0], b[0], 1)]).tobytes()),
        Transact(new_id(), 1, b""),
        Transact(new_id(), 1, encode_legs([(a[0], b[0], 1)] * 257).tobytes()),
        Transact(new_id(), 1, transfer(a[0], b[0], 1).tobytes()),
    ):
        with pytest.raises(RemoteProtocolError):
            first.reactor.coordinator.transactor.ask(encode_message(wrong), 1, lambda answer: None)
    assert first.ledger.next_sequence == sequence


async def test_a_currency_that_a_shard_gets_later(pair: tuple[Shard, Shard]) -> None:
    """A refusal before it has the currency stands in the way of nothing after that."""
    first, second = pair
    a, b = first.names[0], second.names[0]
    first.member.replica.register_currency("XYZ", 2)
    first.member.note_appended()
    await first.execute(opening(a, LIMIT_UNLIMITED, currency="XYZ"))
    assert (await ask(first, [(a, b, 1)], currencies=["XYZ"])).code != COMMITTED
    second.member.replica.register_currency("XYZ", 2)
    second.member.note_appended()
    await second.execute(opening(b, currency="XYZ"))
    assert (await ask(first, [(a, b, 1)], currencies=["XYZ"])).code == COMMITTED
    await settled(first, second)


async def have_currency(shard: Shard, *accounts: Records) -> None:
    """Register XYZ in a shard, and open accounts in it."""
    shard.member.replica.register_currency("XYZ", 2)
    shard.member.note_appended()
    assert not (await shard.execute(join(*accounts)))["code"].any()


@pytest.mark.parametrize("mode", [TCC, SAGA])
async def test_what_a_shard_has_refused_without_an_event_does_not_come_in_later(
    pair: tuple[Shard, Shard], network: Network, mode: TransactionMode
) -> None:
    """All that it was asked while it had no such currency comes again when it has its transit account."""
    first, second = pair
    a, b = first.names, second.names
    await have_currency(first, opening(a[0], LIMIT_UNLIMITED, currency="XYZ"), opening(a[1], currency="XYZ"))
    told = await ask(first, [(a[0], a[1], 5), (a[0], b[0], 7)], currencies=["XYZ"], mode=mode)
    assert (told.code, told.leg, told.applied) == (Code.CURRENCY_UNKNOWN, 1, True)
    asked = list(network.legs)
    assert asked
    await have_currency(second, opening(b[0], currency="XYZ"))
    assert (await ask(first, [(a[0], b[0], 1)], currencies=["XYZ"])).code == COMMITTED
    for late in asked:
        await network.ask(0, 1, late, 1.0)
    await settled(first, second)
    account = second.account(b[0], "XYZ")
    assert (account["balance"], account["incoming"]) == (1, 0)
    assert second.account("transit:1:0", "XYZ")["held"] == 0


@pytest.mark.parametrize("mode", [TCC, SAGA])
async def test_from_a_shard_without_the_currency_there_is_nothing_to_take_back(
    pair: tuple[Shard, Shard], network: Network, mode: TransactionMode
) -> None:
    """The coordinator is lost behind its decision, and the next one asks of all halves."""
    first, second = pair
    a, b = first.names, second.names
    await have_currency(first, opening(a[0], LIMIT_UNLIMITED, currency="XYZ"))
    network.trouble = lambda legs: "lost" if (legs["kind"] == CommandKind.CANCEL).any() else ""
    key, legs = new_id(), [(a[0], b[0], 5), (b[1], a[1], 6), (a[0], b[0], 7)]
    currencies = ["EUR", "EUR", "XYZ"]
    told = await ask(first, legs, key=key, mode=mode, currencies=currencies, applied=False)
    assert (told.code, told.leg) == (Code.CURRENCY_UNKNOWN, 2)
    await until(lambda: first.is_still)
    first.crash()
    network.trouble = lambda legs: ""
    await settled(first, second)
    told = await ask(first, legs, key=key, mode=mode, currencies=currencies)
    assert (told.code, told.repeated, told.applied) == (Code.CURRENCY_UNKNOWN, True, True)
    assert first.balances(*a) == second.balances(*b) == [100] * 4
    assert held(first) == held(second) == 0


async def test_an_id_has_one_meaning_for_ever(pair: tuple[Shard, Shard]) -> None:
    first, second = pair
    a, b = first.names, second.names
    key, legs = new_id(), [(a[0], b[0], 3), (a[1], b[1], 4)]
    first_told, *others = await asyncio.gather(*(ask(first, legs, key=key) for _ in range(3)))
    assert first_told == Transacted(COMMITTED, applied=True)
    assert set(others) == {Transacted(COMMITTED, repeated=True, applied=True)}
    await settled(first, second)
    for other, leg in (
        ([legs[0], (a[1], b[1], 5)], 1),
        ([legs[0], (a[2], b[1], 4)], 1),
        ([(a[0], b[1], 3), legs[1]], 0),
        ([legs[0]], 0),
        ([*legs, (a[2], b[2], 1)], 0),
    ):
        told = await ask(first, other, key=key)
        assert (told.code, told.leg) == (Code.ID_CONFLICT, leg)
    assert (await ask(first, legs, key=key, mode=SAGA)).code == Code.ID_CONFLICT
    command = transfer(a[0], b[0], 3)
    command["id_head"], command["id_tail"] = id_words(key)
    assert (await first.execute(command))["code"].tolist() == [Code.ID_CONFLICT]
    await until(lambda: first.is_still)
    first.crash()
    assert await ask(first, legs, key=key) == Transacted(COMMITTED, repeated=True, applied=True)
    assert first.total() + second.total() == 800
    assert first.balances(a[0], a[1]) == [97, 96]


async def test_an_id_that_was_given_up_is_never_used(pair: tuple[Shard, Shard], network: Network) -> None:
    first, second = pair
    a, b = first.names, second.names
    key, legs = new_id(), [(a[0], b[0], 3), (a[1], b[1], 4)]
    forbid = transfer(a[0], b[0], 0, kind=int(CommandKind.FORBID), credit_head=0, credit_tail=0)
    forbid["id_head"], forbid["id_tail"] = id_words(key)
    await first.execute(forbid)
    assert (await ask(first, legs, key=key)).code == Code.ID_FORBIDDEN
    # And who gives one up that is under way waits for what becomes of it.
    network.trouble = lambda legs: "lost"
    other = new_id()
    forbid["id_head"], forbid["id_tail"] = id_words(other)
    asking = asyncio.create_task(ask(first, legs, key=other))
    await until(lambda: len(first.ledger.open_tries()) == 1)
    resolving = asyncio.create_task(first.execute(forbid))
    await asyncio.sleep(0.02)
    assert not resolving.done()
    network.trouble = lambda legs: ""
    assert (await resolving)["code"].tolist() == [COMMITTED]
    assert (await asking).code == COMMITTED
    await settled(first, second)


async def test_answered_when_decided_or_when_applied(pair: tuple[Shard, Shard], network: Network) -> None:
    first, second = pair
    legs = [(first.names[0], second.names[0], 3), (first.names[1], second.names[1], 4)]
    network.trouble = lambda legs: "lost" if (legs["kind"] == CommandKind.CONFIRM).any() else ""
    key = new_id()
    assert await ask(first, legs, key=key, applied=False) == Transacted(COMMITTED, applied=False)
    waiting = asyncio.create_task(ask(first, legs, key=key, applied=True))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    (seen,) = under_way(first).transactions
    assert (seen.mode, seen.phase, seen.legs, seen.shards, seen.amounts) == ("tcc", "confirming", 2, [0, 1], {"EUR": 7})
    network.trouble = lambda legs: ""
    assert await waiting == Transacted(COMMITTED, repeated=True, applied=True)
    await settled(first, second)
    assert under_way(first).count == 0


def under_way(shard: Shard) -> TransactionsUnderWay:
    replica = shard.member.replica
    return transactions_under_way(replica.ledger, replica.log.read_events, 1 << 62, replica.parked)


async def test_who_waits_for_all_of_it_does_not_wait_for_ever(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(transacting, "APPLIED_S_MAX", 0.02)
    network.trouble = lambda legs: "lost" if (legs["kind"] == CommandKind.CONFIRM).any() else ""
    legs = [(first.names[0], second.names[0], 3), (first.names[1], second.names[1], 4)]
    assert await ask(first, legs) == Transacted(COMMITTED, applied=False)
    network.trouble = lambda legs: ""
    await settled(first, second)


async def test_more_than_a_shard_carries_on_at_a_time(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(transacting, "TRANSACTIONS_MAX", 2)
    network.trouble = lambda legs: "lost"
    legs, key = [(first.names[0], second.names[0], 1)], new_id()
    waiting = [asyncio.create_task(ask(first, legs)) for _ in range(2)]
    await until(lambda: len(first.ledger.open_tries()) == 2)
    assert await ask(first, legs, key=key) == Transacted(int(Code.OVERLOADED))
    network.trouble = lambda legs: ""
    assert [told.code for told in await asyncio.gather(*waiting)] == [COMMITTED] * 2
    assert (await ask(first, legs, key=key)).code == COMMITTED
    await settled(first, second)


@pytest.mark.parametrize("mode", [TCC, SAGA])
async def test_a_shard_that_does_not_answer_holds_nothing_up_for_ever(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch, mode: TransactionMode
) -> None:
    """The cancel overtakes the try, which does nothing when it comes at last."""
    first, second = pair
    a, b = first.names, second.names
    monkeypatch.setattr(transacting_steps, "TRY_S_MAX", 0.05)
    network.trouble = lambda legs: "lost" if np.isin(legs["kind"], TRIES).any() else ""
    key, legs = new_id(), [(a[0], b[0], 3), (b[1], a[1], 4)]
    told = await ask(first, legs, key=key, mode=mode)
    assert (told.code, told.applied) == (Code.SHARD_UNREACHABLE, True)
    await settled(first, second)
    assert second.total() == first.total() == 400
    network.trouble = lambda legs: ""
    late = next(legs for legs in network.legs if np.isin(legs["kind"], TRIES).any())
    results = await network.ask(0, 1, late, 1.0)
    assert set(results["code"][np.isin(late["kind"], TRIES)].tolist()) == {Code.ID_FORBIDDEN}
    assert held(second) == 0
    assert (await ask(first, legs, key=key, mode=mode)).code == Code.SHARD_UNREACHABLE


@pytest.mark.parametrize("lost", [CommandKind.TRY_CREDIT, CommandKind.CONFIRM, CommandKind.CANCEL])
@pytest.mark.parametrize("mode", [TCC, SAGA])
async def test_a_leader_that_takes_over_carries_on(
    pair: tuple[Shard, Shard], network: Network, lost: CommandKind, mode: TransactionMode
) -> None:
    """The coordinator is lost before the decision, or behind it."""
    first, second = pair
    a, b = first.names, second.names
    network.trouble = lambda legs: "lost" if (legs["kind"] == int(lost)).any() else ""
    payee = name_in(1, 50) if lost is CommandKind.CANCEL else b[1]
    key, legs = new_id(), [(a[0], b[0], 3), (b[2], a[1], 4), (a[1], payee, 5)]
    asking = asyncio.create_task(ask(first, legs, key=key, mode=mode))
    await until(lambda: any((legs["kind"] == int(lost)).any() for legs in network.legs))
    await until(lambda: first.is_still)
    first.crash()
    await asyncio.wait([asking])
    assert isinstance(asking.exception(), AnsweredElsewhere)
    network.trouble = lambda legs: ""
    told = await ask(first, legs, key=key, mode=mode)
    code = Code.CREDIT_ACCOUNT_UNKNOWN if lost is CommandKind.CANCEL else COMMITTED
    assert (told.code, told.repeated, told.applied) == (code, True, True)
    await settled(first, second)
    if code == COMMITTED:
        assert (first.balances(a[0], a[1]), second.balances(*b[:3])) == ([97, 99], [103, 105, 96])
    else:
        assert first.balances(*a) == second.balances(*b) == [100] * 4


async def test_who_takes_over_takes_back_what_came_after_the_step_that_it_failed_at(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The coordinator before it had come further; it fails at a step that had been done."""
    first, second = pair
    a, b = first.names, second.names

    def trouble(legs: Records) -> str:
        gives_up = any((seen["kind"] == CommandKind.CANCEL).any() for seen in network.legs)
        return "lost" if (legs["kind"] == CommandKind.TRY_CREDIT).any() and not gives_up else ""

    network.trouble = trouble
    key, legs = new_id(), [(a[0], a[1], 3), (b[0], a[2], 4), (a[3], b[1], 5)]
    asking = asyncio.create_task(ask(first, legs, key=key, mode=SAGA))
    await until(lambda: any((legs["kind"] == CommandKind.TRY_CREDIT).any() for legs in network.legs))
    await until(lambda: first.is_still)
    assert (first.balances(*a), second.balances(*b)) == ([100, 103, 104, 95], [96, 100, 100, 100])
    first.crash()
    with pytest.raises(AnsweredElsewhere):
        await asking
    monkeypatch.setattr(transacting_steps, "TRY_S_MAX", 0.0)
    network.trouble = lambda legs: trouble(legs) or ("lost" if (legs["kind"] == CommandKind.TRY_PART).any() else "")
    assert (await ask(first, legs, key=key, mode=SAGA, applied=False)).code == Code.SHARD_UNREACHABLE
    network.trouble = lambda legs: ""
    await settled(first, second)
    assert first.balances(*a) == second.balances(*b) == [100] * 4
    assert held(first) == held(second) == 0


async def test_a_saga_takes_back_what_it_did_the_last_step_first(pair: tuple[Shard, Shard], network: Network) -> None:
    first, second = pair
    a, b = first.names, second.names
    told = await ask(first, [(a[0], b[0], 3), (b[1], a[1], 4), (a[2], name_in(1, 50), 5)], mode=SAGA)
    assert (told.code, told.leg, told.applied) == (Code.CREDIT_ACCOUNT_UNKNOWN, 2, True)
    await settled(first, second)
    assert first.balances(*a) == second.balances(*b) == [100] * 4
    for shard, peer in ((first, 1), (second, 0)):
        assert shard.account(f"transit:{shard.number}:{peer}")["balance"] == 0
    # The first debit is held; the second and third were done, and the first and second credit.
    assert [int(account["event_count"]) for account in map(second.account, (b[0], b[1]))] == [6, 6]


async def test_what_cannot_be_taken_back_is_parked_until_it_can(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The receiver's account is frozen before the saga takes back what it gave; a new leader goes on with it."""
    first, second = pair
    a, b = first.names, second.names
    monkeypatch.setattr(transacting_steps, "PARKED_S", 0.01)
    frozen: list[asyncio.Future[Records]] = []

    def trouble(legs: Records) -> str:
        if not (legs["kind"] == CommandKind.CANCEL).any() or (frozen and frozen[0].done()):
            return ""
        if not frozen:
            frozen.append(asyncio.get_running_loop().create_future())
            freeze = transfer(b[0], b[1], 0, kind=int(CommandKind.FREEZE), credit_head=0, credit_tail=0)
            second.reactor.submit(freeze, frozen[0])
        return "lost"  # Legs overtake what clients ask for, where both wait for the disk.

    network.trouble = trouble
    legs, key = [(a[0], b[0], 3), (a[1], a[2], 4), (a[3], name_in(1, 50), 5)], new_id()
    told = await ask(first, legs, key=key, mode=SAGA, applied=False)
    assert (told.code, told.applied) == (Code.CREDIT_ACCOUNT_UNKNOWN, False)
    await until(lambda: caplog.text.count("they are parked") > 2)
    assert [(one.mode, one.phase) for one in under_way(first).transactions] == [("saga", "parked")]
    assert (first.balances(a[1], a[2]), second.balances(b[0])) == ([100, 100], [103])
    await until(lambda: first.is_still)
    first.crash()
    caplog.clear()
    await until(lambda: "they are parked" in caplog.text)
    thaw = transfer(b[0], b[1], 0, kind=int(CommandKind.UNFREEZE), credit_head=0, credit_tail=0)
    assert (await second.execute(thaw))["code"].tolist() == [COMMITTED]
    await settled(first, second)
    assert first.balances(*a) == second.balances(*b) == [100] * 4
    assert (await ask(first, legs, key=key, mode=SAGA)).applied


@pytest.mark.parametrize("kind", [CommandKind.CANCEL, CommandKind.CONFIRM])
async def test_nothing_else_waits_for_what_is_parked(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch, kind: CommandKind
) -> None:
    """A half that cannot be taken back, or one whose giving back cannot be confirmed: all others are."""
    first, second = pair
    a, b = first.names, second.names
    monkeypatch.setattr(transacting_steps, "PARKED_S", 1.0)
    whole, refused, has_cancelled = network.ask, [0], [False]

    async def asked(asking: int, shard: int, commands: Records, timeout_s: float) -> Records:
        has_cancelled[0] |= bool((commands["kind"] == CommandKind.CANCEL).any())
        if has_cancelled[0] and (commands["kind"] == kind).any() and refused[0] < 2:
            refused[0] += 1
            results = np.zeros(len(commands), RESULT)
            results["code"] = int(Code.HOLD_OF_OTHER_ACCOUNTS)
            return results
        return await whole(asking, shard, commands, timeout_s)

    monkeypatch.setattr(network, "ask", asked)
    told = await ask(first, [(a[0], b[0], 3), (a[2], a[1], 4), (a[3], name_in(1, 50), 5)], mode=SAGA, applied=False)
    assert (told.code, told.applied) == (Code.CREDIT_ACCOUNT_UNKNOWN, False)
    await until(lambda: refused[0] > 0)
    await until(lambda: first.balances(*a) == [100] * 4 and held(first) == 0)
    assert refused[0] == 1
    assert second.balances(b[0]) == [103]
    await settled(first, second)
    assert second.balances(*b) == [100] * 4
    assert refused[0] == 2
    assert held(first) == held(second) == 0


ENDS = [Follows.CONFIRM_DEBIT, Follows.CONFIRM_CREDIT, Follows.CANCEL_DEBIT, Follows.CANCEL_CREDIT]


@pytest.mark.parametrize("mode", [TCC, SAGA])
@pytest.mark.parametrize("payee", [0, 50])
async def test_ids_that_are_alike_leave_nothing_reserved(
    pair: tuple[Shard, Shard], monkeypatch: pytest.MonkeyPatch, mode: TransactionMode, payee: int
) -> None:
    """Whoever chooses the ids of transactions can look for two for which those of decisions and ends are the same."""
    first, second = pair
    a, b = first.names, second.names
    make_alike(monkeypatch, ENDS)
    legs = [(a[0], b[0], 3), (b[1], a[1], 4), (a[2], name_in(1, payee) if payee else b[2], 5)]
    for _ in range(2):
        before = first.balances(*a), second.balances(*b)
        told = await ask(first, legs, mode=mode)
        assert told.applied
        await settled(first, second)
        assert held(first) == held(second) == 0
        if told.code:
            assert (first.balances(*a), second.balances(*b)) == before
    assert (told.code == COMMITTED) == (mode is TCC and not payee)


async def test_what_another_transaction_has_brought_is_not_given_back(
    pair: tuple[Shard, Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its try has the id and the content of one of a saga that fails: somebody has looked for such ids."""
    first, second = pair
    a, b = first.names, second.names
    make_alike(monkeypatch, [Follows.TRY_CREDIT])
    leg = (a[0], b[0], 3)
    assert (await ask(first, [leg])).code == COMMITTED
    told = await ask(first, [leg, (a[1], name_in(1, 50), 4)], mode=SAGA)
    assert (told.code, told.leg, told.applied) == (Code.ID_CONFLICT, 1, True)
    told = await ask(first, [leg, (a[1], a[2], 4)], mode=SAGA)
    assert (told.code, told.leg, told.applied) == (Code.HOLD_CAPTURED, 0, True)
    await settled(first, second)
    assert first.balances(*a) == [97, 100, 100, 100]
    assert second.balances(*b) == [103, 100, 100, 100]
    assert held(first) == held(second) == 0


@pytest.mark.parametrize("seed", range(16))
async def test_whatever_happens_on_the_way(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Questions are lost, late, repeated, unanswered; coordinators and participants crash; then all is healed."""
    chance = random.Random(seed)
    monkeypatch.setattr(transacting_steps, "TRY_S_MAX", chance.choice([0.05, 0.3, 5.0]))
    monkeypatch.setattr(transacting_steps, "PARKED_S", 0.02)
    troubles = ["", "", "", "", "lost", "late", "twice", "no answer"]
    network.trouble = lambda legs: chance.choice(troubles)
    names = pair[0].names + pair[1].names
    asked: dict[bytes, tuple[Shard, list[Leg], TransactionMode]] = {}
    told: dict[bytes, int] = {}

    async def client() -> None:
        for _ in range(3):
            shard, mode = network.shards[chance.randrange(2)], chance.choice([TCC, SAGA])
            legs = [(*chance.sample(names, 2), chance.randrange(1, 40)) for _ in range(chance.randrange(1, 6))]
            legs[0] = (*chance.sample(shard.names, 2), legs[0][2])
            key = chance.randbytes(16)
            asked[key] = shard, legs, mode
            try:
                answer = await ask(shard, legs, key=key, mode=mode, applied=False)
            except (ConnectionFailed, AnsweredElsewhere):
                continue  # It crashed meanwhile.
            if answer.code != Code.OVERLOADED:
                told[key] = answer.code

    async def crashes() -> None:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(chance.random() * 0.1)
            shard = network.shards[chance.randrange(2)]
            await until(lambda shard=shard: shard.is_still)
            shard.crash()

    waiting = [asyncio.create_task(client()) for _ in range(4)]
    await crashes()
    await asyncio.wait(waiting, timeout=60)
    for task in waiting:
        task.result()
    network.trouble = lambda legs: ""
    for shard in pair:
        # What a saga takes back may have been spent.
        await until(lambda shard=shard: shard.member.is_leader)
        await fund(shard, 900)
    await settled(*pair)
    assert held(pair[0]) == held(pair[1]) == 0
    assert pair[0].total() + pair[1].total() == 8_000
    expected = dict.fromkeys(names, 1_000)
    for key, (shard, legs, mode) in asked.items():
        again = await ask(shard, legs, key=key, mode=mode)
        assert key not in told or again.code == told[key]
        for debit, credit, amount in legs if again.code == COMMITTED else ():
            expected[debit] -= amount
            expected[credit] += amount
    await settled(*pair)
    assert (
        dict(zip(names, pair[0].balances(*pair[0].names) + pair[1].balances(*pair[1].names), strict=True)) == expected
    )


async def test_a_client_may_be_sooner_than_who_carries_on(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was found when a node began to lead is over by the time that it is looked at."""
    first, second = pair
    a, b = first.names, second.names
    key, legs = new_id(), [(a[0], b[0], 3), (a[1], b[1], 4), (a[2], name_in(1, 50), 5)]
    network.trouble = lambda legs: "lost"
    asking = asyncio.create_task(ask(first, legs, key=key))
    await until(lambda: len(first.ledger.open_tries()) == 1)
    sequences = first.ledger.open_tries()
    begun = first.member.replica.log.read_events(sequences)
    network.trouble = lambda legs: ""
    assert (await asking).code == Code.CREDIT_ACCOUNT_UNKNOWN
    await settled(first, second)
    first.reactor.coordinator.transactor.carry_on(begun, sequences, None)
    await settled(first, second)
    assert (await ask(first, legs, key=key)).code == Code.CREDIT_ACCOUNT_UNKNOWN
    assert first.balances(*a) == second.balances(*b) == [100] * 4
