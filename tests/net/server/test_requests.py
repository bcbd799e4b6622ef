"""Claim: look-ups, lists, the currencies and the counters say what is so, and nothing that is not durable."""

import msgspec
import numpy as np
import pytest

from bezant.engine.replica import open_replica
from bezant.protocol.codes import ResultCode
from bezant.protocol.currencies import ISO_4217
from bezant.protocol.frames import ACCOUNT_COUNT_MAX, EVENT_COUNT_MAX, FrameError, Operation, encode_frame
from bezant.protocol.messages import Currencies, Currency, ListAccounts, decode_message, encode_message
from bezant.protocol.names import account_id, currency_code
from bezant.protocol.records import ACCOUNT, EVENT, EVENT_ANSWER, Records

from .books import CURRENCY, NAMES, WORLD, opening, transfer_frame, transfers
from .conftest import StartNode
from .node import SETTINGS, Client, Node, SlowDisk, until


def ids(*names: str, currency: str = CURRENCY) -> bytes:
    return b"".join(account_id(name, currency) for name in names)


def queries(commands: Records) -> bytes:
    """What to ask for to get the events of commands."""
    return b"".join(row.tobytes()[:32] for row in commands)


async def accounts(client: Client, body: bytes) -> Records:
    return np.frombuffer((await client.ask(Operation.LOOKUP_ACCOUNTS, body)).body, ACCOUNT)


async def listed(client: Client, cursor: int, count: int) -> Records:
    body = msgspec.msgpack.encode({"cursor": cursor, "count": count})
    return np.frombuffer((await client.ask(Operation.LIST_ACCOUNTS, body)).body, ACCOUNT)


async def currencies(client: Client) -> dict[str, int]:
    answer = decode_message((await client.ask(Operation.LIST_CURRENCIES)).body, Currencies)
    return {currency.code: currency.decimals for currency in answer.currencies}


# Accounts and events.


async def test_a_look_up_sees_everything_acknowledged_to_anybody(node: Node) -> None:
    writer, reader = await node.connect(), await node.connect()
    for number in range(1, 60):
        commands = transfers(1, number)
        result = (await writer.execute(commands))[0]
        [account] = await accounts(reader, ids("ann"))
        assert (account["balance"], account["last_position"]) == (number, result["position"])
        answer = np.frombuffer((await reader.ask(Operation.LOOKUP_EVENTS, queries(commands))).body, EVENT_ANSWER)
        event = np.frombuffer(answer[0]["event"], EVENT)[0]
        assert (answer[0]["position"], event["credit_balance"]) == (result["position"], number)


async def test_a_look_up_tells_nothing_that_is_not_durable(node: Node, slow_disk: SlowDisk) -> None:
    writer, reader = await node.connect(), await node.connect()
    slow_disk.hold()
    await writer.send(transfer_frame(1))
    await slow_disk.busy()
    await reader.send(encode_frame(Operation.LOOKUP_ACCOUNTS, 2, ids("ann")))
    await reader.send(encode_frame(Operation.PING, 3))
    assert (await reader.reply()).request_id == 3
    assert node.reactor.bytes_in_flight > 0
    slow_disk.release()
    assert (await writer.reply()).codes == [0]
    assert np.frombuffer((await reader.reply()).body, ACCOUNT)[0]["balance"] == 1


async def test_accounts_are_answered_in_the_order_asked(client: Client) -> None:
    await client.execute(transfers(3, 1))
    answer = await accounts(client, ids("bob", "nobody", WORLD, "ann", "ann"))
    assert answer["found"].tolist() == [1, 0, 1, 1, 1]
    assert answer["name"].tolist() == [b"bob", b"", b"world", b"ann", b"ann"]
    assert answer["balance"].tolist() == [0, 0, -3, 3, 3]
    assert currency_code(answer["currency"][0]) == CURRENCY
    assert answer[1].tobytes() == bytes(ACCOUNT.itemsize)


async def test_what_is_unknown_is_all_zeros(client: Client) -> None:
    assert not any((await accounts(client, bytes(16) + b"\xff" * 16 + ids(WORLD, currency="USD"))).tobytes())
    command = transfers(1, 5)
    await client.execute(command)
    unknown = [transfers(1, 6), transfers(1, 5, debit="bob", credit="ann")]
    body = bytes(32) + b"\xff" * 32 + b"".join(map(queries, unknown)) + queries(command)
    answers = np.frombuffer((await client.ask(Operation.LOOKUP_EVENTS, body)).body, EVENT_ANSWER)
    assert answers["found"].tolist() == [0, 0, 0, 0, 1]
    assert not any(answers[:4].tobytes())


async def test_nothing_is_asked_for(client: Client) -> None:
    for operation in (Operation.LOOKUP_ACCOUNTS, Operation.LOOKUP_EVENTS):
        assert (await client.ask(operation)).body == b""


async def test_the_largest_look_ups(node: Node, client: Client) -> None:
    answer = await accounts(client, ids("ann", "nobody") * (ACCOUNT_COUNT_MAX // 2) + ids("bob"))
    assert len(answer) == ACCOUNT_COUNT_MAX
    assert answer["found"].sum() == ACCOUNT_COUNT_MAX // 2 + 1
    commands = transfers(200, 1)
    await client.execute(commands)
    body = (queries(commands) * (EVENT_COUNT_MAX // 200 + 1))[: EVENT_COUNT_MAX * 32]
    answers = np.frombuffer((await client.ask(Operation.LOOKUP_EVENTS, body)).body, EVENT_ANSWER)
    assert len(answers) == EVENT_COUNT_MAX
    assert answers["found"].all()


# Lists.


async def test_a_list_in_pages(client: Client) -> None:
    names = [f"account-{number}" for number in range(10)]
    await client.execute(opening(*names))
    expected = [name.encode() for name in (*NAMES, *names)]
    for count in (1, 4, 5000):
        found: list[bytes] = []
        while len(page := await listed(client, len(found), count)):
            found += page["name"].tolist()
        assert found == expected


@pytest.mark.parametrize("cursor", [3, 4, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
@pytest.mark.parametrize("count", [0, 1, 1 << 31, (1 << 64) - 1])
async def test_a_list_from_behind_the_end_is_empty(client: Client, cursor: int, count: int) -> None:
    assert len(await listed(client, cursor, count)) == 0


async def test_a_list_of_more_than_there_can_be(client: Client) -> None:
    assert len(await listed(client, 0, (1 << 64) - 1)) == len(NAMES)
    assert len(await listed(client, 1, 0)) == 0


# Currencies.


async def test_a_currency_is_registered_once_and_for_ever(start_node: StartNode) -> None:
    node = await start_node()
    client = await node.connect()
    assert await currencies(client) == ISO_4217
    body = encode_message(Currency("POINTS", 0))
    for _ in range(2):
        reply = await client.ask(Operation.REGISTER_CURRENCY, body)
        assert decode_message(reply.body, Currencies).currencies[-1] == Currency("POINTS", 0)
    refusal = await client.ask(Operation.REGISTER_CURRENCY, encode_message(Currency("POINTS", 1)))
    assert refusal.error.code == FrameError.REQUEST_REFUSED
    assert "0 decimals" in refusal.error.message
    assert await currencies(client) == {**ISO_4217, "POINTS": 0}
    entries = node.replica.log.last_index
    assert (await client.statistics()).durable_index == entries
    await node.stop()
    replica = open_replica(node.path, settings=SETTINGS)
    assert replica.ledger.currencies["POINTS"] == 0
    replica.close()


async def test_a_registration_counts_for_the_commands_behind_it(client: Client) -> None:
    await client.ask(Operation.REGISTER_CURRENCY, encode_message(Currency("GOLD", 3)))
    command = opening("vault").copy()
    command["currency"] = int.from_bytes(b"GOLD", "little")
    identifier = account_id("vault", "GOLD")
    command["debit_head"] = int.from_bytes(identifier[:8], "little", signed=True)
    command["debit_tail"] = int.from_bytes(identifier[8:], "little", signed=True)
    assert (await client.execute(command))["code"].tolist() == [0]
    [account] = await accounts(client, identifier)
    assert (account["decimals"], account["found"]) == (3, 1)


async def test_the_registry_has_an_end(client: Client) -> None:
    refusal = None
    for number in range(1, 1100):
        reply = await client.ask(Operation.REGISTER_CURRENCY, encode_message(Currency(f"X{number}", 2)))
        if reply.operation == Operation.ERROR:
            refusal = reply.error
            break
    assert refusal is not None
    assert refusal.code == FrameError.REQUEST_REFUSED
    assert len(await currencies(client)) == 1024


# Counters.


async def test_statistics_count(start_node: StartNode) -> None:
    node = await start_node()
    await until(lambda: node.reactor.counters.connections == 0)
    client = await node.connect()
    before = await client.statistics()
    bad = transfers(1, 9)
    bad["kind"] = 99
    assert (await client.execute(bad))["code"].tolist() == [ResultCode.KIND_UNKNOWN]
    await client.execute(transfers(5, 10))
    await client.ask(Operation.PING, bytes(1000))
    after = await client.statistics()
    assert (before.connections, after.connections) == (1, 1)
    assert after.commands - before.commands == 6
    assert after.events - before.events == 5
    assert after.entries - before.entries == 1
    assert after.syncs - before.syncs == 1
    assert after.accounts == len(NAMES)
    assert (after.durable_index, after.durable_sequence) == (after.entries, len(NAMES) + 5)
    assert after.log_bytes - before.log_bytes == 128 + 5 * 192
    # Requests of 160, 672, 1032 and 32 bytes; replies of 96, 352 and 1032, and the statistics before.
    assert after.bytes_in - before.bytes_in == 160 + 672 + 1032 + 32
    assert after.bytes_out - before.bytes_out > 96 + 352 + 1032
    assert after.bytes_in_flight == 0
    assert after.uptime_s > before.uptime_s > 0
    assert {"receive", "execute", "reply", "write_and_sync"} <= set(after.stage_s)
    assert after.loop_stall_max_ms >= after.loop_stall_recent_ms > 0
    assert after.replicas == 1


async def test_bytes_out_are_those_that_arrive(node: Node) -> None:
    client = await node.connect()
    before = node.reactor.counters.bytes_out
    requests = [
        transfer_frame(1, 3),
        encode_frame(Operation.LOOKUP_ACCOUNTS, 2, ids("ann")),
        encode_frame(Operation.LIST_CURRENCIES, 3),
        encode_frame(Operation.PING, 4, b"x"),
        encode_frame(99, 5),
    ]
    await client.send(*requests)
    replies = await client.replies(len(requests))
    assert node.reactor.counters.bytes_out - before == sum(reply.header.length for reply in replies)


async def test_bytes_in_flight_are_those_not_answered(node: Node, client: Client, slow_disk: SlowDisk) -> None:
    slow_disk.hold()
    await client.send(transfer_frame(1))
    await slow_disk.busy()
    await client.send(transfer_frame(2, 2) + encode_frame(Operation.LIST_CURRENCIES, 3))
    await until(lambda: node.reactor.bytes_in_flight == 160 + 288 + 32)
    assert (await client.statistics()).bytes_in_flight == 160 + 288 + 32
    slow_disk.release()
    await client.replies(3)
    assert (await client.statistics()).bytes_in_flight == 0


def test_a_list_message_is_what_the_readme_says() -> None:
    assert msgspec.msgpack.decode(encode_message(ListAccounts(3, 4))) == {"cursor": 3, "count": 4}
