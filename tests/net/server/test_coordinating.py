"""Claim: a transfer to another shard is done as a whole or not at all, whatever is lost, late or repeated meanwhile."""

import asyncio
import random

import numpy as np
import numpy.typing as npt
import pytest

from bezant.engine.replica import Executed
from bezant.engine.transactions import times
from bezant.engine.transactions.legs import build_try_credits, build_try_debits, transit_id
from bezant.engine.transactions.under_way import transactions_under_way
from bezant.net.server import coordinating, ending, reporting
from bezant.net.server import legs as legs_module
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ArchiveUnavailable, ConnectionFailed
from bezant.protocol.kinds import CommandKind, ResultFlag
from bezant.protocol.names import account_id
from bezant.protocol.records import LIMIT_UNLIMITED, RESULT, Records, Words, id_words
from bezant.protocol.transactions import Leg, TransactionsUnderWay

from ...engine.commands import join, opening, transfer
from .node import until
from .two_shards import Asking, Network, Shard, make_alike, name_in, settled

COMMITTED = int(ResultCode.COMMITTED)


async def test_a_transfer_to_another_shard(pair: tuple[Shard, Shard]) -> None:
    first, second = pair
    a, b = first.names[0], second.names[0]
    (result,) = await first.execute(transfer(a, b, 30))
    assert (result["code"], result["debit_balance"], result["debit_held"]) == (COMMITTED, 70, 0)
    await settled(first, second)
    assert (first.balances(a), second.balances(b)) == ([70], [130])
    assert first.account("transit:0:1")["balance"] == 30
    assert second.account("transit:1:0")["balance"] == -30


async def test_repeats_get_the_first_outcome(pair: tuple[Shard, Shard], network: Network) -> None:
    first, second = pair
    command = transfer(first.names[0], second.names[0], 30)
    network.trouble = lambda legs: "late"
    results = await asyncio.gather(*(first.execute(command) for _ in range(3)), first.execute(join(command, command)))
    await settled(first, second)
    results = [*results, await first.execute(command)]
    for result in np.concatenate(results):
        assert (result["code"], result["debit_balance"]) == (COMMITTED, 70)
    assert len({int(result["position"]) for result in np.concatenate(results)}) == 1
    assert sum(not result["flags"] & ResultFlag.REPEATED for result in np.concatenate(results)) == 1
    assert second.balances(second.names[0]) == [130]


async def test_what_the_other_shard_refuses_is_given_back(pair: tuple[Shard, Shard]) -> None:
    first, second = pair
    command = transfer(first.names[0], name_in(1, 77), 30)
    for flags in (0, int(ResultFlag.REPEATED)):
        (result,) = await first.execute(command)
        assert (result["code"], result["flags"]) == (ResultCode.CREDIT_ACCOUNT_UNKNOWN, flags)
        await settled(first, second)
    assert (first.balances(first.names[0]), first.account(first.names[0])["held"]) == ([100], 0)


async def test_what_this_shard_refuses_never_leaves_it(pair: tuple[Shard, Shard], network: Network) -> None:
    first, second = pair
    (result,) = await first.execute(transfer(first.names[0], second.names[0], 101))
    assert result["code"] == ResultCode.INSUFFICIENT_FUNDS
    assert not any((legs["kind"] == CommandKind.TRY_CREDIT).any() for legs in network.legs)


async def test_a_shard_that_does_not_answer_holds_nothing_up_for_ever(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(coordinating, "TRY_S_MAX", 0.05)
    network.trouble = lambda legs: "lost"
    command = transfer(first.names[0], second.names[0], 30)
    (result,) = await first.execute(command)
    assert result["code"] == ResultCode.SHARD_UNREACHABLE
    assert first.balances(first.names[0]) == [100]
    (again,) = await first.execute(command)
    assert (again["code"], again["flags"]) == (ResultCode.SHARD_UNREACHABLE, ResultFlag.REPEATED)
    network.trouble = lambda legs: ""
    await settled(first, second)
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([100], [100])


async def test_what_is_under_way_can_be_seen(pair: tuple[Shard, Shard], network: Network) -> None:
    first, second = pair
    network.trouble = lambda legs: "lost"
    paying = asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 30)))
    await until(lambda: first.member.replica.durable_index and len(first.ledger.open_tries()) == 1)

    def told() -> TransactionsUnderWay:
        return transactions_under_way(first.ledger, first.member.replica.log.read_events, 1 << 62)

    (tried,) = told().transfers
    assert (tried.phase, tried.shard, tried.amount, tried.currency) == ("trying", 1, 30, "EUR")
    assert tried.age_ms > 0
    network.trouble = lambda legs: "lost" if (legs["kind"] == CommandKind.CONFIRM).any() else ""
    await paying
    assert [transfer.phase for transfer in told().transfers] == ["confirming"]
    network.trouble = lambda legs: ""
    await settled(first, second)
    assert told() == TransactionsUnderWay([], 0)


async def test_a_try_that_comes_after_its_cancel_does_nothing(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    monkeypatch.setattr(coordinating, "TRY_S_MAX", 0.05)
    network.trouble = lambda legs: "lost" if (legs["kind"] == CommandKind.TRY_CREDIT).any() else ""
    (result,) = await first.execute(transfer(first.names[0], second.names[0], 30))
    assert result["code"] == ResultCode.SHARD_UNREACHABLE
    await settled(first, second)
    tried = next(legs for legs in network.legs if (legs["kind"] == CommandKind.TRY_CREDIT).any())
    network.trouble = lambda legs: ""
    (late,) = await network.ask(0, 1, tried, 1.0)
    assert late["code"] == ResultCode.ID_FORBIDDEN
    assert second.account(second.names[0])["incoming"] == 0


async def test_what_the_other_shard_will_not_do_is_parked_and_told(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    monkeypatch.setattr(ending, "PARKED_S", 0.005)
    answer, refusing = network.ask, [True]

    async def ask(asking: int, shard: int, commands: Records, timeout_s: float) -> Records:
        if refusing[0] and (commands["kind"] == CommandKind.CONFIRM).any():
            refused = np.zeros(len(commands), RESULT)
            refused["code"] = int(ResultCode.HOLD_UNKNOWN)
            return refused
        return await answer(asking, shard, commands, timeout_s)

    monkeypatch.setattr(network, "ask", ask)
    (result,) = await first.execute(transfer(first.names[0], second.names[0], 30))
    assert result["code"] == COMMITTED
    await until(lambda: caplog.text.count("its books and ours do not agree") > 1)
    assert len(first.ledger.unsettled()) == 1
    replica = first.member.replica
    (seen,) = transactions_under_way(first.ledger, replica.log.read_events, 0, replica.parked).transfers
    assert seen.phase == "parked"
    assert reporting._queues(first.reactor, None)["parked"].depth == 1
    refusing[0] = False
    await settled(first, second)
    assert reporting._queues(first.reactor, None)["parked"].depth == 0
    assert second.balances(second.names[0]) == [130]


async def test_nothing_else_waits_for_what_is_parked(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of transfers that were decided together the other shard refuses one, and cannot do another just now."""
    first, second = pair
    a, b = first.names, second.names
    monkeypatch.setattr(ending, "PARKED_S", 1.0)
    whole, asked_for = network.ask, [0, 0]

    async def ask(asking: int, shard: int, commands: Records, timeout_s: float) -> Records:
        if not (commands["kind"] == CommandKind.CONFIRM).any():
            return await whole(asking, shard, commands, timeout_s)
        results = np.zeros(len(commands), RESULT)
        for number, name in enumerate(b[:2]):
            head, _ = id_words(account_id(name, "EUR"))
            (row,) = np.flatnonzero(commands["credit_head"] == head).tolist() or [-1]
            if row >= 0:
                asked_for[number] += 1
                code = ResultCode.HOLD_UNKNOWN if number == 0 else ResultCode.OVERLOADED
                results["code"][row] = int(code)
                if asked_for[number] > 1:
                    results[row] = (await whole(asking, shard, commands[row : row + 1], timeout_s))[0]
        return results

    monkeypatch.setattr(network, "ask", ask)
    results = await first.execute(join(transfer(a[0], b[0], 30), transfer(a[1], b[1], 20)))
    assert results["code"].tolist() == [COMMITTED] * 2
    await until(lambda: len(first.ledger.unsettled()) == 1)
    assert asked_for == [1, 2]
    assert second.balances(*b[:2]) == [100, 120]
    assert len(first.member.replica.parked) == 1
    await settled(first, second)
    assert asked_for == [2, 2]
    assert second.balances(*b[:2]) == [130, 120]
    assert not first.member.replica.parked


async def test_a_shard_without_the_currency_has_nothing_to_cancel(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It did not answer in time; what was decided then is not parked until it gets the currency."""
    first, second = pair
    monkeypatch.setattr(coordinating, "TRY_S_MAX", 0.05)
    a, b = first.names[0], second.names[0]
    first.member.replica.register_currency("XYZ", 2)
    first.member.note_appended()
    await first.execute(opening(a, LIMIT_UNLIMITED, currency="XYZ"))
    network.trouble = lambda legs: "lost"
    refused = await first.execute(transfer(a, b, 30, currency="XYZ"))
    assert refused["code"].tolist() == [ResultCode.SHARD_UNREACHABLE]
    network.trouble = lambda legs: ""
    await settled(first, second)
    assert not first.member.replica.parked


async def test_more_is_found_at_a_start_than_is_executed_at_a_time(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    network.trouble = lambda legs: "lost"
    commands = join(*(transfer(first.names[0], second.names[0]) for _ in range(10)))
    waiting = [asyncio.create_task(first.execute(commands))]
    await until(lambda: len(first.ledger.open_tries()) == 10 and bool(network.legs))
    await until(lambda: first.is_still)
    for module in (coordinating, ending, legs_module):
        monkeypatch.setattr(module, "BATCH_COMMANDS_MAX", 4)
    first.crash()
    waiting[0].cancel()
    await asyncio.wait(waiting)
    network.trouble = lambda legs: ""
    await settled(first, second)
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([90], [110])


async def test_a_decision_that_finds_no_room_is_made_when_there_is_some(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    network.trouble = lambda legs: "lost"
    paying = asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 30)))
    await until(lambda: len(first.ledger.open_tries()) == 1 and bool(network.legs))
    with monkeypatch.context() as full:
        full.setattr(first.member.replica.log, "has_room", lambda size: False)
        network.trouble = lambda legs: ""
        await until(lambda: bool(second.account(second.names[0])["incoming"]))
        await asyncio.sleep(0.05)
        assert (len(first.ledger.open_tries()), paying.done()) == (1, False)
    (result,) = await paying
    assert (result["code"], result["debit_balance"], result["debit_held"]) == (COMMITTED, 70, 0)
    await settled(first, second)
    assert second.balances(second.names[0]) == [130]


async def test_a_transit_account_that_finds_no_room_is_opened_when_there_is_some(
    pair: tuple[Shard, Shard], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = pair
    whole = first.member.execute
    with monkeypatch.context() as full:

        def execute(commands: Records, preset: Words, *rest: int) -> Executed:
            if commands["kind"][0] == CommandKind.OPEN:
                full.setattr(first.member.replica.log, "has_room", lambda size: False)
            executed = whole(commands, preset, *rest)
            full.undo()
            return executed

        full.setattr(first.member, "execute", execute)
        (result,) = await first.execute(transfer(first.names[0], second.names[0], 30))
        assert result["code"] == ResultCode.TRANSIT_UNKNOWN
    (result,) = await first.execute(transfer(first.names[0], second.names[0], 30))
    assert (result["code"], result["debit_balance"]) == (COMMITTED, 70)
    await settled(first, second)


def events_of(shard: Shard) -> Records:
    return shard.member.replica.log.read_events(np.arange(1, shard.ledger.next_sequence))


def times_of(shard: Shard, kind: CommandKind, debit: str) -> list[int]:
    """When the events of a kind were, in the order of their amounts in user data: those of an account that pays."""
    events = events_of(shard)
    words = id_words(account_id(debit, "EUR"))
    own = (events["kind"] == int(kind)) & (events["debit_head"] == words[0]) & (events["debit_tail"] == words[1])
    return [int(event["timestamp_ns"]) for event in np.sort(events[own], order="code")]


@pytest.mark.parametrize("ahead_s", [-1800, -1, 1, 1800])
async def test_no_effect_is_dated_before_its_cause(
    pair: tuple[Shard, Shard], monkeypatch: pytest.MonkeyPatch, ahead_s: int
) -> None:
    """Whatever the clocks say, and whichever shard pays."""
    clock_ns = pair[1].member.replica._clock_ns
    monkeypatch.setattr(pair[1].member.replica, "_clock_ns", lambda: clock_ns() + ahead_s * 10**9)
    for first, second in (pair, pair[::-1]):
        a, b = first.names[0], second.names[0]
        commands = join(*(transfer(a, b, 1, code=number) for number in range(1, 6)))
        assert not (await first.execute(commands))["code"].any()
        await settled(*pair)
        out, back = f"transit:{first.number}:{second.number}", f"transit:{second.number}:{first.number}"
        steps = (
            times_of(first, CommandKind.TRY_DEBIT, a),
            times_of(second, CommandKind.TRY_CREDIT, back),
            times_of(first, CommandKind.CONFIRM, a),
            times_of(second, CommandKind.CONFIRM, back),
        )
        assert [len(step) for step in steps] == [5] * 4
        assert first.account(out)["balance"] + second.account(back)["balance"] == 0
        for moments in zip(*steps, strict=True):
            assert sorted(set(moments)) == list(moments)
        assert (np.diff(events_of(first)["timestamp_ns"]) > 0).all()


@pytest.mark.parametrize("is_participant", [True, False])
async def test_of_shards_whose_clocks_are_too_far_apart_neither_follows_the_other(
    pair: tuple[Shard, Shard],
    network: Network,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_participant: bool,
) -> None:
    """Of money nothing is lost, and it says so; when the clocks are right again, all goes on."""
    first, second = pair
    monkeypatch.setattr(coordinating, "TRY_S_MAX", 0.1)
    wrong = pair[is_participant].member.replica
    clock_ns = wrong._clock_ns
    with monkeypatch.context() as patch:
        patch.setattr(wrong, "_clock_ns", lambda: clock_ns() + (times.AHEAD_S_MAX + 60) * 10**9)
        (result,) = await first.execute(transfer(first.names[0], second.names[0], 30))
        assert result["code"] == ResultCode.SHARD_UNREACHABLE
        assert caplog.text.count("no transfers to shard 1") == 1
        assert "3600 s ahead" in caplog.text
    right = pair[not is_participant].member.replica
    assert right.ledger.last_timestamp_ns < right.clock_ns + 10**9
    if not is_participant:
        assert not (events_of(second)["kind"] == int(CommandKind.TRY_CREDIT)).any()
        monkeypatch.setattr(times, "_AHEAD_NS_MAX", (times.AHEAD_S_MAX + 120) * 10**9)
    await settled(first, second)
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([100], [100])


async def test_chains_and_holds_stay_in_their_shard(pair: tuple[Shard, Shard]) -> None:
    first, second = pair
    linked = transfer(first.names[0], second.names[0], 1, flags=1)
    results = await first.execute(join(linked, transfer(first.names[0], first.names[1], 1)))
    assert results["code"].tolist() == [ResultCode.WRONG_SHARD] * 2
    hold = transfer(first.names[0], second.names[0], 1, kind=int(CommandKind.HOLD))
    (result,) = await first.execute(hold)
    assert result["code"] == ResultCode.WRONG_SHARD
    assert first.balances(first.names[0]) == [100]


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_on_the_way(pair: tuple[Shard, Shard], network: Network, monkeypatch, seed: int) -> None:
    """Questions are lost, late, repeated, unanswered; coordinators and participants crash; then all is healed."""
    chance = random.Random(seed)
    monkeypatch.setattr(coordinating, "TRY_S_MAX", chance.choice([0.02, 0.2, 5.0]))
    troubles = ["", "", "", "lost", "late", "twice", "no answer"]
    network.trouble = lambda legs: chance.choice(troubles)
    told: dict[int, int] = {}
    commands: dict[int, tuple[int, Records]] = {}

    async def client(number: int) -> None:
        for n in range(8):
            shard = network.shards[chance.randrange(2)]
            names = pair[0].names + pair[1].names
            debit, credit = chance.choice(shard.names), chance.choice(names)
            if debit == credit:
                continue
            key = 100 * number + n
            commands[key] = (shard.number, transfer(debit, credit, chance.randrange(1, 60)))
            try:
                (result,) = await shard.execute(commands[key][1])
            except ConnectionFailed:
                continue  # It crashed meanwhile.
            told[key] = int(result["code"])
            await asyncio.sleep(chance.random() * 0.005)

    async def crashes() -> None:
        for _ in range(chance.randrange(3)):
            await asyncio.sleep(chance.random() * 0.05)
            shard = network.shards[chance.randrange(2)]
            await until(lambda shard=shard: shard.is_still)
            shard.crash()

    waiting = [asyncio.create_task(client(number)) for number in range(6)]
    await crashes()
    await asyncio.gather(*waiting)
    network.trouble = lambda legs: ""
    await settled(*pair)
    assert pair[0].total() + pair[1].total() == 800
    transits = [int(pair[n].account(f"transit:{n}:{1 - n}")["balance"]) for n in (0, 1)]
    assert sum(transits) == 0
    for shard in pair:
        assert not shard.ledger.lookup_accounts(
            np.array([id_words(account_id(name, "EUR")) for name in shard.names], np.int64)
        )["incoming"].any()
    for key, (number, command) in commands.items():
        (again,) = await network.shards[number].execute(command)
        assert key not in told or again["code"] == told[key]


async def leave_try(first: Shard, network: Network, command: Records) -> None:
    """Have the second shard try what left a leader of the first that was lost before its own entry was committed."""
    tries = build_try_debits(command, np.array(id_words(transit_id(0, 1, "EUR")), np.int64))
    far = np.array(id_words(transit_id(1, 0, "EUR")), np.int64)
    lost = build_try_credits(tries, far, times=np.array([first.ledger.last_timestamp_ns]))
    assert (await network.ask(0, 1, lost, 1))["code"].tolist() == [COMMITTED]


async def test_what_a_lost_coordinator_has_left_is_taken_back(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shard has never heard of the transfer: the other shard finds that out, and only that."""
    first, second = pair
    monkeypatch.setattr(coordinating, "SWEEP_S", 0.05)
    a, b = first.names[0], second.names[0]
    await first.execute(transfer(a, b, 1))
    await settled(first, second)
    command = transfer(a, b, 30)
    await leave_try(first, network, command)
    # And those of one that is only slow: the other shard's answers get lost for a while.
    network.trouble = lambda legs: "no answer" if int(legs["kind"][0]) == CommandKind.TRY_CREDIT else ""
    slow = asyncio.create_task(first.execute(transfer(a, b, 20)))
    await until(lambda: second.account(b)["incoming"] == 50)
    restart_sweeps(second)
    await until(lambda: second.account(b)["incoming"] == 20)
    asked = network.questions
    await until(lambda: network.questions > asked + 3)
    assert second.account(b)["incoming"] == 20
    network.trouble = lambda legs: ""
    assert (await slow)["code"].tolist() == [COMMITTED]
    # Whoever repeats the transfer now is refused: it must not be taken for one that stands there.
    (refused,) = await first.execute(command)
    assert refused["code"] == ResultCode.ID_FORBIDDEN
    await settled(first, second)
    assert (first.balances(a), second.balances(b)) == ([79], [121])


async def test_what_comes_again_while_its_shard_is_asked_is_not_taken_back(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client repeats its transfer just after its shard has said that it knows of none."""
    first, second = pair
    monkeypatch.setattr(coordinating, "SWEEP_S", 0.05)
    a, b = first.names[0], second.names[0]
    await first.execute(transfer(a, b, 1))
    await settled(first, second)
    command = transfer(a, b, 30)
    await leave_try(first, network, command)
    whole, paying, answered = Asking.ask_tries, list[asyncio.Task[Records]](), asyncio.Event()

    async def ask_tries(self: Asking, shard: int, ids: Words, timeout_s: float) -> npt.NDArray[np.bool_]:
        is_known = await whole(self, shard, ids, timeout_s)
        if not paying:
            assert not is_known.any()
            paying.append(asyncio.create_task(first.execute(command)))
            await paying[0]
            answered.set()
        return is_known

    monkeypatch.setattr(Asking, "ask_tries", ask_tries)
    network.trouble = lambda legs: "lost" if (legs["kind"] == CommandKind.CONFIRM).any() else ""
    restart_sweeps(second)
    async with asyncio.timeout(5):
        await answered.wait()
    await asyncio.sleep(0.3)
    network.trouble = lambda legs: ""
    await settled(first, second)
    assert (await paying[0])["code"].tolist() == [COMMITTED]
    assert (first.balances(a), second.balances(b)) == ([69], [131])


def restart_sweeps(shard: Shard) -> None:
    """Have a coordinator look again, as soon as it is set to now."""
    coordinator = shard.reactor.coordinator
    coordinator._sweep_timer.cancel()
    coordinator._sweep_later()


async def test_whoever_asks_by_another_account_of_the_slot_is_told(pair: tuple[Shard, Shard]) -> None:
    """A FORBID names an id and a slot, and not the account that pays: nobody behind it may wait for that."""
    first, second = pair
    command = transfer(first.names[0], second.names[0], 30)
    await first.execute(command)
    await settled(first, second)
    sibling = first.names[0].replace("wallet", "other")
    asked = transfer(sibling, sibling, 0, kind=int(CommandKind.FORBID))
    for word in ("head", "tail"):
        asked[f"id_{word}"], asked[f"credit_{word}"] = command[f"id_{word}"], 0
    (result,) = await first.execute(asked)
    assert (result["code"], result["flags"]) == (COMMITTED, int(ResultFlag.REPEATED))
    assert (await first.execute(transfer(*first.names[:2], 1)))["code"].tolist() == [COMMITTED]


async def test_a_currency_that_the_other_shard_gets_later(pair: tuple[Shard, Shard]) -> None:
    """Its refusal is told at once, and uses up no id that is needed when it has the currency."""
    first, second = pair
    a, b = first.names[0], second.names[0]
    first.member.replica.register_currency("XYZ", 2)
    first.member.note_appended()
    opened = [opening(a, LIMIT_UNLIMITED, currency="XYZ"), opening(b, currency="XYZ")]
    await first.execute(opened[0])
    refused = await first.execute(transfer(a, b, 30, currency="XYZ"))
    assert refused["code"].tolist() == [ResultCode.CURRENCY_UNKNOWN]
    second.member.replica.register_currency("XYZ", 2)
    second.member.note_appended()
    await second.execute(opened[1])
    assert (await first.execute(transfer(a, b, 30, currency="XYZ")))["code"].tolist() == [COMMITTED]
    await settled(first, second)


async def test_an_archive_that_is_away_ends_nobody(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks again is told to do so later, be it a client or another shard; and what is found at a start waits."""
    first, second = pair
    is_away = [True]

    def put_away(shard: Shard) -> None:
        read_events = shard.member.replica.log.read_events

        def read(sequences: Words) -> Records:
            if is_away[0]:
                raise ArchiveUnavailable("it is away")
            return read_events(sequences)

        monkeypatch.setattr(shard.member.replica.log, "read_events", read)

    command = transfer(first.names[0], second.names[0], 30)
    await first.execute(command)
    await settled(first, second)
    put_away(first)
    assert (await first.execute(command))["code"].tolist() == [ResultCode.OVERLOADED]
    network.trouble = lambda legs: "lost"
    waiting = asyncio.create_task(first.execute(transfer(first.names[0], second.names[0], 20)))
    await until(lambda: len(first.ledger.open_tries()) == 1)
    with pytest.raises(ArchiveUnavailable):
        await Asking(network, 1).ask_tries(0, np.zeros((1, 2), np.int64), 1)
    await until(lambda: first.is_still)
    first.crash()
    put_away(first)
    waiting.cancel()
    network.trouble = lambda legs: ""
    await asyncio.sleep(0.05)
    assert len(first.ledger.open_tries()) == 1
    is_away[0] = False
    await settled(first, second)
    assert (first.balances(first.names[0]), second.balances(second.names[0])) == ([50], [150])


@pytest.mark.parametrize("is_refused", [False, True])
async def test_ids_of_decisions_that_are_alike_keep_no_shard_from_deciding(
    pair: tuple[Shard, Shard], monkeypatch: pytest.MonkeyPatch, is_refused: bool
) -> None:
    """Whoever chooses the ids of transfers can look for two whose decisions have the same: 2**37 hashes do."""
    asked = make_alike(monkeypatch, [Leg.CONFIRM_DEBIT, Leg.CANCEL_DEBIT])
    first, second = pair
    credit = name_in(1, 77) if is_refused else second.names[0]
    code = int(ResultCode.CREDIT_ACCOUNT_UNKNOWN) if is_refused else COMMITTED
    commands = [transfer(first.names[0], credit, amount) for amount in (10, 20)]
    told = [await first.execute(command) for command in commands]
    assert any(asked)
    assert [int(results["code"][0]) for results in told] == [code, code]
    await settled(first, second)
    await until(lambda: first.reactor._group is None and not first.reactor._pump_scheduled)
    first.crash()
    again = [await first.execute(command) for command in commands]
    for (before,), (after,) in zip(told, again, strict=True):
        assert (after["code"], after["position"]) == (before["code"], before["position"])
    assert first.balances(first.names[0]) == [100 if is_refused else 70]
    assert first.account(first.names[0])["held"] == 0


@pytest.mark.parametrize("is_given_up", [False, True])
async def test_ids_of_second_legs_that_are_alike_leave_nothing_reserved(
    pair: tuple[Shard, Shard], network: Network, monkeypatch: pytest.MonkeyPatch, is_given_up: bool
) -> None:
    """What is to come in belongs to others than who has looked for such ids, and keeps their slots from moving."""
    asked = make_alike(monkeypatch, [Leg.CONFIRM_CREDIT, Leg.CANCEL_CREDIT])
    monkeypatch.setattr(coordinating, "TRY_S_MAX", 0.05 if is_given_up else 3.0)
    first, second = pair
    a, b = first.names, second.names
    await first.execute(transfer(a[1], b[1], 1))
    await settled(first, second)
    if is_given_up:
        network.trouble = lambda legs: "no answer" if (legs["kind"] == CommandKind.TRY_CREDIT).any() else ""
    commands = [transfer(a[0], b[0], amount) for amount in (10, 20)]
    told = [await first.execute(command) for command in commands]
    assert any(asked)
    code = int(ResultCode.SHARD_UNREACHABLE) if is_given_up else COMMITTED
    assert [int(results["code"][0]) for results in told] == [code, code]
    await settled(first, second)
    assert second.account(b[0])["incoming"] == 0
    assert (first.balances(a[0]), second.balances(b[0])) == (([100], [100]) if is_given_up else ([70], [130]))
    assert not first.member.replica.parked
