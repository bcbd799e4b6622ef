"""Claim: over the wire, whatever a client asks of subscriptions is done or refused in words, and harms nobody else."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from bezant.net.reader import connection as connection_module
from bezant.net.reader import subscriptions as subscriptions_module
from bezant.protocol.access import ANYBODY, Principal, Scope
from bezant.protocol.frames import FILTER_ACCOUNTS_MAX, SUBSCRIPTIONS_MAX, FrameError, Operation, encode_frame
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import Acknowledge, Subscribe, Subscribed, Unsubscribe, decode_message, encode_message
from bezant.protocol.records import PROGRESS, PUSHED_EVENT, id_bytes, position_of

from ..server.node import Client, Reply
from .histories import ACCOUNTS, History, Row, Wanted, id_of
from .rig import Rig

OPEN, TRANSFER = int(CommandKind.OPEN), int(CommandKind.TRANSFER)
SUBSCRIPTION = 77
ADMIN = frozenset({Scope.READ, Scope.ADMIN})


@pytest.fixture
async def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Rig]:
    made = Rig(tmp_path / "data", monkeypatch)
    made.history.write(*(Row(OPEN, account) for account in range(1, ACCOUNTS + 1)))
    made.history.publish()
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def client(rig: Rig) -> Client:
    return await rig.connect()


def ids(*accounts: int) -> bytes:
    return b"".join(id_bytes(*id_of(account)) for account in accounts)


async def ask(client: Client, message: Subscribe, request_id: int = SUBSCRIPTION) -> Reply:
    return await client.ask(Operation.SUBSCRIBE, encode_message(message), request_id)


async def subscribed(client: Client, message: Subscribe, request_id: int = SUBSCRIPTION) -> Subscribed:
    return decode_message((await ask(client, message, request_id)).body, Subscribed)


async def events(client: Client, count: int, request_id: int = SUBSCRIPTION) -> list[tuple[int, str, bytes]]:
    """The next events, progress left aside."""
    found: list[tuple[int, str, bytes]] = []
    while len(found) < count:
        reply = await client.reply()
        assert reply.request_id == request_id, reply
        if reply.operation != Operation.PROGRESS:
            assert reply.operation == Operation.EVENTS, reply
            for position, word, event in np.frombuffer(reply.body, PUSHED_EVENT).tolist():
                found.append((position, word.to_bytes(8, "little").rstrip(b"\0").decode(), event))
    return found


def write(history: History, *rows: Row) -> None:
    history.write(*rows)
    history.publish()


async def test_from_the_beginning_and_then_as_it_happens(rig: Rig, client: Client) -> None:
    assert await subscribed(client, Subscribe(accounts=ids(1, 2), after=0)) == Subscribed(0, ACCOUNTS)
    wanted = Wanted((1, 2))
    assert await events(client, 2) == rig.history.told(wanted, 0)
    write(rig.history, Row(TRANSFER, 3, 1), Row(TRANSFER, 3, 4), Row(TRANSFER, 2, 1))
    assert await events(client, 2) == rig.history.told(wanted, ACCOUNTS)


async def test_from_now_on(rig: Rig, client: Client) -> None:
    """Now is what was published when it was asked."""
    rig.history.write(Row(TRANSFER, 1, 2))
    rig.history.publish()
    assert await subscribed(client, Subscribe()) == Subscribed(ACCOUNTS + 1, ACCOUNTS + 1)
    write(rig.history, Row(TRANSFER, 1, 3))
    assert await events(client, 1) == rig.history.told(Wanted(), ACCOUNTS + 1)


async def test_progress_is_told_when_nothing_matches(rig: Rig, client: Client) -> None:
    await subscribed(client, Subscribe(accounts=ids(1)))
    write(rig.history, Row(TRANSFER, 2, 3), Row(TRANSFER, 3, 2))
    reply = await client.reply()
    assert (reply.operation, reply.request_id) == (Operation.PROGRESS, SUBSCRIPTION)
    (progress,) = np.frombuffer(reply.body, PROGRESS)
    assert (progress["position"], progress["last_position"]) == (ACCOUNTS + 2, ACCOUNTS + 2)
    assert progress["timestamp_ns"] == len(rig.history.rows)


async def test_a_subscription_ends_when_it_is_asked_to(rig: Rig, client: Client) -> None:
    await subscribed(client, Subscribe())
    await subscribed(client, Subscribe(), 78)
    ended = await client.ask(Operation.UNSUBSCRIBE, encode_message(Unsubscribe(SUBSCRIPTION)))
    assert ended.body == b""
    write(rig.history, Row(TRANSFER, 1, 2))
    assert len(await events(client, 1, 78)) == 1
    again = await client.ask(Operation.UNSUBSCRIBE, encode_message(Unsubscribe(SUBSCRIPTION)))
    assert again.error.code == FrameError.REQUEST_REFUSED
    # The request id is free again.
    assert (await subscribed(client, Subscribe())).after == ACCOUNTS + 1


REFUSED = [
    (Subscribe(accounts=b"x"), FrameError.BODY_MALFORMED, "16 bytes"),
    (Subscribe(accounts=bytes(16)), FrameError.BODY_MALFORMED, "zeros"),
    (Subscribe(currency="eur"), FrameError.BODY_MALFORMED, "capital"),
    (Subscribe(kinds=[2, 99]), FrameError.BODY_MALFORMED, "99"),
    (Subscribe(kinds=[-1]), FrameError.BODY_MALFORMED, "-1"),
    (Subscribe(name="two words"), FrameError.BODY_MALFORMED, "without spaces"),
    (Subscribe(name="n" * 65), FrameError.BODY_MALFORMED, "64"),
    (Subscribe(after=1, log_id="00c0ffee00c0ffee"), FrameError.REQUEST_REFUSED, "log 00c0ffee00c0ffee"),
    (Subscribe(after=position_of(7, 1)), FrameError.REQUEST_REFUSED, "another shard"),
    (Subscribe(after=2**70), FrameError.BODY_MALFORMED, ""),
    (Subscribe(after=2**63), FrameError.REQUEST_REFUSED, "64 bits"),
    (Subscribe(after=-1), FrameError.REQUEST_REFUSED, "another shard"),
]


@pytest.mark.parametrize(("message", "code", "words"), REFUSED)
async def test_what_cannot_be_asked_is_refused(
    client: Client, message: Subscribe, code: FrameError, words: str
) -> None:
    try:
        body = encode_message(message)
    except OverflowError:
        body = b"\x81\xa5after\xc4\x00"
    reply = await client.ask(Operation.SUBSCRIBE, body, SUBSCRIPTION)
    assert (reply.error.code, words in reply.error.message) == (code, True), reply.error
    assert (await subscribed(client, Subscribe())).after == ACCOUNTS


async def test_a_position_ahead_is_waited_for_and_then_refused(
    rig: Rig, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    await client.send(encode_frame(Operation.SUBSCRIBE, SUBSCRIPTION, encode_message(Subscribe(after=ACCOUNTS + 1))))
    assert (await client.ask(Operation.PING, b"meanwhile", 5)).body == b"meanwhile"
    write(rig.history, Row(TRANSFER, 1, 2), Row(TRANSFER, 3, 4))
    assert decode_message((await client.reply()).body, Subscribed).after == ACCOUNTS + 1
    assert await events(client, 1) == rig.history.told(Wanted(), ACCOUNTS + 1)
    monkeypatch.setattr(subscriptions_module, "AHEAD_WAIT_S_MAX", 0.05)
    refused = await ask(client, Subscribe(after=ACCOUNTS + 1000), 78)
    assert (refused.error.code, "998 events ahead" in refused.error.message) == (FrameError.BEHIND, True)
    # One that is given up, or whose client goes, is waited for no more.
    monkeypatch.setattr(subscriptions_module, "AHEAD_WAIT_S_MAX", 60.0)
    await client.send(encode_frame(Operation.SUBSCRIBE, 79, encode_message(Subscribe(after=ACCOUNTS + 1000))))
    assert (await client.ask(Operation.UNSUBSCRIBE, encode_message(Unsubscribe(79)))).body == b""
    await client.send(encode_frame(Operation.SUBSCRIBE, 80, encode_message(Subscribe(after=ACCOUNTS + 1000))))
    await client.ask(Operation.PING)
    client.abort()
    other = await rig.connect()
    assert (await subscribed(other, Subscribe())).after == ACCOUNTS + 2


async def test_a_request_id_in_use_is_refused(client: Client) -> None:
    await subscribed(client, Subscribe())
    assert (await ask(client, Subscribe())).error.code == FrameError.BODY_MALFORMED


async def test_the_largest_filter_in_two_frames_and_one_account_more(rig: Rig, client: Client) -> None:
    accounts = ids(*range(1000, 1000 + FILTER_ACCOUNTS_MAX - 1), 1)
    size = FILTER_ACCOUNTS_MAX // 2 * 16
    first = Subscribe(accounts[:size], kinds=[TRANSFER], after=0, more=True)
    await client.send(encode_frame(Operation.SUBSCRIBE, SUBSCRIPTION, encode_message(first)))
    # What else the last frame says does not count.
    assert (await subscribed(client, Subscribe(accounts[size:], currency="USD", after=5))).after == 0
    write(rig.history, Row(TRANSFER, 2, 3), Row(TRANSFER, 2, 1), Row(TRANSFER, 1000, 3), Row(OPEN, 1001))
    told = await events(client, 2)
    assert [position for position, _, _ in told] == [ACCOUNTS + 2, ACCOUNTS + 3]
    await client.send(encode_frame(Operation.SUBSCRIBE, 78, encode_message(first)))
    refused = await ask(client, Subscribe(accounts[size:] + ids(5)), 78)
    assert (refused.error.code, "at most" in refused.error.message) == (FrameError.BODY_MALFORMED, True)


async def test_a_connection_has_so_many_subscriptions_and_no_more(rig: Rig, client: Client) -> None:
    body = encode_message(Subscribe(accounts=ids(1)))
    for start in range(0, SUBSCRIPTIONS_MAX, 32):
        await client.send(*(encode_frame(Operation.SUBSCRIBE, start + number, body) for number in range(32)))
        await client.replies(32)
    refused = await ask(client, Subscribe(), 5000)
    assert refused.error.code == FrameError.REQUEST_REFUSED
    write(rig.history, Row(TRANSFER, 1, 2))
    told = [await client.reply() for _ in range(SUBSCRIPTIONS_MAX)]
    assert sorted(reply.request_id for reply in told) == list(range(SUBSCRIPTIONS_MAX))
    assert {reply.operation for reply in told} == {Operation.EVENTS}


async def test_a_name_remembers_what_was_acknowledged_also_after_a_restart(rig: Rig, client: Client) -> None:
    assert (await subscribed(client, Subscribe(name="mail"))).after == ACCOUNTS
    for position in (3, 2):  # never back
        assert (await client.ask(Operation.ACKNOWLEDGE, encode_message(Acknowledge("mail", position)))).body == b""
    ahead = await client.ask(Operation.ACKNOWLEDGE, encode_message(Acknowledge("mail", ACCOUNTS + 1)))
    assert (ahead.error.code, "ahead" in ahead.error.message) == (FrameError.REQUEST_REFUSED, True)
    nobody = await client.ask(Operation.ACKNOWLEDGE, encode_message(Acknowledge("", 1)))
    assert nobody.error.code == FrameError.BODY_MALFORMED
    client.abort()
    rig.server.stop()
    assert rig.task is not None
    await rig.task
    await rig.start()
    for message, after in (
        (Subscribe(name="mail"), 3),
        (Subscribe(name="mail", after=1), 1),
        (Subscribe(name="post"), ACCOUNTS),
    ):
        assert (await subscribed(await rig.connect(), message)).after == after


async def test_a_name_that_begins_with_a_token_is_that_tokens_alone(rig: Rig) -> None:
    reads = frozenset({Scope.READ})
    own, other, admin = (
        Principal(letter * 12, scopes) for letter, scopes in (("a", reads), ("b", reads), ("c", ADMIN))
    )
    name = f"{own.token_id}/mail"
    for number, (principal, is_allowed) in enumerate(((own, True), (other, False), (admin, True), (ANYBODY, True))):
        client = await rig.connect()
        for connection in rig.server.connections._connections:
            connection.principal = principal  # type: ignore[attr-defined]
        shared = await client.ask(Operation.ACKNOWLEDGE, encode_message(Acknowledge("mail", number + 1)))
        assert shared.body == b""
        asked = await client.ask(Operation.ACKNOWLEDGE, encode_message(Acknowledge(name, number + 1)))
        told = await client.ask(Operation.SUBSCRIBE, encode_message(Subscribe(name=name)))
        assert [reply.operation != Operation.ERROR for reply in (asked, told)] == [is_allowed] * 2
        if not is_allowed:
            assert {reply.error.code for reply in (asked, told)} == {FrameError.REQUEST_REFUSED}


async def test_damaged_names_are_told_and_nothing_else_is_troubled(rig: Rig, client: Client) -> None:
    await client.ask(Operation.ACKNOWLEDGE, encode_message(Acknowledge("mail", 3)))
    rig.server.stop()
    assert rig.task is not None
    await rig.task
    (path,) = rig.folder.rglob("positions")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    await rig.start()
    client = await rig.connect()
    refused = await ask(client, Subscribe(name="mail"))
    assert (refused.error.code, "damaged" in refused.error.message) == (FrameError.REQUEST_REFUSED, True)
    assert (await subscribed(client, Subscribe(after=0))).after == 0


async def test_one_that_never_reads_is_told_and_dropped_and_slows_nobody(
    rig: Rig, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "STALL_CHECK_S", 0.05)
    idle = await rig.connect(buffer_size=4096)
    await subscribed(idle, Subscribe())
    await subscribed(client, Subscribe())
    written = 0
    for _ in range(40):
        write(rig.history, *[Row(TRANSFER, 1, 2)] * 1000)
        written += 1000
        assert len(await events(client, 1000)) == 1000
    assert rig.server.connections.count == 2
    monkeypatch.setattr(connection_module, "STALL_S_MAX", 0.3)  # By now, however long it took others to read all this.
    async with asyncio.timeout(20.0):
        while rig.server.connections.count == 2:
            await asyncio.sleep(0.01)
    write(rig.history, Row(TRANSFER, 1, 2))
    assert len(await events(client, 1)) == 1


async def test_one_that_reads_again_is_told_all_from_the_log(rig: Rig) -> None:
    slow = await rig.connect(buffer_size=4096)
    await subscribed(slow, Subscribe())
    for _ in range(40):
        write(rig.history, *[Row(TRANSFER, 1, 2)] * 1000)
        await asyncio.sleep(0.005)
    assert await events(slow, 40_000) == rig.history.told(Wanted(), ACCOUNTS)
    write(rig.history, Row(TRANSFER, 1, 2))
    assert len(await events(slow, 1)) == 1


async def test_a_client_that_is_told_too_slow_gets_the_error_behind_all_that_was_sent(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "STALL_S_MAX", 0.2)
    monkeypatch.setattr(connection_module, "STALL_CHECK_S", 0.05)
    slow = await rig.connect(buffer_size=4096)
    await subscribed(slow, Subscribe())
    for _ in range(20):
        write(rig.history, *[Row(TRANSFER, 1, 2)] * 1000)
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.6)
    *told, last = await slow.rest()
    assert (last.operation, last.error.code) == (Operation.ERROR, FrameError.TOO_SLOW)
    positions = [
        int(row["position"])
        for reply in told
        if reply.operation == Operation.EVENTS
        for row in np.frombuffer(reply.body, PUSHED_EVENT)
    ]
    assert positions == list(range(ACCOUNTS + 1, ACCOUNTS + 1 + len(positions)))
    assert positions
