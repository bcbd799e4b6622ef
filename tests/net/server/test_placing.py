"""Claim: a node of one of several shards executes what its slots ask, and says of all else that it is another's."""

import asyncio

import numpy as np
import pytest

from bezant.engine.placement.maps import first_map, with_slots_moved
from bezant.net.server.placing import Placing
from bezant.protocol.codes import ResultCode
from bezant.protocol.frames import FrameError, Operation, encode_frame
from bezant.protocol.kinds import CommandFlag
from bezant.protocol.messages import Currencies, Hello, Welcome, decode_message, encode_message
from bezant.protocol.metadata import SetMetadata, SubjectKind
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import METADATA_SHARD, SLOT_COUNT, ReplaceMap, SlotMap
from bezant.protocol.records import ACCOUNT, Records

from .books import CURRENCY, NAMES, WORLD, opening, transfers
from .node import Client, Node

WRONG = int(ResultCode.WRONG_SHARD)
OURS = account_id(WORLD, CURRENCY)
"""What the transfers of `books` debit."""
MAP = first_map({0: ["a:1"], 1: ["b:1"]})
ALL_OURS = with_slots_moved(MAP, range(SLOT_COUNT), 0)
ALL_THEIRS = with_slots_moved(MAP, range(SLOT_COUNT), 1)


@pytest.fixture
async def placed(node: Node) -> Client:
    """A client of a node of shard 0, which has every slot but that of the account named WORLD."""
    node.reactor.placing = Placing(0, with_slots_moved(ALL_OURS, [slot_of(OURS)], 1))
    client = await node.connect()
    client.is_placed = True
    return client


def ids(*names: str) -> bytes:
    return b"".join(account_id(name, CURRENCY) for name in names)


# ---- commands ----


async def test_commands_of_other_slots_are_refused_and_the_others_executed(node: Node, placed: Client) -> None:
    commands = np.concatenate([opening("carol"), transfers(2, 1), opening("dora"), transfers(1, 50)])
    events = node.reactor.counters.events
    assert (await placed.execute(commands))["code"].tolist() == [0, WRONG, WRONG, 0, WRONG]
    assert node.reactor.counters.events == events + 2


async def test_what_was_refused_is_executed_here_once_the_slot_is(node: Node, placed: Client) -> None:
    commands = transfers(3, 1)
    assert set((await placed.execute(commands))["code"].tolist()) == {WRONG}
    assert node.reactor.placing is not None
    assert node.reactor.placing.take(with_slots_moved(node.reactor.placing.slot_map or MAP, [slot_of(OURS)], 0))
    results = await placed.execute(commands)
    assert results["code"].tolist() == [0, 0, 0]
    assert not results["flags"].any()  # no repeat: the ids were not used


async def test_an_older_map_does_not_count(node: Node, placed: Client) -> None:
    assert node.reactor.placing is not None
    assert not node.reactor.placing.take(ALL_THEIRS)
    assert (await placed.execute(opening("carol")))["code"].tolist() == [0]


async def test_a_chain_with_one_command_of_another_slot_does_not_happen(placed: Client) -> None:
    chain = np.concatenate([opening("carol"), transfers(1, 1), opening("dora")])
    chain["flags"][:2] = CommandFlag.LINKED
    assert (await placed.execute(chain))["code"].tolist() == [WRONG] * 3


async def test_every_slot_is_looked_at(node: Node) -> None:
    """One command for each slot, in a frame for each, and the map says of every third that it is ours."""
    ours = range(0, SLOT_COUNT, 3)
    node.reactor.placing = Placing(0, with_slots_moved(ALL_THEIRS, ours, 0))
    client = await node.connect()
    commands = transfers(SLOT_COUNT, 1)
    heads = np.frombuffer(np.arange(SLOT_COUNT, dtype=">u2").tobytes(), ">u2") << 4
    commands["debit_head"] = heads.astype(">u2").view("<u2").astype(np.int64) | 7 << 40
    codes = (await client.execute(commands))["code"]
    assert np.flatnonzero(codes != WRONG).tolist() == list(ours)
    assert set(codes[codes != WRONG].tolist()) == {int(ResultCode.DEBIT_ACCOUNT_UNKNOWN)}


async def test_a_code_that_keeps_a_command_from_the_ledger_stays(node: Node, placed: Client) -> None:
    """A chain that its frame leaves open is told so, wherever its accounts are."""
    chain = transfers(1, 1)
    chain["flags"] = CommandFlag.LINKED
    assert (await placed.execute(chain))["code"].tolist() == [int(ResultCode.CHAIN_UNTERMINATED)]


async def test_clients_in_the_process_are_told_as_well(node: Node, placed: Client) -> None:
    future: asyncio.Future[Records] = asyncio.get_running_loop().create_future()
    assert node.reactor.submit(transfers(2, 1), future)
    assert (await future)["code"].tolist() == [WRONG, WRONG]


# ---- look-ups ----


async def test_accounts_of_this_shard_are_looked_up(placed: Client) -> None:
    reply = await placed.ask(Operation.LOOKUP_ACCOUNTS, ids("ann", "bob", "nobody"))
    assert np.frombuffer(reply.body, ACCOUNT)["found"].tolist() == [1, 1, 0]
    assert (reply.header.shard, reply.header.map_version) == (0, 3)


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        (Operation.LOOKUP_ACCOUNTS, ids("ann", WORLD, "bob")),
        (Operation.LOOKUP_EVENTS, bytes(16) + ids("ann") + bytes(16) + ids(WORLD)),
        (Operation.SET_METADATA, encode_message(SetMetadata(SubjectKind.ACCOUNT, ids(WORLD), b"{}"))),
    ],
)
async def test_a_request_about_an_account_elsewhere_says_which_map_counts(
    placed: Client, operation: Operation, body: bytes
) -> None:
    reply = await placed.ask(operation, body)
    assert (reply.error.code, reply.error.map_version) == (FrameError.WRONG_SHARD, 3)
    assert f"slot {slot_of(OURS)} is another shard's" in reply.error.message
    assert (reply.header.shard, reply.header.map_version) == (0, 3)
    assert (await placed.ask(Operation.PING, b"on")).body == b"on"


async def test_a_malformed_look_up_is_told_as_ever(placed: Client) -> None:
    for operation in (Operation.LOOKUP_ACCOUNTS, Operation.LOOKUP_EVENTS):
        assert (await placed.ask(operation, bytes(17))).error.code == FrameError.BODY_MALFORMED


# ---- the map ----


async def test_a_node_answers_with_the_map_that_it_goes_by(node: Node, placed: Client) -> None:
    assert node.reactor.placing is not None
    found = decode_message((await placed.ask(Operation.MAP)).body, SlotMap)
    assert found == node.reactor.placing.slot_map
    later = with_slots_moved(found, [1, 2], 1)
    node.reactor.placing.take(later)
    assert decode_message((await placed.ask(Operation.MAP)).body, SlotMap) == later
    assert (await placed.ask(Operation.MAP, b"x")).error.code == FrameError.BODY_MALFORMED
    assert (await node.connect()) is not None


async def test_the_welcome_says_by_which_map_a_node_goes(node: Node, placed: Client) -> None:
    client = await node.connect(greet=False)
    await client.send(encode_frame(Operation.HELLO, 1, encode_message(Hello("test", 1))))
    reply = await client.reply()  # a client that is not placed checks that the header says nothing
    assert decode_message(reply.body, Welcome).map_version == 3


@pytest.mark.parametrize(("shard", "is_meant"), [(0, True), (1, False), (65535, False)])
async def test_a_frame_that_means_another_shard_is_refused(placed: Client, shard: int, is_meant: bool) -> None:
    await placed.send(encode_frame(Operation.LIST_CURRENCIES, 5, shard=shard, map_version=9))
    reply = await placed.reply()
    if is_meant:
        assert decode_message(reply.body, Currencies).currencies
    else:
        assert (reply.error.code, reply.error.map_version) == (FrameError.WRONG_SHARD, 3)
        assert reply.error.message.startswith(f"the frame means shard {shard}")


async def test_a_shard_that_was_meant_by_no_map_means_nothing(placed: Client) -> None:
    await placed.send(encode_frame(Operation.PING, 5, b"x", shard=1))
    assert (await placed.reply()).body == b"x"


async def test_a_map_is_not_replaced_here(placed: Client) -> None:
    refused = (await placed.ask(Operation.REPLACE_MAP, encode_message(ReplaceMap(0, MAP)))).error
    assert (refused.code, refused.message) == (
        FrameError.REQUEST_REFUSED,
        "this group keeps no slot map: ask the metadata group",
    )


async def test_a_group_that_is_the_only_one_has_no_map(client: Client) -> None:
    refused = (await client.ask(Operation.MAP)).error
    assert (refused.code, refused.map_version) == (FrameError.REQUEST_REFUSED, 0)
    assert (await client.execute(transfers(1, 1)))["code"].tolist() == [0]


# ---- a metadata group ----


async def test_a_metadata_group_serves_no_accounts(node: Node) -> None:
    node.reactor.placing = Placing(METADATA_SHARD)
    client = await node.connect()
    assert set((await client.execute(transfers(3, 1)))["code"].tolist()) == {WRONG}
    refused = (await client.ask(Operation.LOOKUP_ACCOUNTS, ids(*NAMES))).error
    assert (refused.code, refused.message) == (
        FrameError.WRONG_SHARD,
        "this node keeps the slot map, and serves no accounts",
    )
