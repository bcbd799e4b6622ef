"""Claim: an operator's question finds a node that can answer it, whichever nodes lead, sleep or are gone."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from bezant.net.client import members
from bezant.net.client.members import ask_node, change_members, read_members
from bezant.protocol.errors import (
    BezantError,
    ConnectionFailed,
    RemoteProtocolError,
    RequestRefused,
    RequestTimedOut,
    UsageError,
)
from bezant.protocol.frames import FrameError, FrameFlag, FrameReader, Operation, encode_frame
from bezant.protocol.messages import (
    ChangeMembers,
    Configuration,
    ErrorMessage,
    Member,
    MembersChanged,
    MembersStatus,
    MemberStatus,
    Welcome,
    decode_message,
    encode_message,
)

LONG_S = 20.0
WELCOME = Welcome("fake", 1, "00", 0, 1, "d", 1 << 20, 8191, 8 << 20, 1)
CHANGE = ChangeMembers("promote", 3)
CHANGED = MembersChanged(1, 2, 3, Configuration([Member(1, 1, "a:1", "a:2")], [1]))

Reply = bytes | ErrorMessage | None
"""The body of a reply, an error, or no answer but the end of the connection."""


class FakeNode:
    """Answers HELLO, and everything else with the next of its replies, the last one again and again."""

    def __init__(self) -> None:
        self.address = ""
        self.replies: list[Reply] = []
        self.asked: list[tuple[Operation, bytes]] = []
        self.is_silent = False

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return server

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        frames = FrameReader()
        try:
            while data := await reader.read(4096):
                for header, body in frames.feed(data):
                    self._answer(writer, header.operation, header.request_id, bytes(body))
        except ConnectionError:
            pass
        finally:
            writer.close()

    def _answer(self, writer: asyncio.StreamWriter, operation: int, request_id: int, body: bytes) -> None:
        if operation == Operation.HELLO:
            writer.write(encode_frame(operation, request_id, encode_message(WELCOME), flags=FrameFlag.REPLY))
            return
        self.asked.append((Operation(operation), body))
        if self.is_silent:
            return
        reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if reply is None:
            writer.close()
        elif isinstance(reply, ErrorMessage):
            writer.write(encode_frame(Operation.ERROR, request_id, encode_message(reply), flags=FrameFlag.REPLY))
        else:
            writer.write(encode_frame(operation, request_id, reply, flags=FrameFlag.REPLY))


MakeNode = Callable[..., Awaitable[FakeNode]]


@pytest.fixture
async def start() -> AsyncIterator[MakeNode]:
    """Starts a fake node with these replies."""
    servers: list[asyncio.Server] = []

    async def make(*replies: Reply) -> FakeNode:
        node = FakeNode()
        node.replies = list(replies)
        servers.append(await node.start())
        return node

    yield make
    for server in servers:
        server.close()
        await server.wait_closed()


def refusal(code: FrameError, leader: str = "") -> ErrorMessage:
    return ErrorMessage(code, code.name.lower(), leader)


def status(node_id: int, leader: int, addresses: list[str]) -> MembersStatus:
    rows = [
        MemberStatus(number, number, "p", address, "unknown", "voter") for number, address in enumerate(addresses, 1)
    ]
    return MembersStatus(node_id, leader, 1, 1, rows)


# ---- one question ----


async def test_a_node_answers_one_question(start: MakeNode) -> None:
    node = await start(b"body")
    assert await ask_node(node.address, Operation.PING, b"what", LONG_S) == b"body"
    assert node.asked == [(Operation.PING, b"what")]


@pytest.mark.parametrize(
    ("reply", "kind", "why"),
    [
        (refusal(FrameError.REQUEST_REFUSED), RequestRefused, "request_refused"),
        (None, ConnectionFailed, "closed the connection"),
    ],
)
async def test_what_goes_wrong_is_raised(start: MakeNode, reply: Reply, kind: type[BezantError], why: str) -> None:
    node = await start(reply)
    with pytest.raises(kind, match=why):
        await ask_node(node.address, Operation.MEMBERS, b"", LONG_S)


async def test_a_node_that_is_silent_or_not_there_is_told(start: MakeNode) -> None:
    node = await start(b"")
    node.is_silent = True
    with pytest.raises(RequestTimedOut, match=r"did not answer within 0.05 s"):
        await ask_node(node.address, Operation.MEMBERS, b"", 0.05)
    with pytest.raises(ConnectionFailed, match=r"127.0.0.1:1 cannot be reached"):
        await ask_node("127.0.0.1:1", Operation.MEMBERS, b"", LONG_S)
    with pytest.raises(UsageError, match="an address is written like"):
        await ask_node("nowhere", Operation.MEMBERS, b"", LONG_S)


async def test_an_answer_that_is_none_is_the_peers_fault(start: MakeNode) -> None:
    node = await start(b"\xc1")
    with pytest.raises(RemoteProtocolError, match="not a MembersStatus"):
        await read_members([node.address], LONG_S)


# ---- how the group is ----


async def test_the_leader_is_asked_by_way_of_another(start: MakeNode) -> None:
    leader = await start()
    follower = await start()
    addresses = [leader.address, follower.address]
    leader.replies = [encode_message(status(1, 1, addresses))]
    follower.replies = [encode_message(status(2, 1, addresses))]
    assert (await read_members([follower.address], LONG_S)).node_id == 1
    assert (await read_members(addresses, LONG_S)).node_id == 1
    assert len(follower.asked) == 1


async def test_a_follower_speaks_for_a_leader_that_is_gone(start: MakeNode) -> None:
    follower = await start()
    follower.replies = [encode_message(status(2, 1, ["127.0.0.1:1", follower.address]))]
    assert (await read_members(["127.0.0.1:1", follower.address], LONG_S)).node_id == 2


async def test_a_group_without_leader_answers_too(start: MakeNode) -> None:
    node = await start()
    node.replies = [encode_message(status(1, 0, [node.address]))]
    assert (await read_members([node.address], LONG_S)).leader == 0


async def test_a_node_that_knows_of_no_leader_does_not_speak_for_those_that_do(start: MakeNode) -> None:
    """It may have been put out of the group."""
    outside, leader = await start(), await start()
    outside.replies = [encode_message(status(3, 0, [leader.address]))]
    leader.replies = [encode_message(status(1, 1, [leader.address]))]
    assert (await read_members([outside.address, leader.address], LONG_S)).node_id == 1
    assert (await read_members([outside.address, "127.0.0.1:1"], LONG_S)).node_id == 3


async def test_a_silent_node_does_not_use_up_the_time_of_the_others(start: MakeNode, monkeypatch) -> None:
    monkeypatch.setattr(members, "NODE_TIMEOUT_S", 0.5)
    silent, node = await start(b""), await start()
    silent.is_silent = True
    node.replies = [encode_message(status(2, 0, []))]
    assert (await read_members([silent.address, node.address], LONG_S)).node_id == 2


async def test_no_node_at_all_is_told(start: MakeNode) -> None:
    with pytest.raises(ConnectionFailed, match=r"127.0.0.1:1 cannot be reached"):
        await read_members(["127.0.0.1:1"], LONG_S)


# ---- changes ----


async def test_a_change_goes_to_the_leader_that_is_named(start: MakeNode) -> None:
    leader = await start(encode_message(CHANGED))
    follower = await start(refusal(FrameError.NOT_LEADER, leader.address))
    assert await change_members([follower.address], CHANGE, LONG_S) == CHANGED
    assert [decode_message(body, ChangeMembers) for _, body in leader.asked] == [CHANGE]


@pytest.mark.parametrize("code", [FrameError.NOT_LEADER, FrameError.OUTCOME_UNKNOWN, FrameError.OVERLOADED])
async def test_a_change_is_asked_again_until_somebody_leads(start: MakeNode, monkeypatch, code: FrameError) -> None:
    monkeypatch.setattr(members, "ROUND_PAUSE_S", 0.001)
    node = await start(refusal(code), None, refusal(code), encode_message(CHANGED))
    assert await change_members(["127.0.0.1:1", node.address], CHANGE, LONG_S) == CHANGED
    assert len(node.asked) == 4


async def test_what_cannot_be_done_yet_is_told_when_the_time_is_over(start: MakeNode, monkeypatch) -> None:
    monkeypatch.setattr(members, "ROUND_PAUSE_S", 0.001)
    leader = await start(refusal(FrameError.OVERLOADED))
    follower = await start(refusal(FrameError.NOT_LEADER, leader.address))
    with pytest.raises(RequestRefused, match="overloaded"):
        await change_members([leader.address, follower.address], CHANGE, 0.2)
    assert len(leader.asked) > 1


async def test_nodes_that_name_each_other_are_asked_until_the_time_is_over(start: MakeNode, monkeypatch) -> None:
    monkeypatch.setattr(members, "ROUND_PAUSE_S", 0.001)
    one, two = await start(), await start()
    one.replies = [refusal(FrameError.NOT_LEADER, two.address)]
    two.replies = [refusal(FrameError.NOT_LEADER, one.address)]
    with pytest.raises(RequestTimedOut, match=r"no leader answered within 0.2 s; the last that was heard: "):
        await change_members([one.address], CHANGE, 0.2)
    assert len(one.asked) > 1
    assert len(two.asked) > 1


async def test_what_the_leader_refuses_is_not_asked_again(start: MakeNode) -> None:
    node = await start(refusal(FrameError.REQUEST_REFUSED))
    with pytest.raises(RequestRefused, match="request_refused"):
        await change_members([node.address, "127.0.0.1:1"], CHANGE, LONG_S)
    assert len(node.asked) == 1


async def test_a_change_without_answer_is_told_as_such(start: MakeNode) -> None:
    node = await start(b"")
    node.is_silent = True
    with pytest.raises(RequestTimedOut, match=r"the last that was heard: the node at .* did not answer within"):
        await change_members([node.address], CHANGE, 0.05)


async def test_a_leader_that_hangs_is_left_for_the_next(start: MakeNode, monkeypatch) -> None:
    monkeypatch.setattr(members, "CHANGE_TIMEOUT_S", 0.05)
    hanging, leader = await start(b""), await start(encode_message(CHANGED))
    hanging.is_silent = True
    assert await change_members([hanging.address, leader.address], CHANGE, LONG_S) == CHANGED
