"""Claim: connections of tokens are shared, bounded, closed; a token is not repeated, nor asked about each time."""

import asyncio
from typing import Any, cast

import pytest

from bezant.net.gateway import authorizing
from bezant.net.gateway.asking import Ledger, Question
from bezant.net.gateway.authorizing import Ledgers, Principal, is_public, token_of
from bezant.net.gateway.ledger import get_readiness
from bezant.net.gateway.problems import ProblemRaised
from bezant.protocol.access import token_id_of
from bezant.protocol.errors import AccessDenied, ConnectionFailed
from bezant.protocol.frames import FrameError

SCOPE = {"path": "/v1/currencies", "client": ("127.0.0.1", 1)}
ELSEWHERE = {"path": "/v1/currencies", "client": ("127.0.0.2", 1)}


def token(number: int, kind: str = "good") -> str:
    return f"bezant_{kind}{number:0{12 - len(kind)}d}_{'s' * 43}"


class OneLedger:
    """A ledger that says when it was closed."""

    def __init__(self, wallets: "Wallets", token: str) -> None:
        self._wallets = wallets
        self.token = token
        self.is_over = False
        self.wallet = self

    async def close(self) -> None:
        self._wallets.open.remove(self.token)


class Wallets:
    """Opens ledgers for tokens that are good, when told to."""

    def __init__(self) -> None:
        self.open: list[str] = []
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.ledgers = Ledgers(cast(Ledger, None), self.open_ledger)

    async def open_ledger(self, token: str) -> Ledger:
        self.asked.append(token)
        await self.may_answer.wait()
        if "bad" in token:
            raise AccessDenied(FrameError.UNAUTHENTICATED, "no")
        if "away" in token:
            raise ConnectionFailed("nobody is there")
        self.open.append(token)
        return cast(Ledger, OneLedger(self, token))

    async def use(self, shown: str | None, scope: dict[str, Any] = SCOPE) -> None:
        served, _ = await self.ledgers.enter(scope, shown)
        self.ledgers.leave(served)

    async def settle(self, *shown: str) -> None:
        """Wait until exactly these are open."""
        async with asyncio.timeout(10):
            while self.open != list(shown):
                await asyncio.sleep(0.001)


async def test_connections_of_a_token_are_shared_and_counted_under_its_id() -> None:
    wallets = Wallets()
    assert wallets.ledgers.name_of(SCOPE, token(1)) == "127.0.0.1"
    await asyncio.gather(*(wallets.use(token(1)) for _ in range(5)))
    await wallets.use(token(1))
    assert wallets.asked == [token(1)]
    assert wallets.ledgers.name_of(SCOPE, token(1)) == token_id_of(token(1))
    assert wallets.ledgers.name_of(SCOPE, token(1)[:-1] + "x") == "127.0.0.1"


async def test_who_was_not_heard_for_longest_gives_way_unless_something_is_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authorizing, "TOKENS_MAX", 2)
    wallets = Wallets()
    first, _ = await wallets.ledgers.enter(SCOPE, token(1))
    await wallets.use(token(2))
    await wallets.use(token(3))
    await wallets.settle(token(1), token(3))
    second, _ = await wallets.ledgers.enter(SCOPE, token(3))
    with pytest.raises(ProblemRaised, match="in use"):
        await wallets.use(token(4))
    await wallets.settle(token(1), token(3))
    wallets.ledgers.leave(first)
    wallets.ledgers.leave(second)
    await wallets.use(token(4))
    await wallets.settle(token(3), token(4))


async def test_what_was_just_opened_does_not_give_way_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorizing, "TOKENS_MAX", 1)
    wallets = Wallets()
    wallets.may_answer.clear()
    entering = [asyncio.create_task(wallets.ledgers.enter(SCOPE, token(number))) for number in (1, 2)]
    await asyncio.sleep(0.001)
    wallets.may_answer.set()
    (served, ledger), refused = await asyncio.gather(*entering, return_exceptions=True)  # type: ignore[misc]
    assert isinstance(refused, ProblemRaised)
    assert cast(Any, ledger).token == token(1)
    await wallets.settle(token(1))
    wallets.ledgers.leave(cast(Any, served))


async def test_what_is_idle_is_closed_and_everything_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorizing, "IDLE_S_MAX", 0.01)
    wallets = Wallets()
    busy, _ = await wallets.ledgers.enter(SCOPE, token(1))
    await wallets.use(token(2))
    closing = asyncio.create_task(wallets.ledgers.close_idle())
    await wallets.settle(token(1))
    wallets.ledgers.leave(busy)
    await wallets.settle()
    closing.cancel()
    await wallets.use(token(1))
    wallets.may_answer.clear()
    late = asyncio.create_task(wallets.use(token(2)))
    await asyncio.sleep(0.001)
    await wallets.ledgers.close()
    assert wallets.open == []
    with pytest.raises(asyncio.CancelledError):
        await late


async def test_nodes_are_not_asked_again_at_once_about_whom_they_do_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    wallets = Wallets()
    for shown in (token(1, "bad"), token(1, "bad"), token(2, "bad"), token(1, "bad")):
        with pytest.raises(ProblemRaised) as raised:
            await wallets.use(shown)
        assert raised.value.problem.status == 401
        assert shown not in str(raised.value.problem)
    assert wallets.asked == [token(1, "bad"), token(2, "bad")]
    for _ in range(2):
        with pytest.raises(ProblemRaised) as raised:
            await wallets.use(token(3, "away"))
        assert (raised.value.problem.status, raised.value.problem.detail) == (503, ""), "who asks may be anybody"
    assert wallets.asked[2:] == [token(3, "away")]
    await asyncio.sleep(authorizing.AWAY_S + 0.01)
    with pytest.raises(ProblemRaised):
        await wallets.use(token(3, "away"))
    assert wallets.asked[2:] == [token(3, "away")] * 2, "not for long: nodes may be there again"
    monkeypatch.setattr(authorizing, "FAILED_MAX", 2)
    with pytest.raises(ProblemRaised):
        await wallets.use(token(4, "bad"))
    assert len(wallets.ledgers._failed) == 2


async def test_who_asks_whether_anybody_is_there_may_be_anybody_and_is_not_told_who_is_not() -> None:
    class Away:
        async def ping(self, timeout_s: float) -> None:
            raise ConnectionFailed("the node at secret:1 cannot be reached")

    assert is_public("/ready")
    question = Question(Ledger(cast(Any, Away()), 1.0), 1.0)
    with pytest.raises(ProblemRaised) as raised:
        await get_readiness.fn(question)
    assert (raised.value.problem.code, raised.value.problem.detail) == ("NODE_UNREACHABLE", "")


async def test_new_tokens_are_asked_about_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authorizing, "OPENINGS_MAX", 3)
    monkeypatch.setattr(authorizing, "CLIENT_OPENINGS_MAX", 2)
    wallets = Wallets()
    wallets.may_answer.clear()
    waiting = [asyncio.create_task(wallets.use(token(number))) for number in (1, 2)]
    await asyncio.sleep(0.001)
    with pytest.raises(ProblemRaised) as raised:
        await wallets.use(token(3))
    assert raised.value.problem.status == 429
    waiting.append(asyncio.create_task(wallets.use(token(3), ELSEWHERE)))
    await asyncio.sleep(0.001)
    with pytest.raises(ProblemRaised) as raised:
        await wallets.use(token(4), ELSEWHERE)
    assert raised.value.problem.status == 503
    wallets.may_answer.set()
    await asyncio.gather(*waiting)
    await wallets.use(token(4))


async def test_a_ledger_that_is_over_is_not_closed_under_requests() -> None:
    wallets = Wallets()
    first, ledger = await wallets.ledgers.enter(SCOPE, token(1))
    second, _ = await wallets.ledgers.enter(SCOPE, token(1))
    cast(Any, ledger).is_over = True
    await wallets.use(token(1))
    assert wallets.asked == [token(1)] * 2
    wallets.ledgers.leave(first)
    await asyncio.sleep(0.01)
    assert wallets.open == [token(1)] * 2
    wallets.ledgers.leave(second)
    await wallets.settle(token(1))
    third, ledger = await wallets.ledgers.enter(SCOPE, token(1))
    cast(Any, ledger).is_over = True
    await wallets.use(token(1))
    await wallets.ledgers.close()
    assert wallets.open == [], "at the end nothing is left open"
    wallets.ledgers.leave(third)


async def test_a_ledger_that_nodes_serve_no_more_is_asked_for_anew() -> None:
    wallets = Wallets()
    served, ledger = await wallets.ledgers.enter(SCOPE, token(1))
    wallets.ledgers.leave(served)
    cast(Any, ledger).is_over = True
    await wallets.use(token(1))
    assert wallets.asked == [token(1)] * 2
    await wallets.settle(token(1))


async def test_who_has_no_token_has_the_ledger_of_the_gateway_until_nodes_ask_for_one() -> None:
    wallets = Wallets()
    own = cast(Ledger, OneLedger(wallets, "own"))
    ledgers = Ledgers(own, wallets.open_ledger, own_is_for_all=True)
    for _ in range(2):
        served, ledger = await ledgers.enter(SCOPE, None)
        assert ledger is own
        ledgers.leave(served)
    assert wallets.asked == []
    cast(Any, own).is_over = True
    await ledgers.enter(SCOPE, None)
    assert wallets.asked == [""]


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ([b"Bearer secret"], 401),
        ([b"Bearer"], 401),
        ([b""], 401),
        ([b"Basic secret"], 401),
        ([b"Bearer " + token(1).encode() + b"\xff"], 401),
        ([b"Bearer " + token(1).encode() + b"\x00"], 401),
        ([b"Bearer " + token(1).encode() + b"\n"], 401),
        ([b"Bearer " + token(1).encode() + b" " + token(1).encode()], 401),
        ([b"Bearer " + b"secret" * 1000], 401),
        ([b"Bearer " + token(1).encode()] * 2, 400),
    ],
)
def test_what_is_no_token_is_not_repeated(shown: list[bytes], status: int) -> None:
    with pytest.raises(ProblemRaised) as raised:
        token_of({"headers": [(b"authorization", value) for value in shown]})
    assert raised.value.problem.status == status
    assert "secret" not in str(raised.value.problem)
    assert token(1) not in str(raised.value.problem)


def test_a_token_is_shown_in_one_header() -> None:
    for shown in (b"Bearer ", b"bearer ", b"BEARER  "):
        assert token_of({"headers": [(b"authorization", shown + token(1).encode())]}) == token(1)
    assert token_of({"headers": [(b"host", b"localhost")]}) is None


@pytest.mark.parametrize(
    "path", ["/health", "/ready", "/docs", "/docs/docs.js", "/problems/FORBIDDEN", "/openapi.json"]
)
def test_pages_and_probes_take_no_token(path: str) -> None:
    assert is_public(path)


@pytest.mark.parametrize(
    "path", ["/", "/v1/currencies", "/v1/../health", "/health/../v1/currencies", "//health", "/Health", "/docsx", "/v1"]
)
def test_all_else_does(path: str) -> None:
    assert not is_public(path)


def test_who_asks_is_told_without_the_token() -> None:
    assert token(1) not in repr(Principal("127.0.0.1", cast(Ledger, object())))
