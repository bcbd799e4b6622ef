"""Claim: one table says who may do what; it has a row for every operation and every kind of command, and decides alike
whatever else is asked. What is kept of a token lets nobody in, and its text is nowhere but with its owner."""

import itertools
import re
import secrets

import msgspec
import pytest

from bezant.protocol.access import (
    ANYBODY,
    COMMAND_SCOPES,
    NOBODY,
    NOTED_NAME_SIZE_MAX,
    NOTED_WHAT_SIZE_MAX,
    OPERATION_RULES,
    Limited,
    NoteAct,
    Principal,
    Scope,
    Token,
    check_note,
    check_token,
    command_refusal,
    digest_of,
    operation_refusal,
    token_id_of,
    token_text,
)
from bezant.protocol.errors import UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.kinds import CommandFlag, CommandKind
from tests.protocol.test_readme import table

SCOPE_SETS = [frozenset(chosen) for size in range(5) for chosen in itertools.combinations(Scope, size)]
SECRET = secrets.token_urlsafe(32)
TEXT = token_text("abcdef012345", SECRET)
TOKEN = Token("abcdef012345", digest_of(TEXT), [Scope.READ])


def test_every_operation_and_every_kind_has_a_row() -> None:
    assert list(OPERATION_RULES) == list(Operation)
    assert list(COMMAND_SCOPES) == list(CommandKind)


@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("scopes", SCOPE_SETS, ids=lambda scopes: "+".join(sorted(scopes)) or "none")
def test_an_operation_takes_one_of_its_scopes(operation: Operation, scopes: frozenset[Scope]) -> None:
    rule = OPERATION_RULES[operation]
    assert (operation_refusal(Principal("one", scopes), operation) == "") == bool(scopes & rule.scopes)
    limited = operation_refusal(Principal("one", scopes, ("shop:",)), operation) == ""
    assert limited == (bool(scopes & rule.scopes) and rule.limited is not Limited.NEVER)


@pytest.mark.parametrize("kind", CommandKind)
@pytest.mark.parametrize("scopes", SCOPE_SETS, ids=lambda scopes: "+".join(sorted(scopes)) or "none")
def test_a_command_takes_one_of_its_scopes(kind: CommandKind, scopes: frozenset[Scope]) -> None:
    one = Principal("one", scopes)
    may = bool(scopes & COMMAND_SCOPES[kind])
    assert (command_refusal(one, kind) == "") == may
    assert (command_refusal(one, kind, CommandFlag.LINKED) == "") == may
    assert (command_refusal(one, kind, CommandFlag.IMPORTED) == "") == (may and Scope.ADMIN in scopes)
    with_limit = may and (Scope.ADMIN in scopes or kind is not CommandKind.OPEN)
    assert (command_refusal(one, kind, limit=1) == "") == with_limit
    if one.may_command_all and COMMAND_SCOPES[kind] != NOBODY:
        assert command_refusal(one, kind, CommandFlag.IMPORTED, 1) == ""


def test_what_is_not_known_is_nobodys() -> None:
    for number in set(range(256)) - {int(operation) for operation in Operation}:
        assert operation_refusal(ANYBODY, number)
    for number in (0, 13, 31, 45, -1, 2**15):
        assert command_refusal(ANYBODY, number)


@pytest.mark.parametrize("kind", [kind for kind in CommandKind if kind >= CommandKind.TRY_DEBIT])
def test_what_only_nodes_send_is_no_clients_command(kind: CommandKind) -> None:
    assert command_refusal(ANYBODY, kind)


def test_the_specification_has_the_tables() -> None:
    told = {True: "yes", False: "no"}
    assert [tuple(row.values()) for row in table("Scopes", "operation")] == [
        (operation.name, ", ".join(sorted(rule.scopes)) or "-", rule.limited.value, told[rule.audited])
        for operation, rule in OPERATION_RULES.items()
    ]
    assert [tuple(row.values()) for row in table("Scopes", "kind")] == [
        (kind.name, ", ".join(sorted(scopes)) or "-") for kind, scopes in COMMAND_SCOPES.items()
    ]


def test_who_administers_or_is_a_node_may_ask_what_must_be_audited() -> None:
    audited = {operation for operation, rule in OPERATION_RULES.items() if rule.audited}
    audited.remove(Operation.SET_METADATA)  # what it erases was somebody's own
    assert all(OPERATION_RULES[operation].scopes <= {Scope.ADMIN, Scope.PEER} for operation in audited)
    assert {Operation.CHANGE_TOKENS, Operation.CHANGE_MEMBERS, Operation.MOVE_SLOTS, Operation.REPLACE_MAP} <= audited


def test_prefixes_limit_names() -> None:
    limited = Principal("one", frozenset({Scope.TRANSFER}), ("shop:", "{ann}"))
    assert [limited.may_use(name) for name in ("shop:1", "{ann}:x", "shop", "x:shop:", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]
    assert ANYBODY.may_use("whatever")


def test_a_token_is_known_by_its_digest_alone() -> None:
    assert token_id_of(TEXT) == TOKEN.token_id
    assert TOKEN.matches(TEXT)
    assert not any(TOKEN.matches(text) for text in ("", TEXT[:-1], TEXT + "x", TEXT.swapcase()))
    assert SECRET.encode() not in msgspec.msgpack.encode(TOKEN)
    assert TEXT not in repr(TOKEN)


@pytest.mark.parametrize("text", ["", "x", TEXT[1:], TEXT[:-1], TEXT + "\n", TEXT.upper()])
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as told:
        token_id_of(text)
    assert not text.strip() or text == "x" or text.strip() not in str(told.value)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"token_id": "short"}, "12 characters"),
        ({"digest": b"short"}, "32 bytes"),
        ({"scopes": []}, "one or several"),
        ({"scopes": [Scope.READ, Scope.READ]}, "each once"),
        ({"note": "x" * 101}, "100"),
        ({"note": "\n"}, "printable"),
        ({"prefixes": ["a"] * 17}, "16"),
        ({"prefixes": ["a b"]}, "begins"),
        ({"prefixes": [""]}, "begins"),
        ({"prefixes": ["a"], "scopes": [Scope.ADMIN]}, "whole"),
        ({"prefixes": ["a"], "scopes": [Scope.READ, Scope.PEER]}, "whole"),
    ],
)
def test_a_token_that_cannot_be_is_refused(change: dict[str, object], why: str) -> None:
    check_token(TOKEN)
    with pytest.raises(UsageError, match=re.escape(why)):
        check_token(msgspec.structs.replace(TOKEN, **change))


@pytest.mark.parametrize(
    "note",
    [
        NoteAct("A", ""),
        NoteAct("A" * NOTED_NAME_SIZE_MAX, "x" * NOTED_WHAT_SIZE_MAX),
        NoteAct("A_B", "é" * (NOTED_WHAT_SIZE_MAX // 2)),
    ],
)
def test_what_may_be_noted(note: NoteAct) -> None:
    check_note(note)


@pytest.mark.parametrize("name", ["", "a", "A1", "_A", "A B", "A\n", "É", "A" * (NOTED_NAME_SIZE_MAX + 1)])
def test_a_note_has_a_plain_name(name: str) -> None:
    with pytest.raises(UsageError, match="A to Z"):
        check_note(NoteAct(name, "what"))


@pytest.mark.parametrize(
    "what",
    [
        "x" * (NOTED_WHAT_SIZE_MAX + 1),
        "é" * (NOTED_WHAT_SIZE_MAX // 2 + 1),
        *("a\nb", "\x00", "\x1b[2J", "\x7f", "\x9b", "\u202e", "\u2028", "\ud800"),
    ],
)
def test_what_is_noted_is_short_and_printable(what: str) -> None:
    with pytest.raises(UsageError, match="printable"):
        check_note(NoteAct("NAME", what))
