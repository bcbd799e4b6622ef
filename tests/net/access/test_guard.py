"""Claim: whom a node lets in follows from its tokens and from the certificate, in every combination of the two."""

import secrets

import pytest

from bezant.engine.tokens.table import TokenTable
from bezant.net.access.guard import Guard
from bezant.protocol.access import ANYBODY, EVERYBODY, Principal, Scope, Token, TokenChange, digest_of, token_text

CLUSTER, KNOWN, REVOKED, UNKNOWN = (token_text(f"{number:012d}", secrets.token_urlsafe(32)) for number in range(1, 5))
PEER = frozenset({Scope.PEER})


def kept(text: str) -> Token:
    return Token(text.split("_")[1], digest_of(text), [Scope.ADMIN])


def guard_of(*, has_tokens: bool, has_cluster: bool) -> Guard:
    table = TokenTable()
    if has_tokens:
        for number, text in enumerate((KNOWN, REVOKED), 1):
            table.apply(TokenChange(kept(text)), number)
        table.apply(TokenChange(revoked=kept(REVOKED).token_id), 9)
    return Guard(table, CLUSTER if has_cluster else "")


ADMIN = Principal(kept(KNOWN).token_id, frozenset({Scope.ADMIN}))
ROWS = [
    # tokens in the log, a cluster token, what is shown, the name in the certificate, who that is
    (False, False, "", None, ANYBODY),
    (False, False, UNKNOWN, None, ANYBODY),
    (False, False, "", "n1", Principal("node:n1", EVERYBODY)),
    (True, False, "", None, None),
    (True, False, "nonsense", None, None),
    (True, False, UNKNOWN, None, None),
    (True, False, REVOKED, None, None),
    (True, False, KNOWN, None, ADMIN),
    (True, False, KNOWN, "n1", ADMIN),
    (True, False, "", "n1", Principal("node:n1", PEER)),
    (True, False, UNKNOWN, "n1", Principal("node:n1", PEER)),
    (True, False, CLUSTER, None, None),
    (False, True, "", None, None),
    (False, True, UNKNOWN, None, None),
    (False, True, CLUSTER, None, Principal("cluster", EVERYBODY)),
    (False, True, CLUSTER, "n1", Principal("node:n1", EVERYBODY)),
    (True, True, KNOWN, None, ADMIN),
    (True, True, "", "n1", Principal("node:n1", PEER)),
]


@pytest.mark.parametrize(("has_tokens", "has_cluster", "shown", "node_name", "who"), ROWS)
def test_who_is_let_in(
    has_tokens: bool, has_cluster: bool, shown: str, node_name: str | None, who: Principal | None
) -> None:
    guard = guard_of(has_tokens=has_tokens, has_cluster=has_cluster)
    assert guard.admit(shown, node_name) == who
    if who is not None:
        assert guard.counts(who)


def test_who_counts_may_count_no_more() -> None:
    table = TokenTable()
    guard = Guard(table)
    anybody = guard.admit("")
    assert anybody is not None
    table.apply(TokenChange(kept(KNOWN)), 1)
    assert not guard.counts(anybody)
    holder = guard.admit(KNOWN)
    assert holder is not None
    assert guard.counts(holder)
    table.apply(TokenChange(revoked=holder.token_id), 2)
    assert not guard.counts(holder)
    assert guard.asks_for_tokens  # though none is left that counts


def test_who_came_with_a_certificate_while_everybody_might_do_everything_does_not_stay_so() -> None:
    table = TokenTable()
    guard = Guard(table)
    before = guard.admit("", "n1")
    assert before == Principal("node:n1", EVERYBODY)
    assert guard.counts(before)
    table.apply(TokenChange(kept(KNOWN)), 1)
    assert not guard.counts(before)
    after = guard.admit("", "n1")
    assert after == Principal("node:n1", PEER)
    assert guard.counts(after)
    assert not guard.counts(Principal("cluster", EVERYBODY))
