"""Claim: nothing is administered that is not written down. Where the audit has no room, or a voter does not know it,
what asks for it is refused, to be asked again, and the node and its clients go on."""

import logging
import secrets
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from bezant.engine.raft.interface import NotYet
from bezant.net.access.guard import Guard
from bezant.net.server.clients import Clients, make_welcome
from bezant.net.server.guarding import Guarding
from bezant.protocol.access import (
    COMMAND_SCOPES,
    OPERATION_RULES,
    ChangeTokens,
    NoteAct,
    Principal,
    Scope,
    Token,
    digest_of,
    token_text,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import StorageError, UsageError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.kinds import CommandKind
from bezant.protocol.messages import ChangeMembers, Currency, decode_control_entry, encode_message
from bezant.protocol.metadata import SetMetadata, SubjectKind
from bezant.protocol.moves import MoveSlots, encode_slots
from bezant.protocol.names import account_id
from bezant.protocol.placement import SLOT_COUNT, ReplaceMap, ShardPlace, SlotMap
from bezant.protocol.records import Records

from ...engine.commands import opening, transfer
from .node import Client, Node

OK, STORAGE_FULL, OVERLOADED = (
    int(code) for code in (ResultCode.COMMITTED, ResultCode.STORAGE_FULL, ResultCode.OVERLOADED)
)
CLUSTER = token_text("c" * 12, secrets.token_urlsafe(32))
OTHER = token_text("o" * 12, secrets.token_urlsafe(32))
ADMIN = Principal("somebody", frozenset({Scope.ADMIN}))
AUDITED = [
    operation
    for operation, rule in OPERATION_RULES.items()
    if rule.audited and operation is not Operation.SET_METADATA  # of which it depends on what is there
]
ADMINISTRATORS_KINDS = [kind for kind, scopes in COMMAND_SCOPES.items() if scopes == {Scope.ADMIN}]
BODIES = {
    Operation.REGISTER_CURRENCY: encode_message(Currency("XTS", 2)),
    Operation.CHANGE_MEMBERS: encode_message(ChangeMembers("remove", 9)),
    Operation.REPLACE_MAP: encode_message(
        ReplaceMap(0, SlotMap(1, np.ones(SLOT_COUNT, np.uint16).tobytes(), [ShardPlace(1, ["127.0.0.1:1"])]))
    ),
    Operation.CHANGE_TOKENS: encode_message(ChangeTokens(Token("o" * 12, digest_of(OTHER), [Scope.ADMIN]))),
    Operation.NOTE_ACT: encode_message(NoteAct("CREATE_WEBHOOK", "wh_1 to a.example:443")),
    Operation.MOVE_SLOTS: encode_message(MoveSlots(bytes(15) + b"m", encode_slots(np.ones(SLOT_COUNT, np.bool_)), 2)),
}


@pytest.fixture
async def admin(node: Node) -> Client:
    """Whoever has the token of the cluster; no other was ever made."""
    guard = Guard(node.replica.ledger.tokens, CLUSTER)
    node.clients = Clients(node.reactor, make_welcome(node.reactor, "test", "digest"), guard=guard)
    return await node.connect(token=CLUSTER)


@pytest.fixture
def full(node: Node, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Has the log find no room for so many entries that it is asked for."""

    def fill(refusals: int) -> None:
        has_room = type(node.replica.log).has_room
        left = [refusals]

        def until_then(log: Any, size: int) -> bool:
            left[0] -= 1
            return left[0] < 0 and has_room(log, size)

        monkeypatch.setattr(type(node.replica.log), "has_room", until_then)

    return fill


def make_unready(node: Node) -> None:
    node.replica.find_unready = lambda version: "node 2 has not said whether it knows this"


def outcomes(node: Node) -> list[tuple[str, str]]:
    """Operation and outcome of every act in the log."""
    entries = [node.replica.log.read_entry(index) for index in range(1, node.replica.log.last_index + 1)]
    told = [decode_control_entry(entry.body).act for entry in entries if entry.header.kind == 2]
    return [(act.operation, act.outcome) for act in told if act is not None]


def administrators(kind: CommandKind) -> Records:
    if kind == CommandKind.OPEN:
        return opening("rich", limit=5)
    made = transfer("ann", "ann", 0)
    made["kind"], made["credit_head"], made["credit_tail"], made["amount"] = int(kind), 0, 0, 0
    return made


@pytest.mark.parametrize("kind", [*ADMINISTRATORS_KINDS, CommandKind.OPEN])
async def test_a_command_that_cannot_be_written_down_for_want_of_room_is_refused(
    node: Node, admin: Client, full: Callable[[int], None], kind: CommandKind
) -> None:
    """Also if there would be room for the command itself, as there is for its neighbour."""
    await admin.execute(opening("ann"))
    assert (await admin.execute(transfer("world", "ann", 5)))["code"].tolist() == [OK]
    full(1)
    frame = np.concatenate([administrators(kind), transfer("ann", "world", 1)])
    assert (await admin.execute(frame))["code"].tolist() == [STORAGE_FULL, OK]
    full(1_000_000)
    assert (await admin.execute(frame))["code"].tolist() == [STORAGE_FULL, STORAGE_FULL]
    assert outcomes(node) == []


@pytest.mark.parametrize("operation", sorted(set(AUDITED) - {Operation.MOVE_SLOTS}))
async def test_a_request_that_cannot_be_written_down_for_want_of_room_is_refused(
    node: Node, admin: Client, full: Callable[[int], None], caplog: pytest.LogCaptureFixture, operation: Operation
) -> None:
    last_index = node.replica.log.last_index
    full(1_000_000)
    for _ in range(2):
        reply = await admin.ask(operation, BODIES[operation])
        assert (reply.error.code, "floor" in reply.error.message) == (FrameError.OVERLOADED, True)
    assert node.replica.log.last_index == last_index
    assert len([record for record in caplog.records if record.levelno == logging.WARNING]) <= 1
    assert (await admin.ask(Operation.PING, b"still there")).body == b"still there"


@pytest.mark.parametrize("operation", AUDITED)
@pytest.mark.parametrize("why", [StorageError("no room"), UsageError("cannot be")])
def test_what_was_asked_for_and_refused_may_find_no_room_to_be_told(
    node: Node, full: Callable[[int], None], operation: Operation, why: Exception
) -> None:
    """Operations that go their own way are refused later, when there may be no room any more."""
    answers: list[bytes | Exception] = []
    guarding = Guarding(node.reactor.member, node.clients.guard, node.reactor.schedule)
    later: list[Callable[[bytes | Exception], None]] = []
    guarding.ask(ADMIN, operation, BODIES[operation], later.append, answers.append)
    full(1_000_000)
    later[0](why)
    assert answers == [why]
    assert outcomes(node) == [(operation.name, "")]
    guarding.ask(ADMIN, operation, BODIES[operation], later.append, answers.append)
    assert len(later) == 1, "it was tried without being written down"
    assert isinstance(answers[1], StorageError)


@pytest.mark.parametrize("kind", [*ADMINISTRATORS_KINDS, CommandKind.OPEN])
async def test_a_command_is_refused_while_a_voter_does_not_know_acts(
    node: Node, admin: Client, kind: CommandKind
) -> None:
    make_unready(node)
    frame = np.concatenate([administrators(kind), opening("poor")])
    assert (await admin.execute(frame))["code"].tolist() == [OVERLOADED, OK]
    assert outcomes(node) == []


@pytest.mark.parametrize("operation", sorted(set(AUDITED) - {Operation.MOVE_SLOTS, Operation.CHANGE_MEMBERS}))
async def test_a_request_is_refused_while_a_voter_does_not_know_acts(
    node: Node, admin: Client, operation: Operation
) -> None:
    make_unready(node)
    last_index = node.replica.log.last_index
    reply = await admin.ask(operation, BODIES[operation])
    assert reply.error.code == FrameError.OVERLOADED
    assert "node 2 has not said" in reply.error.message
    assert node.replica.log.last_index == last_index


async def test_members_are_changed_nevertheless(node: Node, caplog: pytest.LogCaptureFixture) -> None:
    """Or a voter that is lost for good could not be removed. The log has the configuration that comes of it."""
    make_unready(node)
    asked: list[object] = []
    guarding = Guarding(node.reactor.member, node.clients.guard, node.reactor.schedule)
    guarding.ask(ADMIN, Operation.CHANGE_MEMBERS, BODIES[Operation.CHANGE_MEMBERS], asked.append, asked.append)
    assert len(asked) == 1
    assert callable(asked[0])
    assert "node 2 has not said" in caplog.text
    with pytest.raises(NotYet):
        guarding.ask(ADMIN, Operation.MOVE_SLOTS, BODIES[Operation.MOVE_SLOTS], asked.append, asked.append)


async def test_a_voter_that_is_lost_after_the_first_token_is_in_nobodys_way(node: Node, admin: Client) -> None:
    """Every voter has had to know acts by then."""
    reply = await admin.ask(Operation.CHANGE_TOKENS, BODIES[Operation.CHANGE_TOKENS])
    assert reply.operation == Operation.CHANGE_TOKENS
    make_unready(node)
    reply = await admin.ask(Operation.REGISTER_CURRENCY, BODIES[Operation.REGISTER_CURRENCY])
    assert reply.operation == Operation.REGISTER_CURRENCY
    assert outcomes(node) == [("CHANGE_TOKENS", ""), ("REGISTER_CURRENCY", "")]


def acts(node: Node) -> list[str]:
    """What every act in the log says was asked for."""
    entries = [node.replica.log.read_entry(index) for index in range(1, node.replica.log.last_index + 1)]
    told = [decode_control_entry(entry.body).act for entry in entries if entry.header.kind == 2]
    return [act.what for act in told if act is not None]


async def test_who_erases_metadata_is_written_down_and_not_what_it_was(node: Node, admin: Client) -> None:
    await admin.execute(opening("ann"))
    ann = account_id("ann", "EUR")

    async def put(content: bytes) -> Operation:
        asked = encode_message(SetMetadata(int(SubjectKind.ACCOUNT), ann, content))
        return Operation((await admin.ask(Operation.SET_METADATA, asked)).operation)

    assert [await put(content) for content in (b"", b'{"name": "Ann"}')] == [Operation.SET_METADATA] * 2
    assert acts(node) == [], "nothing was erased"
    assert [await put(content) for content in (b'{"name": "Bob"}', b"", b"")] == [Operation.SET_METADATA] * 3
    assert acts(node) == [f"replace the metadata of account {ann.hex()}", f"erase the metadata of account {ann.hex()}"]
    assert await put(b'{"name": "Ann"}') == Operation.SET_METADATA
    make_unready(node)
    last_index = node.replica.log.last_index
    assert await put(b"") == Operation.ERROR
    assert node.replica.log.last_index == last_index, "what cannot be written down is not done"


def test_what_cannot_be_done_yet_and_is_asked_again_and_again_is_written_down_once(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarding = Guarding(node.reactor.member, node.clients.guard, node.reactor.schedule)
    told: list[bytes | Exception] = []
    promote = encode_message(ChangeMembers("promote", 9))

    def ask(outcome: bytes | Exception, body: bytes = promote, principal: Principal = ADMIN) -> None:
        guarding.ask(principal, Operation.CHANGE_MEMBERS, body, lambda respond: respond(outcome), told.append)

    for _ in range(5):
        ask(NotYet("it has not caught up"))
    assert outcomes(node) == [("CHANGE_MEMBERS", ""), ("CHANGE_MEMBERS", "it has not caught up")]
    ask(NotYet("nobody votes"))
    assert outcomes(node)[2:] == [("CHANGE_MEMBERS", "nobody votes")]
    ask(b"done")
    assert len(outcomes(node)) == 3, "it is asked for in the log, and what came of it is"
    assert len(told) == 7
    ask(NotYet("nobody votes"), principal=ADMIN._replace(token_id="another"))
    ask(NotYet("nobody votes"), encode_message(ChangeMembers("promote", 8)), ADMIN._replace(token_id="another"))
    ask(NotYet("nobody votes"), principal=ADMIN._replace(token_id="another"))
    assert len(outcomes(node)) == 9, "others, and others' requests, are acts of their own"
    for _ in range(2):
        ask(UsageError("there is no node 9"))
    assert len(outcomes(node)) == 13, "what is refused for good is not asked for again by itself"
    for _ in range(2):
        ask(NotYet("nobody votes"))
    assert len(outcomes(node)) == 15
    monkeypatch.setattr(guarding, "_repeated_until_s", 0.0)
    ask(NotYet("nobody votes"))
    assert len(outcomes(node)) == 17
