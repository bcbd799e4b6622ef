"""Claim: nobody gets in, and nothing is executed, that a token does not let in or do; a revoked one counts no more at
once; what is administered stands in the log with who asked for it; and no token is ever repeated by the node."""

import itertools
import logging
import secrets

import msgspec
import numpy as np
import pytest

from bezant.net.access.guard import Guard
from bezant.net.server.batch import Request
from bezant.net.server.clients import Clients, make_welcome
from bezant.net.server.guarding import Guarding
from bezant.net.server.placing import Placing
from bezant.net.server.requests import AMONG_COMMANDS
from bezant.protocol.access import (
    COMMAND_SCOPES,
    OPERATION_RULES,
    ChangeTokens,
    NoteAct,
    Principal,
    Scope,
    Token,
    Tokens,
    command_refusal,
    digest_of,
    token_text,
)
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import UsageError
from bezant.protocol.frames import FrameError, Operation, encode_frame
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.messages import (
    ChangeMembers,
    Configuration,
    Currency,
    ListAccounts,
    Member,
    decode_control_entry,
    decode_message,
    encode_message,
)
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.placement import METADATA_SHARD
from bezant.protocol.records import COMMAND, EVENT, EVENT_ANSWER, EVENT_QUERY, Records

from ...engine.commands import opening, transfer
from .node import Client, Node, hello

SCOPE_SETS = [frozenset(chosen) for size in range(5) for chosen in itertools.combinations(Scope, size)]
OK, FORBIDDEN = int(ResultCode.COMMITTED), int(ResultCode.FORBIDDEN)
_numbers = itertools.count(1)


def new_token(*scopes: Scope, prefixes: tuple[str, ...] = ()) -> tuple[str, Token]:
    """The text of a token, and what is kept of it."""
    text = token_text(f"{next(_numbers):012d}", secrets.token_urlsafe(32))
    return text, Token(text.split("_")[1], digest_of(text), list(scopes), list(prefixes))


async def change(client: Client, **asked: object) -> Tokens:
    reply = await client.ask(Operation.CHANGE_TOKENS, encode_message(ChangeTokens(**asked)))  # type: ignore[arg-type]
    return decode_message(reply.body, Tokens)


@pytest.fixture
async def admin(node: Node) -> Client:
    """Whoever has made the first token, and may do everything."""
    text, token = new_token(*Scope)
    first = await node.connect()
    await change(first, create=token)
    (goodbye,) = await first.rest()
    assert goodbye.error.code == FrameError.UNAUTHENTICATED
    client = await node.connect(token=text)
    assert (await client.execute(opening("shop:a"), 1))["code"].tolist() == [OK]
    assert (await client.execute(transfer("world", "shop:a", 100), 1))["code"].tolist() == [OK]
    return client


async def with_token(node: Node, admin: Client, *scopes: Scope, prefixes: tuple[str, ...] = ()) -> Client:
    text, token = new_token(*scopes, prefixes=prefixes)
    await change(admin, create=token)
    return await node.connect(token=text)


def acts(node: Node) -> list[tuple[str, str, str, str]]:
    """What the log says of who asked for what."""
    told = []
    for index in range(1, node.replica.log.last_index + 1):
        entry = node.replica.log.read_entry(index)
        act = decode_control_entry(entry.body).act if entry.header.kind == 2 else None
        if act is not None:
            told.append((act.token_id, act.operation, act.what, act.outcome))
    return told


# ---- getting in ----


@pytest.mark.parametrize("token", ["", "nonsense", "bezant_000000000000_" + "x" * 43], ids=["none", "bad", "unknown"])
async def test_who_has_no_token_is_not_let_in(node: Node, admin: Client, token: str) -> None:
    client = await node.connect(greet=False)
    await client.send(hello(token), encode_frame(Operation.COMMANDS, 9, transfer("shop:a", "ann", 1).tobytes()))
    (told,) = await client.rest()
    assert told.error.code == FrameError.UNAUTHENTICATED
    assert token not in told.error.message or not token
    assert node.replica.ledger.lookup_accounts(ids_of("ann"))["balance"].tolist() == [0]


async def test_a_secret_that_is_off_by_one_character_lets_nobody_in(node: Node, admin: Client) -> None:
    text, token = new_token(Scope.READ)
    await change(admin, create=token)
    wrong = text[:-1] + ("a" if text[-1] != "a" else "b")
    client = await node.connect(greet=False)
    await client.send(hello(wrong))
    (told,) = await client.rest()
    assert told.error.code == FrameError.UNAUTHENTICATED
    assert (await (await node.connect(token=text)).ask(Operation.LIST_CURRENCIES)).operation != Operation.ERROR


async def test_a_node_that_nobody_gave_a_token_lets_everybody_in(node: Node) -> None:
    text, _ = new_token(Scope.READ)
    for shown in ("", text, "nonsense"):
        client = await node.connect(token=shown)
        assert (await client.ask(Operation.STATISTICS)).operation == Operation.STATISTICS


async def test_a_cluster_token_lets_in_and_keeps_all_others_out(node: Node) -> None:
    text, _ = new_token(Scope.READ)
    guard = Guard(node.replica.ledger.tokens, text)
    node.clients = Clients(node.reactor, make_welcome(node.reactor, "test", "digest"), guard=guard)
    stranger = await node.connect(greet=False)
    await stranger.send(hello(""))
    assert (await stranger.rest())[0].error.code == FrameError.UNAUTHENTICATED
    client = await node.connect(token=text)
    _, reading = new_token(Scope.READ)
    await change(client, create=reading)  # the first need not administer: the cluster's own does
    assert ("cluster", "CHANGE_TOKENS") in [(who, operation) for who, operation, _, _ in acts(node)]


# ---- scopes ----


def body_for(operation: Operation) -> bytes:
    bodies = {
        Operation.LIST_ACCOUNTS: encode_message(ListAccounts(0, 1)),
        Operation.REGISTER_CURRENCY: encode_message(Currency("XTS", 2)),
        Operation.CHANGE_MEMBERS: encode_message(ChangeMembers("remove", 9)),
    }
    return bodies.get(operation, b"")


@pytest.mark.parametrize("operation", sorted(set(Operation) - {Operation.COMMANDS, Operation.HELLO}))
@pytest.mark.parametrize("scope", Scope)
async def test_every_operation_is_refused_to_a_token_without_its_scope(
    node: Node, admin: Client, operation: Operation, scope: Scope
) -> None:
    last_index = node.replica.log.last_index
    client = await with_token(node, admin, scope)
    reply = await client.ask(operation, body_for(operation))
    is_forbidden = reply.operation == Operation.ERROR and reply.error.code == FrameError.FORBIDDEN
    assert is_forbidden == (scope not in OPERATION_RULES[operation].scopes)
    if is_forbidden:
        assert node.replica.log.last_index == last_index + 2  # the making of the token, and its act
        assert (await client.ask(Operation.PING, b"still there")).body == b"still there"


@pytest.mark.parametrize("scopes", SCOPE_SETS, ids=lambda scopes: "+".join(sorted(scopes)) or "none")
async def test_commands_are_refused_as_the_table_says(node: Node, scopes: frozenset[Scope]) -> None:
    """Every kind, known or not, with and without each flag that matters, with and without a limit."""
    guarding = Guarding(node.reactor.member, node.clients.guard, node.reactor.schedule)
    rows = list(itertools.product([*CommandKind, 0, 13, 63, 64, 200, -1], (0, 1, 2, 3), (0, 5)))
    commands = np.zeros(len(rows), COMMAND)
    commands["kind"], commands["flags"], commands["amount"] = np.array(rows).T
    principal = Principal("one", scopes)
    expected = [bool(command_refusal(principal, kind, flags, limit)) for kind, flags, limit in rows]
    assert guarding.refused_commands(principal, commands, {}).tolist() == expected
    if principal.may_command_all:
        clients = {int(kind) for kind, takes in COMMAND_SCOPES.items() if takes}
        assert not any(refused for refused, (kind, _, _) in zip(expected, rows, strict=True) if kind in clients)


async def test_a_command_outside_its_scope_is_refused_and_its_neighbours_are_not(node: Node, admin: Client) -> None:
    client = await with_token(node, admin, Scope.TRANSFER)
    frame = np.concatenate(
        [transfer("shop:a", "ann", 1), command(CommandKind.FREEZE, "ann"), transfer("shop:a", "ann", 2)]
    )
    assert (await client.execute(frame))["code"].tolist() == [OK, FORBIDDEN, OK]
    assert (await client.execute(opening("rich", limit=5)))["code"].tolist() == [FORBIDDEN]
    assert (await client.execute(opening("poor")))["code"].tolist() == [OK]
    reader = await with_token(node, admin, Scope.READ)
    assert (await reader.execute(transfer("shop:a", "ann", 1)))["code"].tolist() == [FORBIDDEN]
    assert (await reader.ask(Operation.LOOKUP_ACCOUNTS, account_id("ann", "EUR"))).operation != Operation.ERROR
    assert node.replica.ledger.lookup_accounts(ids_of("ann"))["balance"].tolist() == [3]


async def test_of_a_chain_with_a_command_outside_its_scope_nothing_is_executed(node: Node, admin: Client) -> None:
    client = await with_token(node, admin, Scope.TRANSFER)
    frame = np.concatenate([transfer("shop:a", "ann", 1), command(CommandKind.FREEZE, "ann")])
    frame["flags"][0] = int(CommandFlag.LINKED)
    assert (await client.execute(frame))["code"].tolist() == [FORBIDDEN, FORBIDDEN]
    assert node.replica.ledger.lookup_accounts(ids_of("ann"))["balance"].tolist() == [0]


# ---- prefixes ----


async def test_only_accounts_with_the_prefix_pay(node: Node, admin: Client) -> None:
    client = await with_token(node, admin, Scope.TRANSFER, Scope.READ, prefixes=("shop:",))
    frame = np.concatenate(
        [
            transfer("shop:a", "ann", 1),  # money may go to anybody
            transfer("ann", "shop:a", 1),
            transfer("nobody", "ann", 1),
            opening("shop:c"),
            opening("bob"),
            transfer("shop:c", "ann", 1),  # opened by the same frame: it is known, and has nothing
        ]
    )
    insufficient = int(ResultCode.INSUFFICIENT_FUNDS)
    assert (await client.execute(frame))["code"].tolist() == [OK, FORBIDDEN, FORBIDDEN, OK, FORBIDDEN, insufficient]


async def test_an_open_does_not_claim_the_account_of_another(node: Node, admin: Client) -> None:
    """An OPEN whose id is another account's does not make that one the token's, in this frame or later."""
    client = await with_token(node, admin, Scope.TRANSFER, prefixes=("shop:",))
    false = opening("shop:x")
    for field in ("debit_head", "debit_tail"):
        false[field] = opening("world")[field]
    frame = np.concatenate([false, transfer("world", "shop:a", 5)])
    assert (await client.execute(frame))["code"].tolist() == [FORBIDDEN, FORBIDDEN]
    assert (await client.execute(transfer("world", "shop:a", 5)))["code"].tolist() == [FORBIDDEN]


async def test_only_accounts_with_the_prefix_are_told_of(node: Node, admin: Client) -> None:
    client = await with_token(node, admin, Scope.READ, prefixes=("shop:",))
    own, others = account_id("shop:a", "EUR"), account_id("ann", "EUR")
    assert (await client.ask(Operation.LOOKUP_ACCOUNTS, own)).operation == Operation.LOOKUP_ACCOUNTS
    for asked in (others, own + others, account_id("nobody", "EUR")):
        assert (await client.ask(Operation.LOOKUP_ACCOUNTS, asked)).error.code == FrameError.FORBIDDEN
    assert (await client.ask(Operation.LOOKUP_EVENTS, bytes(16) + own)).operation == Operation.LOOKUP_EVENTS
    assert (await client.ask(Operation.LOOKUP_EVENTS, bytes(16) + others)).error.code == FrameError.FORBIDDEN
    everything = encode_message(ListAccounts(0, 10))
    assert (await client.ask(Operation.LIST_ACCOUNTS, everything)).error.code == FrameError.FORBIDDEN


async def test_nobody_reads_the_balance_of_another_out_of_what_became_of_a_transfer(node: Node, admin: Client) -> None:
    """Committed, refused, sent again, looked up: the far side is left out of it all, and only for such a token."""
    client = await with_token(node, admin, Scope.TRANSFER, Scope.READ, prefixes=("shop:",))
    paid, refused = transfer("shop:a", "ann", 1), transfer("shop:a", "ann", 10_000)
    insufficient = int(ResultCode.INSUFFICIENT_FUNDS)
    for _ in range(2):
        results = await client.execute(np.concatenate([paid, refused]))
        assert results["code"].tolist() == [OK, insufficient]
        assert results["debit_balance"].tolist() == [99, 99]
        assert results["credit_balance"].tolist() == results["credit_held"].tolist() == [0, 0]
    queries = np.zeros(2, EVENT_QUERY)
    for name in EVENT_QUERY.fields or ():
        queries[name] = np.concatenate([paid, refused])[name]
    for asker, credit_balances in ((client, [0, 0]), (admin, [1, 1])):
        answers = np.frombuffer((await asker.ask(Operation.LOOKUP_EVENTS, queries.tobytes())).body, EVENT_ANSWER)
        assert answers["found"].tolist() == [1, 1]
        events = np.frombuffer(answers["event"].tobytes(), EVENT)
        assert events["debit_balance"].tolist() == [99, 99]
        assert events["credit_balance"].tolist() == credit_balances
        assert events["credit_previous"].any() == (asker is admin)
    assert (await admin.execute(np.concatenate([paid, refused])))["credit_balance"].tolist() == [1, 1]


async def test_nobody_reads_the_balance_of_another_out_of_an_id_of_theirs(node: Node, admin: Client) -> None:
    """Ids are used up per slot of the debit account: another account of the same slot has the same ids."""
    slots = {name: slot_of(account_id(name, "EUR")) for name in ("world", *(f"shop:{n}" for n in range(40_000)))}
    own = next(name for name in slots if name != "world" and slots[name] == slots["world"])
    client = await with_token(node, admin, Scope.TRANSFER, Scope.READ, prefixes=("shop:",))
    assert (await client.execute(opening(own)))["code"].tolist() == [OK]
    theirs = transfer("world", "ann", 7)
    assert (await admin.execute(theirs))["code"].tolist() == [OK]
    forbid = command(CommandKind.FORBID, own)
    forbid["id_head"], forbid["id_tail"] = theirs["id_head"], theirs["id_tail"]
    (result,) = await client.execute(forbid)
    assert (result["code"], result["effective_amount"]) == (OK, 7), "the first outcome of the id"
    assert [int(result[side]) for side in ("debit_balance", "debit_held", "credit_balance", "credit_held")] == [0] * 4
    query = theirs["id_head"].tobytes() + theirs["id_tail"].tobytes() + account_id(own, "EUR")
    assert (await client.ask(Operation.LOOKUP_EVENTS, query)).body == bytes(EVENT_ANSWER.itemsize)


# ---- revoking ----


async def test_a_revoked_token_is_put_out_and_does_not_come_in_again(node: Node, admin: Client) -> None:
    text, token = new_token(Scope.TRANSFER)
    await change(admin, create=token)
    client = await node.connect(token=text)
    told = await change(admin, revoke=token.token_id)
    assert told.tokens[-1].revoked_ns > 0
    (goodbye,) = await client.rest()
    assert goodbye.error.code == FrameError.UNAUTHENTICATED
    again = await node.connect(greet=False)
    await again.send(hello(text))
    assert (await again.rest())[0].error.code == FrameError.UNAUTHENTICATED
    assert (await admin.ask(Operation.PING, b"me not")).body == b"me not"


async def test_what_has_not_reached_the_ledger_by_then_is_not_executed(node: Node, admin: Client) -> None:
    """Commands and requests that wait in the same batch as the revoking of their token, or behind it."""
    text, token = new_token(Scope.TRANSFER, Scope.READ)
    await change(admin, create=token)
    client = await node.connect(token=text)
    node.replica.ledger.tokens.on_changed = lambda: None  # or the connection would be gone before
    await change(admin, revoke=token.token_id)
    assert (await client.execute(transfer("shop:a", "ann", 1)))["code"].tolist() == [FORBIDDEN]
    reply = await client.ask(Operation.LOOKUP_ACCOUNTS, account_id("ann", "EUR"))
    assert reply.error.code == FrameError.FORBIDDEN
    assert node.replica.ledger.lookup_accounts(ids_of("ann"))["balance"].tolist() == [0]


# ---- the audit ----


async def test_what_is_administered_stands_in_the_log_with_who_asked(node: Node, admin: Client) -> None:
    client = await with_token(node, admin, Scope.ADMIN)
    who = node.replica.ledger.tokens.records[-1].token_id
    await client.ask(Operation.REGISTER_CURRENCY, encode_message(Currency("XTS", 3)))
    await client.ask(Operation.REGISTER_CURRENCY, encode_message(Currency("EUR", 7)))
    await client.ask(Operation.CHANGE_MEMBERS, encode_message(ChangeMembers("promote", 9)))
    await client.execute(np.concatenate([command(CommandKind.FREEZE, "ann"), command(CommandKind.UNFREEZE, "ann")]))
    own = [act[1:] for act in acts(node) if act[0] == who]
    assert own[0] == ("REGISTER_CURRENCY", "register XTS with 3 decimals", "")
    assert own[1] == ("REGISTER_CURRENCY", "register EUR with 7 decimals", "")
    assert own[2][:2] == own[1][:2]
    assert "2 decimals" in own[2][2]
    assert own[3] == ("CHANGE_MEMBERS", "promote node 9", "")
    assert own[4][:2] == ("CHANGE_MEMBERS", "promote node 9")
    assert own[4][2]
    assert own[5][0] == "COMMANDS"
    assert own[5][1].startswith("1 FREEZE, 1 UNFREEZE: ")
    assert len(own) == 6


async def test_what_is_administered_beside_the_log_is_written_down_before_it_is_answered(
    node: Node, admin: Client
) -> None:
    client = await with_token(node, admin, Scope.ADMIN)
    who = node.replica.ledger.tokens.records[-1].token_id
    last_index = node.replica.log.last_index
    reply = await client.ask(Operation.NOTE_ACT, encode_message(NoteAct("CREATE_WEBHOOK", "wh_1 to a.example:443")))
    assert (reply.operation, reply.body) == (Operation.NOTE_ACT, b"")
    assert node.replica.log.last_index == last_index + 1
    assert acts(node)[-1] == (who, "NOTE_ACT", "CREATE_WEBHOOK wh_1 to a.example:443", "")


@pytest.mark.parametrize(
    "note", [NoteAct("CREATE_WEBHOOK", "a\nb"), NoteAct("create", "somewhere"), NoteAct("A", "x" * 401)]
)
async def test_what_cannot_be_noted_is_refused_and_not_repeated(node: Node, admin: Client, note: NoteAct) -> None:
    reply = await admin.ask(Operation.NOTE_ACT, encode_message(note))
    assert reply.error.code == FrameError.REQUEST_REFUSED
    (_, operation, what, outcome), (_, _, again, why) = acts(node)[-2:]
    assert (operation, what, outcome) == ("NOTE_ACT", again, "")
    assert what.startswith("a note that cannot be: ")
    assert why
    assert note.what not in f"{what}{why}"
    assert (await admin.ask(Operation.NOTE_ACT, b"no message")).error.code == FrameError.BODY_MALFORMED
    assert acts(node)[-2][1:] == ("NOTE_ACT", "a request that cannot be read", "")


async def test_who_has_no_token_leaves_no_act(node: Node, client: Client) -> None:
    await client.ask(Operation.REGISTER_CURRENCY, encode_message(Currency("XTS", 3)))
    noted = await client.ask(Operation.NOTE_ACT, encode_message(NoteAct("CREATE_WEBHOOK", "wh_1")))
    assert (noted.operation, noted.body) == (Operation.NOTE_ACT, b"")
    assert (await client.ask(Operation.NOTE_ACT)).error.code == FrameError.BODY_MALFORMED
    assert acts(node) == []


async def test_no_token_is_in_what_the_node_writes_or_says(
    node: Node, admin: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    text, token = new_token(Scope.READ)
    secret = text.split("_", 2)[2]
    await change(admin, create=token)
    client = await node.connect(token=text)
    said = [await client.ask(operation) for operation in (Operation.LIST_ACCOUNTS, Operation.TOKENS, Operation.EVENTS)]
    said.append(await admin.ask(Operation.TOKENS))
    for wrong in (secret, text + "x", text[:-1]):
        stranger = await node.connect(greet=False)
        await stranger.send(hello(wrong))
        said += await stranger.rest()
    await change(admin, revoke=token.token_id)
    said += await client.rest()
    assert all(secret.encode() not in reply.body for reply in said)
    assert all(token.digest not in reply.body for reply in said)
    written = [node.replica.log.read_entry(index).body for index in range(1, node.replica.log.last_index + 1)]
    assert all(secret.encode() not in bytes(body) for body in written)
    assert secret not in caplog.text
    assert all(secret not in repr(connection.principal) for connection in node.connections)


def test_what_is_answered_among_the_commands_is_looked_at_there() -> None:
    """Tokens that are limited are looked at where the accounts are, so all that names accounts goes that way."""
    checked = {operation for operation, rule in OPERATION_RULES.items() if rule.limited.value == "checked"}
    of_readers = {Operation.FIND_TRANSFERS}  # which look at them themselves
    assert checked - {Operation.COMMANDS} - of_readers <= AMONG_COMMANDS


async def test_the_act_of_making_a_token_names_what_it_may(node: Node, admin: Client) -> None:
    await with_token(node, admin, Scope.READ, prefixes=("shop:",))
    made = node.replica.ledger.tokens.records[-1]
    assert any(made.token_id in what and "shop:*" in what for _, operation, what, _ in acts(node) if operation)
    assert msgspec.json.encode(acts(node))


async def test_the_note_of_a_token_that_cannot_be_is_not_in_the_act(node: Node, admin: Client) -> None:
    _, token = new_token(Scope.READ)
    for note in ("\x1b[2K a note", "note" * 100):
        asked = ChangeTokens(create=msgspec.structs.replace(token, note=note))
        reply = await admin.ask(Operation.CHANGE_TOKENS, encode_message(asked))
        assert reply.error.code == FrameError.REQUEST_REFUSED
    assert not any("note" in what + outcome for _, _, what, outcome in acts(node))
    assert len([what for _, _, what, _ in acts(node) if "printable characters" in what]) == 4  # asked for, and not done


def ids_of(*names: str) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    return np.frombuffer(b"".join(account_id(name, "EUR") for name in names), np.int64).reshape(-1, 2).copy()


def command(kind: CommandKind, debit: str) -> Records:
    made = transfer(debit, debit, 0)
    made["kind"], made["credit_head"], made["credit_tail"], made["amount"] = int(kind), 0, 0, 0
    return made


# ---- the first token ----


@pytest.mark.parametrize("others", ["none", "members", "shards"])
@pytest.mark.parametrize("way_in", ["none", "cluster token", "certificates"])
async def test_the_first_token_does_not_lock_the_nodes_out_of_each_other(
    node: Node, monkeypatch: pytest.MonkeyPatch, others: str, way_in: str
) -> None:
    text = new_token(*Scope)[0] if way_in == "cluster token" else ""
    guard = Guard(node.replica.ledger.tokens, text, nodes_are_certified=way_in == "certificates")
    clients = Clients(node.reactor, make_welcome(node.reactor, "test", "digest"), guard=guard)
    if others == "shards":
        monkeypatch.setattr(node.reactor, "placing", Placing(METADATA_SHARD))
    elif others == "members":
        both = Configuration([Member(1, 1, "a:1", "a:2"), Member(2, 2, "b:1", "b:2")], [1], learners=[2])
        monkeypatch.setattr(node.reactor.member, "configuration", both)
    who = guard.admit(text)
    assert who is not None
    asked = Request(Operation.CHANGE_TOKENS, encode_message(ChangeTokens(new_token(*Scope)[1])), lambda _: None, who)
    if others != "none" and way_in == "none":
        with pytest.raises(UsageError, match="--cluster-token-file"):
            clients.guarding.check(asked)
    else:
        clients.guarding.check(asked)
