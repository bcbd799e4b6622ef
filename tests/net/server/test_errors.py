"""Claim: a bad frame gets the error that the specification names, and does to the connection what that says.

What came before it is answered, and answered first where the connection ends. What comes behind it is executed where
the connection goes on, and never where it ends.
"""

from typing import NamedTuple

import msgspec
import pytest

from bezant.net.server import reactor as reactor_module
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import CorruptLog, LedgerError, StorageError
from bezant.protocol.frames import (
    ACCOUNT_COUNT_MAX,
    CLOSES_CONNECTION,
    EVENT_COUNT_MAX,
    FRAME_SIZE_MAX,
    FrameError,
    Operation,
    encode_frame,
    frame_checksum,
)
from bezant.protocol.messages import Currency, ListAccounts, encode_message
from bezant.protocol.records import COMMAND_SIZE, EVENT_QUERY_SIZE

from .books import COMMITTED, transfer_frame
from .node import Client, Node, until

BAD_ID = 50
GOOD_BEFORE = (1, 2)
GOOD_BEHIND = 90


def sealed(frame: bytes, offset: int, value: bytes) -> bytes:
    """A frame with some bytes replaced and the checksum made right again."""
    changed = bytearray(frame)
    changed[offset : offset + len(value)] = value
    changed[:8] = frame_checksum(changed).to_bytes(8, "little")
    return bytes(changed)


def damaged(frame: bytes, offset: int) -> bytes:
    """A frame with one bit turned over."""
    changed = bytearray(frame)
    changed[offset] ^= 0x10
    return bytes(changed)


def request(operation: int, body: bytes = b"", **fields: int) -> bytes:
    return encode_frame(operation, BAD_ID, body, **fields)


class Case(NamedTuple):
    name: str
    frame: bytes
    code: FrameError
    request_id: int = BAD_ID


ONE = transfer_frame(BAD_ID)
LONG = transfer_frame(BAD_ID, 40)
CASES = [
    Case("checksum", damaged(ONE, 0), FrameError.CHECKSUM_WRONG, 0),
    Case("a bit of the body", damaged(ONE, 100), FrameError.CHECKSUM_WRONG, 0),
    Case("a bit of a long body", damaged(LONG, 3000), FrameError.CHECKSUM_WRONG, 0),
    Case("a bit of the request id", damaged(ONE, 17), FrameError.CHECKSUM_WRONG, 0),
    Case("a bit of another operation", damaged(request(Operation.PING, b"x"), 32), FrameError.CHECKSUM_WRONG, 0),
    Case("length 0", sealed(ONE, 8, bytes(4)), FrameError.LENGTH_INVALID, 0),
    Case("length 31", sealed(ONE, 8, (31).to_bytes(4, "little")), FrameError.LENGTH_INVALID, 0),
    Case("too long", sealed(ONE, 8, (FRAME_SIZE_MAX + 1).to_bytes(4, "little")), FrameError.LENGTH_INVALID, 0),
    Case("length 4 GiB", sealed(ONE, 8, b"\xff" * 4), FrameError.LENGTH_INVALID, 0),
    Case("version 0", sealed(ONE, 13, b"\0"), FrameError.VERSION_UNSUPPORTED, 0),
    Case("version 2", sealed(ONE, 13, b"\2"), FrameError.VERSION_UNSUPPORTED, 0),
    Case("operation 0", request(0), FrameError.OPERATION_UNKNOWN),
    Case("operation 31", request(31, b"x"), FrameError.OPERATION_UNKNOWN),
    Case("operation ERROR", request(Operation.ERROR), FrameError.OPERATION_UNKNOWN),
    Case("REPLY of a client", sealed(ONE, 14, b"\1"), FrameError.BODY_MALFORMED),
    Case("a flag to come", request(Operation.PING, b"x", flags=0x8000), FrameError.BODY_MALFORMED),
    Case("no command", request(Operation.COMMANDS), FrameError.BODY_MALFORMED),
    Case("less than a command", request(Operation.COMMANDS, bytes(COMMAND_SIZE - 1)), FrameError.BODY_MALFORMED),
    Case("more than a command", request(Operation.COMMANDS, bytes(COMMAND_SIZE + 1)), FrameError.BODY_MALFORMED),
    Case("half an account id", request(Operation.LOOKUP_ACCOUNTS, bytes(8)), FrameError.BODY_MALFORMED),
    Case(
        "too many accounts",
        request(Operation.LOOKUP_ACCOUNTS, bytes(16 * (ACCOUNT_COUNT_MAX + 1))),
        FrameError.BODY_MALFORMED,
    ),
    Case("half an event query", request(Operation.LOOKUP_EVENTS, bytes(16)), FrameError.BODY_MALFORMED),
    Case(
        "too many events",
        request(Operation.LOOKUP_EVENTS, bytes(EVENT_QUERY_SIZE * (EVENT_COUNT_MAX + 1))),
        FrameError.BODY_MALFORMED,
    ),
    Case("a list of nothing", request(Operation.LIST_ACCOUNTS), FrameError.BODY_MALFORMED),
    Case(
        "a list from before the start",
        request(Operation.LIST_ACCOUNTS, encode_message(ListAccounts(-1, 1))),
        FrameError.BODY_MALFORMED,
    ),
    Case(
        "a list of less than nothing",
        request(Operation.LIST_ACCOUNTS, encode_message(ListAccounts(0, -1))),
        FrameError.BODY_MALFORMED,
    ),
    Case("a list of words", request(Operation.LIST_ACCOUNTS, msgspec.msgpack.encode(["a"])), FrameError.BODY_MALFORMED),
    Case("currencies of something", request(Operation.LIST_CURRENCIES, b"\x80"), FrameError.BODY_MALFORMED),
    Case("statistics of something", request(Operation.STATISTICS, b"\x80"), FrameError.BODY_MALFORMED),
    Case("a currency without decimals", request(Operation.REGISTER_CURRENCY, b"\x80"), FrameError.BODY_MALFORMED),
    Case("deep nesting", request(Operation.REGISTER_CURRENCY, b"\x91" * 100_000), FrameError.BODY_MALFORMED),
    Case(
        "a currency that no code names",
        request(Operation.REGISTER_CURRENCY, encode_message(Currency("eur", 2))),
        FrameError.REQUEST_REFUSED,
    ),
    Case(
        "other decimals",
        request(Operation.REGISTER_CURRENCY, encode_message(Currency("EUR", 3))),
        FrameError.REQUEST_REFUSED,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_bad_frame_between_good_ones(node: Node, client: Client, case: Case) -> None:
    good = [transfer_frame(number) for number in GOOD_BEFORE]
    behind = transfer_frame(GOOD_BEHIND)
    await client.send(*good, case.frame, behind)
    closes = case.code in CLOSES_CONNECTION
    replies = await client.rest() if closes else await client.replies(4)
    [refusal] = [reply for reply in replies if reply.operation == Operation.ERROR]
    assert (refusal.request_id, refusal.error.code) == (case.request_id, case.code)
    assert refusal.error.message
    answered = {reply.request_id: reply.codes for reply in replies if reply is not refusal}
    assert answered == {number: [COMMITTED] for number in (GOOD_BEFORE if closes else (*GOOD_BEFORE, GOOD_BEHIND))}
    if closes:
        assert replies[-1] is refusal
        other = await node.connect()
        await other.send(behind)
        assert not (await other.reply()).results["flags"].any()


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
async def test_a_bad_frame_alone(client: Client, case: Case) -> None:
    await client.send(case.frame)
    refusal = await client.reply()
    assert (refusal.request_id, refusal.error.code) == (case.request_id, case.code)
    if case.code in CLOSES_CONNECTION:
        assert await client.rest() == []
    else:
        assert (await client.ask(Operation.PING, b"on")).body == b"on"


async def test_the_last_error_is_not_lost_to_what_the_client_still_sends(client: Client) -> None:
    """Closed at once, a socket with unread bytes resets the connection, and the reset overtakes the error."""
    await client.send(transfer_frame(1), damaged(ONE, 0), bytes(12 << 20))
    replies = await client.rest()
    assert [reply.operation for reply in replies] == [Operation.COMMANDS, Operation.ERROR]


async def test_the_last_error_waits_for_results_that_are_not_durable_yet(client: Client, slow_disk) -> None:
    slow_disk.hold()
    await client.send(transfer_frame(1))
    await slow_disk.busy()
    await client.send(transfer_frame(2), damaged(ONE, 0))
    slow_disk.release()
    assert [(reply.operation, reply.request_id) for reply in await client.rest()] == [(3, 1), (3, 2), (255, 0)]


async def test_a_client_that_stays_after_the_last_error_is_put_out(node: Node, client: Client, limits) -> None:
    limits(WRITE_STALL_S_MAX=0.05)
    await client.send(damaged(ONE, 0))
    await until(lambda: node.reactor.counters.connections == 0)


@pytest.mark.parametrize("cut", [40, 4000, 70_000])
async def test_damage_in_a_large_frame_that_comes_in_pieces(node: Node, client: Client, cut: int) -> None:
    frame = damaged(transfer_frame(BAD_ID, 1000), 90_000)
    received = node.reactor.counters.bytes_in + cut
    await client.send(frame[:cut])
    await until(lambda: node.reactor.counters.bytes_in == received)
    await client.send(frame[cut:])
    [refusal] = await client.rest()
    assert (refusal.request_id, refusal.error.code) == (0, FrameError.CHECKSUM_WRONG)


async def test_an_error_repeats_only_so_much_of_what_was_sent(client: Client) -> None:
    """A refusal that quoted all of this would not fit in a frame."""
    body = encode_message(Currency("\x01" * 300_000, 2))
    refusal = await client.ask(Operation.REGISTER_CURRENCY, body)
    assert refusal.error.code == FrameError.REQUEST_REFUSED
    assert 20 < len(refusal.error.message) <= 400


@pytest.mark.parametrize("decimals", [-1, 19, 1 << 63, -(1 << 63)])
async def test_decimals_that_no_currency_has(client: Client, decimals: int) -> None:
    refusal = await client.ask(Operation.REGISTER_CURRENCY, encode_message(Currency("NEW", decimals)))
    assert refusal.error.code == FrameError.REQUEST_REFUSED


async def test_the_disk_has_no_room(node: Node, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node.replica.log, "has_room", lambda size: False)
    refusal = await client.ask(Operation.REGISTER_CURRENCY, encode_message(Currency("NEW", 2)))
    assert refusal.error.code == FrameError.OVERLOADED
    await client.send(transfer_frame(1))
    assert (await client.reply()).codes == [ResultCode.STORAGE_FULL]
    monkeypatch.undo()
    await client.send(transfer_frame(1))
    assert (await client.reply()).codes == [COMMITTED]


@pytest.mark.parametrize("error", [LedgerError("no"), CorruptLog("no"), ValueError("no")], ids=type)
async def test_a_bug_met_in_a_request_is_not_the_client_s_fault(
    node: Node, client: Client, bugs: list[BaseException], monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It ends the process (here: is written down) and is not told to anybody as an answer."""

    def fail(*_: object) -> bytes:
        raise error

    monkeypatch.setattr(reactor_module, "answer_request", fail)
    await client.send(encode_frame(Operation.LIST_CURRENCIES, 1))
    await until(lambda: bugs == [error])
    bugs.clear()
    await node.abandon()


async def test_a_full_disk_met_in_a_request_is_overload(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise StorageError("the disk is full")

    monkeypatch.setattr(reactor_module, "answer_request", fail)
    refusal = await client.ask(Operation.LIST_CURRENCIES)
    assert (refusal.error.code, refusal.error.message) == (FrameError.OVERLOADED, "the disk is full")
