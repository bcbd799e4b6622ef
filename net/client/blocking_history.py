"""The questions of `bezant.net.client.history.History` without await."""

from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from bezant.net.client.history import AccountsThen, AsOf, History, OpenHold, SumsThen, Time
from bezant.net.client.results import Account, Event
from bezant.protocol.kinds import CommandKind

_Value = TypeVar("_Value")
_Line = TypeVar("_Line")


class _Call(Protocol):
    """Runs a coroutine on the wallet's loop and returns what it returns."""

    def __call__(self, work: Coroutine[Any, Any, _Value], /) -> _Value:
        """See the class."""
        ...


class BlockingHistory:
    """See the module; made by `BlockingWallet.history`. What the methods take, do and raise is as in `History`."""

    def __init__(self, history: History, call: _Call) -> None:
        self._history = history
        self._call = call

    def account(
        self, name: str, currency: str, *, at: Time | None = None, position: int | None = None, wait_for: int = 0
    ) -> tuple[AsOf, Account | None]:
        """An account as it was."""
        return self._call(self._history.account(name, currency, at=at, position=position, wait_for=wait_for))

    def accounts(
        self, ids: Sequence[bytes], *, at: Time | None = None, position: int | None = None, wait_for: int = 0
    ) -> AccountsThen:
        """Several accounts as they were at one moment."""
        return self._call(self._history.accounts(ids, at=at, position=position, wait_for=wait_for))

    def statement(
        self,
        name: str,
        currency: str,
        *,
        at: Time | None = None,
        position: int | None = None,
        start: Time | None = None,
        end: Time | None = None,
        reverse: bool = False,
        limit: int | None = None,
        wait_for: int = 0,
    ) -> Iterator[Event]:
        """The events that touched an account."""
        return self._iterate(
            self._history.statement(
                name,
                currency,
                at=at,
                position=position,
                start=start,
                end=end,
                reverse=reverse,
                limit=limit,
                wait_for=wait_for,
            )
        )

    def transfers(
        self,
        *,
        account: tuple[str, str] | None = None,
        currency: str = "",
        code: int | None = None,
        kinds: Sequence[CommandKind] = (),
        refused: bool = False,
        at: Time | None = None,
        position: int | None = None,
        start: Time | None = None,
        end: Time | None = None,
        reverse: bool = False,
        limit: int | None = None,
        wait_for: int = 0,
    ) -> Iterator[Event]:
        """The events that match all of what is given."""
        return self._iterate(
            self._history.transfers(
                account=account,
                currency=currency,
                code=code,
                kinds=kinds,
                refused=refused,
                at=at,
                position=position,
                start=start,
                end=end,
                reverse=reverse,
                limit=limit,
                wait_for=wait_for,
            )
        )

    def transfer(
        self,
        id: bytes,  # noqa: A002 - as in History
        *,
        at: Time | None = None,
        position: int | None = None,
        wait_for: int = 0,
    ) -> list[Event]:
        """The events with an id, or of the hold of that name."""
        return self._call(self._history.transfer(id, at=at, position=position, wait_for=wait_for))

    def holds(
        self,
        *,
        account: tuple[str, str] | None = None,
        at: Time | None = None,
        position: int | None = None,
        after: int = 0,
        limit: int | None = None,
        wait_for: int = 0,
    ) -> Iterator[OpenHold]:
        """The holds that were open."""
        return self._iterate(
            self._history.holds(account=account, at=at, position=position, after=after, limit=limit, wait_for=wait_for)
        )

    def totals(self, *, at: Time | None = None, position: int | None = None, wait_for: int = 0) -> SumsThen:
        """The sums of every currency in use."""
        return self._call(self._history.totals(at=at, position=position, wait_for=wait_for))

    def _iterate(self, lines: AsyncIterator[_Line]) -> Iterator[_Line]:
        """In chunks, because a change of threads for every line would cost more than the line."""
        while True:
            chunk = self._call(_take(lines))
            yield from chunk
            if len(chunk) < CHUNK_LINES:
                return


CHUNK_LINES = 1000
"""Lines that come from the wallet's thread at a time."""


async def _take(lines: AsyncIterator[_Line]) -> list[_Line]:
    chunk: list[_Line] = []
    async for line in lines:
        chunk.append(line)
        if len(chunk) == CHUNK_LINES:
            break
    return chunk
