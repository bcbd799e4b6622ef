"""What clients ask about subscriptions: SUBSCRIBE, UNSUBSCRIBE, ACKNOWLEDGE. `protocol/READERS.md` says what they mean.

A subscription that is asked for behind an event which this reader does not have yet waits for it: its node may be the
one that is late, and the client came from another.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import numpy as np

from bezant.engine.log.entry import Entry
from bezant.net.reader.connection import ReaderConnection
from bezant.net.reader.hub import Filter, Hub
from bezant.net.reader.names import NamedPositions
from bezant.net.reader.tables import FILTER_ENTRIES_MAX, SUBSCRIPTIONS_TOTAL_MAX
from bezant.protocol.access import Principal, Scope
from bezant.protocol.errors import (
    ArchiveUnavailable,
    HistoryIncomplete,
    InvalidAmountOrName,
    RemoteProtocolError,
    StorageError,
    UsageError,
)
from bezant.protocol.frames import (
    FILTER_ACCOUNTS_MAX,
    SUBSCRIPTION_NAME_SIZE_MAX,
    SUBSCRIPTIONS_MAX,
    FrameError,
    FrameHeader,
    Operation,
)
from bezant.protocol.kinds import CommandKind, EntryKind
from bezant.protocol.messages import Acknowledge, Subscribe, Subscribed, Unsubscribe, decode_message, encode_message
from bezant.protocol.names import currency_word, is_subscription_name
from bezant.protocol.records import POSITION_NONE, Words, position_of, split_position

AHEAD_WAIT_S_MAX: Final = 5.0
"""Seconds that a subscription waits for an event that this reader does not have yet."""
ACKNOWLEDGEMENTS_MAX: Final = 10_000
"""Acknowledgements of all clients together that wait to be durable."""
_ID_SIZE: Final = 16
_OWNED: Final = re.compile(r"([0-9a-z]{12})/")
_CONTROL: Final = int(EntryKind.CONTROL)


class _Asked(NamedTuple):
    """A subscription as it was asked for: the first frame of it, and all accounts so far."""

    header: FrameHeader
    first: Subscribe
    accounts: list[bytes]
    account_count: int


class _Waiting(NamedTuple):
    """A subscription that waits for an event."""

    connection: ReaderConnection
    header: FrameHeader
    wanted: Filter
    after: int
    timer: asyncio.TimerHandle


class _Client:
    """What one connection has: its subscriptions by request id, and those that are not there yet."""

    def __init__(self) -> None:
        self.numbers: dict[int, int] = {}
        self.asked: dict[int, _Asked] = {}
        self.waiting: dict[int, _Waiting] = {}

    @property
    def count(self) -> int:
        """Subscriptions, in whatever state."""
        return len(self.numbers) + len(self.asked) + len(self.waiting)

    def has(self, request_id: int) -> bool:
        """Whether a subscription has this request id."""
        return request_id in self.numbers or request_id in self.waiting


class Subscriptions:
    """See the module. All methods on the loop."""

    def __init__(
        self,
        hub: Hub,
        names: NamedPositions,
        *,
        shard: int,
        public_log_id: str,
        catch_up: Callable[[], None],
        on_failure: Callable[[Exception], None],
    ) -> None:
        """`catch_up` brings what is published to the hub."""
        self._hub = hub
        self._names = names
        self._shard = shard
        self._public_log_id = public_log_id
        self._catch_up = catch_up
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._clients: dict[ReaderConnection, _Client] = {}
        self._account_count = 0
        self._waiting: dict[tuple[ReaderConnection, int], _Waiting] = {}
        self._acknowledged: list[tuple[int, ReaderConnection, FrameHeader]] = []
        self._saving: asyncio.Task[None] | None = None
        self.operations: dict[int, Callable[[ReaderConnection, FrameHeader, bytes], None]] = {
            Operation.SUBSCRIBE: self._on_subscribe,
            Operation.UNSUBSCRIBE: self._on_unsubscribe,
            Operation.ACKNOWLEDGE: self._on_acknowledge,
        }
        """What answers a request, or raises `RemoteProtocolError`. Each settles it when it is done with it."""

    # ---- SUBSCRIBE ----

    def _on_subscribe(self, connection: ReaderConnection, header: FrameHeader, body: bytes) -> None:
        message = decode_message(body, Subscribe)
        client = self._clients.setdefault(connection, _Client())
        request_id = header.request_id
        if client.has(request_id):
            raise RemoteProtocolError(f"there is a subscription with the request id {request_id} on this connection")
        asked = client.asked.pop(request_id, None) or _Asked(header, message, [], 0)
        self._account_count -= asked.account_count
        if client.count >= SUBSCRIPTIONS_MAX:
            self._refuse(connection, header, FrameError.REQUEST_REFUSED, f"{SUBSCRIPTIONS_MAX} is the most of them")
            return
        count = asked.account_count + _count_of(message.accounts)
        if count > FILTER_ACCOUNTS_MAX:
            raise RemoteProtocolError(f"a filter has {FILTER_ACCOUNTS_MAX} accounts at most, not {count}")
        if self._account_count + count > FILTER_ENTRIES_MAX or self._hub.count >= SUBSCRIPTIONS_TOTAL_MAX:
            self._refuse(connection, header, FrameError.OVERLOADED, "the reader has as many subscriptions as it takes")
            return
        asked.accounts.append(message.accounts)
        if message.more:
            client.asked[request_id] = asked._replace(account_count=count)
            self._account_count += count
            connection.settle()
            return
        try:
            self._begin(connection, client, asked)
        except UsageError as error:
            self._refuse(connection, asked.header, FrameError.REQUEST_REFUSED, str(error))

    def _begin(self, connection: ReaderConnection, client: _Client, asked: _Asked) -> None:
        """Begin a subscription whose frames have all come. Raises `RemoteProtocolError`, `UsageError`."""
        wanted = _filter_of(asked)
        _check_owner(connection.principal, asked.first.name)
        after = self._sequence_of(asked.first)
        if after is None:
            # So that what its client has seen committed is not told as if it came later.
            self._catch_up()
            after = self._hub.position
        if after > self._hub.position:
            self._wait(connection, client, asked.header, wanted, after)
        else:
            self._add(connection, client, asked.header, wanted, after)
        connection.settle()

    def _sequence_of(self, message: Subscribe) -> int | None:
        """Behind which event a subscription begins; None: from now on. Raises `UsageError`."""
        acknowledged = self._names.get(message.name) if message.name else None
        if message.after is None:
            return acknowledged
        return self._checked(message.after, message.log_id)

    def _checked(self, position: int, log_id: str) -> int:
        """The sequence of a position. Raises `UsageError` if it cannot be one of this log."""
        if log_id and log_id != self._public_log_id:
            raise UsageError(f"the position is one of log {log_id}, and this is log {self._public_log_id}")
        if not -(1 << 63) <= position < 1 << 63:
            raise UsageError("a position has 64 bits")
        shard, sequence = split_position(position)
        if position and shard != self._shard:
            raise UsageError("the position is one of another shard")
        return sequence

    def _add(
        self, connection: ReaderConnection, client: _Client, header: FrameHeader, wanted: Filter, after: int
    ) -> None:
        last = self._hub.position
        reply = Subscribed(self._position_of(after), self._position_of(last))
        connection.reply(header, encode_message(reply))
        self._account_count += _filter_size(wanted)
        client.numbers[header.request_id] = self._hub.add(connection, header.request_id, wanted, after)

    def _position_of(self, sequence: int) -> int:
        return position_of(self._shard, sequence) if sequence else POSITION_NONE

    # ---- ahead ----

    def _wait(
        self, connection: ReaderConnection, client: _Client, header: FrameHeader, wanted: Filter, after: int
    ) -> None:
        def give_up() -> None:
            self._forget_waiting(connection, header.request_id)
            message = (
                f"the position lies {after - self._hub.position} events ahead of the last that this reader knows of, "
                f"and did so for {AHEAD_WAIT_S_MAX:g} s: it is of another log, or not known here yet"
            )
            connection.refuse(header.request_id, FrameError.BEHIND, message)

        timer = self._loop.call_later(AHEAD_WAIT_S_MAX, give_up)
        waiting = _Waiting(connection, header, wanted, after, timer)
        client.waiting[header.request_id] = self._waiting[connection, header.request_id] = waiting
        self._account_count += _filter_size(wanted)

    def _forget_waiting(self, connection: ReaderConnection, request_id: int) -> None:
        waiting = self._waiting.pop((connection, request_id))
        self._account_count -= _filter_size(waiting.wanted)
        waiting.timer.cancel()
        self._clients[connection].waiting.pop(request_id)

    def take_in(self, entries: Sequence[Entry]) -> None:
        """Learn what is acknowledged to others. Raises `CorruptLog`."""
        for entry in entries:
            if entry.header.kind == _CONTROL:
                self._names.take_in(entry)

    def on_position(self) -> None:
        """The hub has come further."""
        if not self._waiting:
            return
        for (connection, request_id), waiting in list(self._waiting.items()):
            if waiting.after <= self._hub.position:
                self._forget_waiting(connection, request_id)
                self._add(connection, self._clients[connection], waiting.header, waiting.wanted, waiting.after)

    # ---- UNSUBSCRIBE, and the end ----

    def _on_unsubscribe(self, connection: ReaderConnection, header: FrameHeader, body: bytes) -> None:
        request_id = decode_message(body, Unsubscribe).subscription
        client = self._clients.get(connection)
        if client is None or not client.has(request_id):
            message = f"there is no subscription with the request id {request_id} on this connection"
            self._refuse(connection, header, FrameError.REQUEST_REFUSED, message)
            return
        if request_id in client.waiting:
            self._forget_waiting(connection, request_id)
        else:
            self._remove(client.numbers.pop(request_id))
        connection.reply(header, b"")
        connection.settle()

    def _remove(self, number: int) -> None:
        self._account_count -= _filter_size(self._hub.remove(number))

    def on_unavailable(
        self, connection: ReaderConnection, request_id: int, error: ArchiveUnavailable | HistoryIncomplete
    ) -> None:
        """End one that needs a part of the history which cannot be had here: perhaps elsewhere, or later."""
        self._remove(self._clients[connection].numbers.pop(request_id))
        code = FrameError.BEHIND if isinstance(error, HistoryIncomplete) else FrameError.OVERLOADED
        connection.refuse(request_id, code, str(error))

    def on_gone(self, connection: ReaderConnection) -> None:
        """A connection takes nothing any more; may be called again."""
        client = self._clients.get(connection)
        if client is None:
            return
        for request_id in list(client.waiting):
            self._forget_waiting(connection, request_id)
        # The newest first: it is the first in the chains of its accounts, and found at once.
        for number in reversed(client.numbers.values()):
            self._remove(number)
        self._account_count -= sum(asked.account_count for asked in client.asked.values())
        del self._clients[connection]

    def _refuse(self, connection: ReaderConnection, header: FrameHeader, code: FrameError, message: str) -> None:
        connection.refuse(header.request_id, code, message)
        connection.settle()

    # ---- ACKNOWLEDGE ----

    def _on_acknowledge(self, connection: ReaderConnection, header: FrameHeader, body: bytes) -> None:
        message = decode_message(body, Acknowledge)
        _check_name(message.name)
        try:
            _check_owner(connection.principal, message.name)
            sequence = self._checked(message.position, message.log_id)
            if sequence > self._hub.position:
                raise UsageError("the position lies ahead of the last event that this reader knows of")
            changes = self._names.set(message.name, sequence)
        except UsageError as error:
            self._refuse(connection, header, FrameError.REQUEST_REFUSED, str(error))
            return
        if len(self._acknowledged) >= ACKNOWLEDGEMENTS_MAX:
            self._refuse(connection, header, FrameError.OVERLOADED, "too many acknowledgements wait for the disk")
            return
        self._acknowledged.append((changes, connection, header))
        if self._saving is None:
            self._saving = self._loop.create_task(self._save())

    async def _save(self) -> None:
        """Make what was acknowledged durable, all that has come meanwhile at a time, and say so."""
        try:
            while self._acknowledged:
                changes, content = self._names.snapshot()
                problem = ""
                try:
                    if changes > self._names.saved:
                        await self._loop.run_in_executor(None, self._names.write, content)
                    self._names.note_saved(changes)
                except StorageError as error:
                    problem = str(error)
                due = [item for item in self._acknowledged if problem or item[0] <= changes]
                self._acknowledged = [item for item in self._acknowledged if not problem and item[0] > changes]
                for _, connection, header in due:
                    if problem:
                        self._refuse(connection, header, FrameError.OVERLOADED, problem)
                    else:
                        connection.reply(header, b"")
                        connection.settle()
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._on_failure(error)
        finally:
            self._saving = None

    async def stop(self) -> None:
        """Finish what is being saved."""
        if self._saving is not None:
            await asyncio.wait([self._saving])
        self._names.close()


def _count_of(accounts: bytes) -> int:
    if len(accounts) % _ID_SIZE:
        raise RemoteProtocolError(
            f"accounts are ids of {_ID_SIZE} bytes, and {len(accounts)} bytes are no number of them"
        )
    return len(accounts) // _ID_SIZE


def _filter_size(wanted: Filter) -> int:
    return 0 if wanted.accounts is None else len(wanted.accounts)


def _filter_of(asked: _Asked) -> Filter:
    """Raises `RemoteProtocolError`."""
    message = asked.first
    known = {int(kind) for kind in CommandKind}
    unknown = sorted(set(message.kinds) - known)
    if unknown:
        raise RemoteProtocolError(f"there is no command kind with the number {unknown[0]}")
    if message.name:
        _check_name(message.name)
    try:
        currency = currency_word(message.currency) if message.currency else 0
    except InvalidAmountOrName as error:
        raise RemoteProtocolError(str(error)) from error
    encoded = b"".join(asked.accounts)
    accounts: Words | None = None
    if encoded:
        accounts = np.frombuffer(encoded, np.int64).reshape(-1, 2)
        if not accounts.any(axis=1).all():
            raise RemoteProtocolError("no account has an id of zeros")
    kinds = sum(1 << kind for kind in set(message.kinds))
    return Filter(accounts, currency, kinds, refused=message.refused)


def _check_owner(principal: Principal, name: str) -> None:
    """Raise `UsageError` for the name of another token: one that begins with its id and a slash."""
    owner = _OWNED.match(name)
    if owner is None or not principal.token_id or owner[1] == principal.token_id or Scope.ADMIN in principal.scopes:
        return
    raise UsageError(f"{name} is a name of token {owner[1]} alone, and of administrators")


def _check_name(name: str) -> None:
    if not is_subscription_name(name):
        raise RemoteProtocolError(
            f"the name of a subscription is 1 to {SUBSCRIPTION_NAME_SIZE_MAX} printable ASCII characters without spaces"
        )
