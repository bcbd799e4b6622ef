"""Claim: a channel finds the leader of a group and follows it; nothing is lost, repeated or reordered on the way."""

import asyncio
import time
from itertools import pairwise

import msgspec
import numpy as np
import pytest

import bezant
from bezant.net.client import connection
from bezant.net.client.channel import OutcomeUnknown
from bezant.net.client.connection import State, TcpChannel
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed, RemoteProtocolError, RequestRefused, RequestTimedOut, UsageError
from bezant.protocol.frames import FRAME_HEADER_SIZE, FrameError, Operation
from bezant.protocol.records import COMMAND_SIZE, RESULT, Records

from .group import Group, Hold, Opener, command, submit_each
from .scripted import WAIT_S, WELCOME, ScriptedServer, Seen, Stopwatch, say_nothing

COMMANDS = Operation.COMMANDS


# Finding the leader.


@pytest.mark.parametrize("given", [[0], [1], [2], [1, 2], [2, 0], [0, 1, 2]])
async def test_any_subset_of_the_addresses_leads_to_the_leader(
    group: Group, open_channel: Opener, given: list[int]
) -> None:
    channel = await open_channel(",".join(group.addresses[number] for number in given))
    assert channel.address == group.addresses[0]
    assert channel.welcome == group.nodes[0].welcome
    await channel.submit(command(1))
    assert [group.greeted(number) for number in range(3)] == [1, int(given[0] == 1), int(given[0] == 2)]


async def test_a_leader_that_nobody_names_is_found_in_turn(group: Group, open_channel: Opener) -> None:
    group.leader = 2
    group.believe([None, None, 2])
    assert (await open_channel(group.addresses[0])).address == group.addresses[2]
    assert [group.greeted(number) for number in range(3)] == [1, 1, 1]


@pytest.mark.parametrize(
    "alone", [{"node_id": 0, "leader": "x:1"}, {"node_id": 3, "leader": "x:1", "members": ["x:1"]}]
)
async def test_a_node_alone_leads_whatever_it_is_called(server: ScriptedServer, alone: dict[str, object]) -> None:
    server.welcome = msgspec.structs.replace(WELCOME, **alone)
    channel = await TcpChannel.open(server.address, WAIT_S)
    assert channel.address == server.address
    await channel.close()


async def test_addresses_where_nobody_is_do_not_matter(group: Group, open_channel: Opener) -> None:
    await group.nodes[1].stop()
    await group.nodes[2].stop()
    channel = await open_channel(f"{group.addresses[2]},{group.addresses[1]},{group.addresses[0]}")
    assert channel.address == group.addresses[0]


async def test_when_nobody_answers_that_is_said_at_once_and_of_each(group: Group, open_channel: Opener) -> None:
    text = group.text
    await group.stop()
    started_s = time.monotonic()
    with pytest.raises(ConnectionFailed, match="no leader was found") as caught:
        await open_channel(text)
    assert time.monotonic() - started_s < WAIT_S / 4
    assert all(address in str(caught.value) for address in group.addresses)


async def test_a_group_that_elects_is_waited_for(group: Group, open_channel: Opener) -> None:
    group.lead(None)
    opening = open_channel()
    await group.nodes[2].wait_for(Operation.HELLO, 2)
    group.lead(1)
    assert (await opening).address == group.addresses[1]


@pytest.mark.parametrize("believed", [[None, None, None], [1, 0, 0], [2, 2, 1]])
async def test_a_group_without_a_leader_is_given_up_in_time_and_not_hammered(
    group: Group, open_channel: Opener, believed: list[int | None]
) -> None:
    group.believe(believed)
    async with Stopwatch() as watch:
        with pytest.raises(ConnectionFailed, match="leads"):
            await open_channel(timeout_s=0.5)
    assert watch.elapsed_s > 0.45
    assert watch.counted_s < 1.0
    # Rounds after 0, 20, 40, 80, 160 ms and so on, each less up to half.
    assert 3 <= max(group.greeted(number) for number in range(3)) <= 9


async def test_one_that_does_not_answer_is_not_waited_for_to_the_end(
    group: Group, open_channel: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "DIAL_S_MAX", 0.1)
    group.lead(2)
    for node in group.nodes[:2]:
        node.handlers[Operation.HELLO] = say_nothing
    assert (await open_channel()).address == group.addresses[2]


@pytest.mark.parametrize("text", ["", "127.0.0.1:1,", "127.0.0.1:1,nowhere"])
async def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="an address is written like"):
        await TcpChannel.open(text, WAIT_S)


# Following it.


@pytest.mark.parametrize("answers", ["all", "first"])
async def test_a_pipeline_that_was_refused_goes_to_the_new_leader_once_and_in_order(
    group: Group, open_channel: Opener, answers: str
) -> None:
    channel = await open_channel()
    hold = Hold()
    group.nodes[0].handlers[COMMANDS] = hold
    tasks = submit_each(channel, range(64))
    await group.nodes[0].wait_for(COMMANDS, 64)
    group.lead(1)
    for seen in hold.seen if answers == "all" else hold.seen[:1]:
        await group.handle(0, seen)
    results = await asyncio.gather(*tasks)
    assert [int(rows["position"][0]) for rows in results] == list(range(1, 65))
    assert group.executed == list(range(64)) == group.frames(0) == group.frames(1)
    assert [len(node.peers) for node in group.nodes] == [1, 1, 0]
    assert channel.address == group.addresses[1]


async def test_what_was_answered_before_the_refusal_is_not_sent_again(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    hold = Hold()
    group.nodes[0].handlers[COMMANDS] = hold
    tasks = submit_each(channel, range(6))
    await group.nodes[0].wait_for(COMMANDS, 6)
    for seen in hold.seen[:2]:
        await group.handle(0, seen)
    group.lead(2)
    for seen in hold.seen[2:]:
        await group.handle(0, seen)
    await asyncio.gather(*tasks)
    assert group.frames(2) == [2, 3, 4, 5]
    assert group.executed == list(range(6))


async def test_nothing_more_is_sent_to_a_node_that_does_not_lead(group: Group, open_channel: Opener) -> None:
    room = 2 * (FRAME_HEADER_SIZE + COMMAND_SIZE)
    group.nodes[0].welcome = msgspec.structs.replace(group.nodes[0].welcome, connection_bytes_in_flight_max=room)
    channel = await open_channel()
    hold = Hold()
    group.nodes[0].handlers[COMMANDS] = hold
    tasks = submit_each(channel, range(4))
    await group.nodes[0].wait_for(COMMANDS, 2)
    group.lead(1)
    refusal, result = (msgspec.msgpack.encode({"code": 9, "message": "no"}), group.execute(command(1)))
    first, second = hold.seen
    # In one piece: the answer behind the refusal makes room for another frame.
    frames = (first.peer.reply_frame(first, refusal, Operation.ERROR), second.peer.reply_frame(second, result))
    await first.peer.send(b"".join(frames))
    await asyncio.gather(*tasks)
    assert (group.frames(0), group.frames(1)) == ([0, 1], [0, 2, 3])


async def test_each_move_costs_one_connection_and_no_wait(
    group: Group, open_channel: Opener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "BACKOFF_S_MIN", WAIT_S)
    monkeypatch.setattr(connection, "BACKOFF_S_MAX", WAIT_S)
    channel = await open_channel()
    leaders = [0, 2, 1, 0, 2, 0, 1]
    for number, leader in enumerate(leaders):
        group.lead(leader)
        await channel.submit(command(number), WAIT_S / 2)
    assert [len(node.peers) for node in group.nodes] == [leaders.count(number) for number in range(3)]
    assert group.executed == list(range(7))


async def test_requests_made_on_the_way_come_behind(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    later: list[asyncio.Task[Records]] = []

    async def refuse_and_ask_more(seen: Seen) -> None:
        if not later:
            later.extend(submit_each(channel, range(10, 13)))
        await group.handle(0, seen)

    tasks = submit_each(channel, range(1))
    group.nodes[0].handlers[COMMANDS] = refuse_and_ask_more
    group.lead(1)
    await asyncio.gather(*tasks)
    await asyncio.gather(*later)
    assert group.frames(1) == group.executed == [0, 10, 11, 12]


async def test_look_ups_follow_as_well(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    group.lead(1)
    assert await channel.request(Operation.PING, b"you") == b"you"
    assert channel.address == group.addresses[1]


async def test_the_leader_that_was_named_is_dead(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    await group.nodes[1].stop()
    group.leader = 2
    group.believe([1, 1, 2])
    await channel.submit(command(1))
    assert channel.address == group.addresses[2]


async def test_a_lost_connection_is_replaced_by_another_node_at_once(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    await channel.submit(command(1))
    group.nodes[0].handlers[COMMANDS] = Hold()
    tasks = submit_each(channel, range(2, 10))
    await group.nodes[0].wait_for(COMMANDS, 9)
    group.lead(2)
    group.nodes[0].peers[0].drop()
    await asyncio.gather(*tasks)
    assert group.executed == list(range(1, 10))
    # The next one knew the leader, and the one that was lost is not asked first.
    assert [group.greeted(number) for number in range(3)] == [1, 1, 1]


async def test_a_lost_connection_to_a_leader_that_still_leads_is_renewed(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    await channel.submit(command(1))
    group.nodes[0].peers[0].drop()
    await channel.submit(command(2))
    assert group.executed == [1, 2]
    assert channel.address == group.addresses[0]


async def test_a_leader_that_comes_back_after_an_outage_of_all_is_found(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    await channel.submit(command(1))
    await group.stop()
    task = asyncio.ensure_future(channel.submit(command(2)))
    await asyncio.sleep(0.05)
    group.lead(1)
    for node in group.nodes:
        await node.start()
    await task
    assert group.executed == [1, 2]


# What is certain.


def deadline_passed(group: Group, number: int) -> None:
    """Let a node answer as one does that did not look at ids."""

    async def handle(seen: Seen) -> None:
        results = np.zeros(len(seen.commands), RESULT)
        results["code"] = ResultCode.DEADLINE_PASSED
        await seen.peer.reply(seen, results.tobytes())

    group.nodes[number].handlers[COMMANDS] = handle


async def test_a_sending_that_was_refused_leaves_nothing_uncertain(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    group.lead(1)
    deadline_passed(group, 1)
    assert (await channel.submit(command(1)))["code"] == [ResultCode.DEADLINE_PASSED]
    assert (len(group.frames(0)), len(group.frames(1))) == (1, 1)


async def test_so_does_none_of_a_whole_pipeline_whose_refusals_arrive_together(
    group: Group, open_channel: Opener
) -> None:
    channel = await open_channel()
    hold = Hold()
    group.nodes[0].handlers[COMMANDS] = hold
    tasks = submit_each(channel, range(20))
    await group.nodes[0].wait_for(COMMANDS, 20)
    group.lead(1)
    deadline_passed(group, 1)
    refusal = msgspec.msgpack.encode({"code": 9, "message": "no", "leader": group.addresses[1]})
    peer = hold.seen[0].peer
    await peer.send(b"".join(peer.reply_frame(seen, refusal, Operation.ERROR) for seen in hold.seen))
    results = await asyncio.gather(*tasks)
    assert {int(rows["code"][0]) for rows in results} == {ResultCode.DEADLINE_PASSED}


@pytest.mark.parametrize("refuses", [True, False], ids=["refused", "too late"])
async def test_an_unknown_outcome_stays_unknown_if_the_next_answer_does_not_tell(
    group: Group, open_channel: Opener, refuses: bool
) -> None:
    channel = await open_channel()
    group.lead(1)
    group.nodes[0].handlers[COMMANDS] = lambda seen: seen.peer.refuse(seen, FrameError.OUTCOME_UNKNOWN)
    deadline_passed(group, 1)
    if refuses:
        group.nodes[1].handlers[COMMANDS] = lambda seen: seen.peer.refuse(seen, FrameError.REQUEST_REFUSED)
    with pytest.raises(OutcomeUnknown, match="sent again"):
        await channel.submit(command(1))


@pytest.mark.parametrize("is_executed", [True, False])
async def test_an_unknown_outcome_is_settled_by_the_new_leader_and_counts_once(
    group: Group, open_channel: Opener, is_executed: bool
) -> None:
    channel = await open_channel()

    async def lose_the_lead(seen: Seen) -> None:
        if is_executed:
            group.execute(seen.commands)
        group.lead(2)
        await seen.peer.refuse(seen, FrameError.OUTCOME_UNKNOWN, leader=group.addresses[2])

    group.nodes[0].handlers[COMMANDS] = lose_the_lead
    results = await channel.submit(command(1, 3))
    assert results["position"].tolist() == [1, 2, 3]
    assert results["flags"].any() == is_executed
    assert group.executed == [1, 2, 3]


async def test_a_refusal_for_another_reason_is_an_answer(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    group.lead(1)
    group.nodes[1].handlers[COMMANDS] = lambda seen: seen.peer.refuse(seen, FrameError.REQUEST_REFUSED)
    with pytest.raises(RequestRefused, match="because"):
        await channel.submit(command(1))


# Nodes that do not agree.


async def test_nodes_that_name_each_other_are_not_hammered(group: Group, open_channel: Opener) -> None:
    """Each greets as the leader, and refuses what is then asked in favour of the other."""
    channel = await open_channel()
    group.leader = None
    group.believe([0, 1, 1])
    for number, other in ((0, 1), (1, 0)):
        leader = group.addresses[other]
        group.nodes[number].handlers[COMMANDS] = lambda seen, leader=leader: seen.peer.refuse(  # type: ignore[misc]
            seen, FrameError.NOT_LEADER, leader=leader
        )
    tasks = submit_each(channel, range(64), 0.6)
    async with Stopwatch() as watch:
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, OutcomeUnknown) for outcome in outcomes)
    assert watch.elapsed_s > 0.55
    assert watch.counted_s < 1.2
    assert 3 <= group.greeted(0) <= 10
    assert group.executed == []


async def test_a_single_node_that_does_not_lead_is_asked_again_until_the_deadline(server: ScriptedServer) -> None:
    channel = await TcpChannel.open(server.address, WAIT_S)
    server.handlers[COMMANDS] = lambda seen: seen.peer.refuse(seen, FrameError.NOT_LEADER)
    async with Stopwatch() as watch:
        with pytest.raises(OutcomeUnknown):
            await channel.submit(command(1), 0.4)
    assert watch.elapsed_s > 0.35
    assert watch.counted_s < 0.9
    assert 3 <= len(server.frames(COMMANDS)) <= 8
    del server.handlers[COMMANDS]
    assert len(await channel.submit(command(1))) == 1
    await channel.close()


async def test_deadlines_are_kept_while_nobody_leads(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    group.lead(None)
    async with Stopwatch() as watch:
        commands = asyncio.ensure_future(channel.submit(command(1), 0.15))
        with pytest.raises(RequestTimedOut):
            await channel.request(Operation.PING, b"", 0.3)
    assert watch.elapsed_s > 0.28
    assert watch.counted_s < 0.8
    with pytest.raises(OutcomeUnknown):
        await commands
    group.lead(1)
    await channel.submit(command(2))
    assert group.executed == [2]


async def test_a_node_that_keeps_another_log_is_asked_for_nothing(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    await channel.submit(command(1))
    group.nodes[1].welcome = msgspec.structs.replace(group.nodes[1].welcome, log_id="00000000000000b2")
    group.nodes[1].welcome = msgspec.structs.replace(group.nodes[1].welcome, leader=group.addresses[1])
    group.nodes[0].peers[0].drop()
    await channel.submit(command(2))
    assert channel.address == group.addresses[0]
    assert group.nodes[1].frames(COMMANDS) == []


async def test_if_all_keep_another_log_the_channel_is_over(group: Group, open_channel: Opener) -> None:
    channel = await open_channel()
    for node in group.nodes:
        node.welcome = msgspec.structs.replace(node.welcome, log_id="00000000000000b2")
    group.nodes[0].handlers[COMMANDS] = lambda seen: seen.peer.hang_up()
    with pytest.raises(OutcomeUnknown, match="now keeps log 00000000000000b2"):
        await channel.submit(command(1))
    assert channel.state is State.FAILED
    with pytest.raises(RemoteProtocolError, match="now keeps log"):
        await channel.request(Operation.PING, b"")


# The whole way.


async def test_a_wallet_on_a_group(group: Group) -> None:
    async with bezant.connect(group.text, timeout_s=WAIT_S) as wallet:
        first = await wallet.transfer("a", "b", "1", "EUR")
        group.lead(1)
        second = await wallet.transfer("a", "b", "1", "EUR")
    assert (first.position, second.position) == (1, 2)


async def test_order_is_kept_through_many_moves(group: Group, open_channel: Opener) -> None:
    """Requests that are pipelined are first executed in the order in which they were asked."""
    channel = await open_channel()
    tasks: list[asyncio.Task[Records]] = []
    for move in range(30):
        tasks += submit_each(channel, range(20 * move, 20 * move + 20))
        group.lead(move % 3)
        if move % 4 == 0:
            for node in group.nodes:
                for peer in node.peers:
                    if not peer.writer.is_closing():
                        peer.drop()
        await asyncio.sleep(0.002 * (move % 3))
    await asyncio.gather(*tasks)
    assert group.executed == list(range(600))
    assert all(before < after for before, after in pairwise(group.executed))
