"""A channel to a ledger whose accounts are spread over several shards: to the leader of each, by the slot map.

A frame of commands is split by the slots of its debit accounts, the parts go out together, and the results are joined
in order; look-ups likewise. The map comes from the first node that answers. Who is told WRONG_SHARD, in a result or
instead of a reply, asks for the map anew and sends again what was refused, ids unchanged, until the deadline: a slot
that moves takes its ids along, so that is safe. Connections to shards are made when they are first needed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import numpy as np
import numpy.typing as npt

from bezant.net.access.credentials import Credentials, own_credentials
from bezant.net.client.channel import (
    DETAIL_UNSURE,
    Answerer,
    Channel,
    OutcomeUnknown,
    check_timeout,
    unknown_results,
)
from bezant.net.client.connection import State, TcpChannel
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import AccessDenied, ConnectionFailed, RequestRefused, RequestTimedOut, UsageError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.messages import Welcome, decode_message
from bezant.protocol.placement import MAP_VERSION_MASK, METADATA_SHARD, SlotMap, owners_of, slots_of_words
from bezant.protocol.records import ACCOUNT_SIZE, EVENT_ANSWER_SIZE, EVENT_QUERY, Records

BACKOFF_S_MIN: Final = 0.01
BACKOFF_S_MAX: Final = 0.2
"""Seconds before something is sent again that was refused by a node whose map is not newer, doubled each time."""
DENIED_S: Final = 1.0
"""Seconds for which a shard whose nodes do not let us in is not asked again, whoever wants to know."""
_ID_SIZE: Final = 16
_WITH_CREDIT: Final = np.array(
    [CommandKind.TRANSFER, CommandKind.HOLD, CommandKind.CAPTURE, CommandKind.TRANSFER_AVAILABLE], np.int16
)
_LOOKUPS: Final = {
    Operation.LOOKUP_ACCOUNTS: (_ID_SIZE, 0, ACCOUNT_SIZE),
    Operation.LOOKUP_EVENTS: (EVENT_QUERY.itemsize, _ID_SIZE // 8, EVENT_ANSWER_SIZE),
}
"""Bytes of one question, which word of it begins the account that it goes by, bytes of one answer."""
_OF_EACH_SHARD: Final = frozenset({Operation.REGISTER_CURRENCY, Operation.NOTE_ACT})
"""What is about no account, and is done in every shard: so the log of any tells of it."""

Shards = npt.NDArray[np.uint16]


async def open_channel(addresses: str, timeout_s: float, credentials: Credentials | None = None) -> Channel:
    """Connect to the ledger that the nodes at "host:port,host:port" serve, be it one group or several shards.

    Raises as `TcpChannel.open`.
    """
    seed = await TcpChannel.open(addresses, timeout_s, credentials=credentials)
    if not seed.welcome.map_version and seed.welcome.shard != METADATA_SHARD:
        return seed
    try:
        slot_map = decode_message(await seed.request(Operation.MAP, b"", timeout_s), SlotMap)
        channel = ShardedChannel(slot_map, seed.welcome.shard, timeout_s, seed.credentials)
        await channel.connect_home()
    finally:
        await seed.close()
    return channel


class ShardedChannel:
    """A `Channel` over those of the shards. Made by `open_channel`."""

    def __init__(self, slot_map: SlotMap, home: int, timeout_s: float, credentials: Credentials | None = None) -> None:
        """`home` is the shard that answers what is about no account; another one if the map does not name it."""
        self._timeout_s = check_timeout(timeout_s)
        self.credentials = own_credentials() if credentials is None else credentials
        """What is shown to every node."""
        self._loop = asyncio.get_running_loop()
        self._map = slot_map
        self._owners = owners_of(slot_map)
        self._home = home if home in self.shards else self.shards[0]
        self._channels: dict[int, TcpChannel] = {}
        self._opening: dict[int, asyncio.Lock] = {}
        self._denied: dict[int, tuple[float, int, str]] = {}
        """By shard, until when it is not asked again, and what it said."""
        self._asking = asyncio.Lock()
        self._refreshing: asyncio.Task[None] | None = None
        self._told: dict[int, int] = {}
        self._closed = False

    async def connect_home(self) -> None:
        """Connect to the home shard, so that there is a welcome. Raises as `TcpChannel.open`."""
        await self.channel_of(self._home, self._timeout_s)

    @property
    def slot_map(self) -> SlotMap:
        """The map that this channel goes by."""
        return self._map

    @property
    def shards(self) -> list[int]:
        """The numbers of all shards."""
        return [place.shard for place in self._map.shards]

    @property
    def welcome(self) -> Welcome:
        """What the home shard said."""
        return self._channels[self._home].welcome

    @property
    def was_put_out(self) -> bool:
        """Whether the nodes of a shard let us in no more; see `TcpChannel.was_put_out`."""
        return any(channel.was_put_out for channel in self._channels.values())

    def shard_of(self, ids: bytes) -> int:
        """The shard that has these accounts, ids of 16 bytes back to back. Raises `UsageError` if several have."""
        found = np.unique(self._owners_of(np.frombuffer(ids, np.int64)[::2])).tolist()
        if len(found) != 1:
            raise UsageError(
                f"the accounts lie in {len(found)} shards ({', '.join(str(shard) for shard in found)}), and this can be"
                " asked of one at a time: ask for those of each shard by themselves"
            )
        return int(found[0])

    def shards_of(self, ids: bytes) -> list[int]:
        """The shard of each of these accounts, ids of 16 bytes back to back."""
        return [int(shard) for shard in self._owners_of(np.frombuffer(ids, np.int64)[::2])]

    def check_chains(self, commands: Records) -> None:
        """Raise `UsageError` for a chain that does not lie in one shard."""
        linked = (commands["flags"] & int(CommandFlag.LINKED)) != 0
        if not linked.any():
            return
        chains = _chain_numbers(linked)
        members = linked | np.concatenate(([False], linked[:-1]))
        owners = self._owners_of(commands["debit_head"])
        firsts = owners[np.searchsorted(chains, chains)]
        crosses = members & (owners != firsts)
        pays = members & np.isin(commands["kind"], _WITH_CREDIT)
        crosses |= pays & (self._owners_of(commands["credit_head"]) != firsts)
        if crosses.any():
            raise UsageError(
                f"command {int(np.flatnonzero(crosses)[0]) + 1} takes its chain into another shard, and a chain lies "
                "in one, as accounts do that share a tag in braces; transaction() moves money over several"
            )

    # ---- commands ----

    async def submit(self, commands: Records, timeout_s: float | None = None) -> Records:
        """Execute up to BATCH_COUNT_MAX commands, each in its shard; see `Channel.submit`."""
        seconds = self._seconds(timeout_s)
        deadline_s, backoff_s = self._loop.time() + seconds, BACKOFF_S_MIN
        version = self._map.version
        results, unknown = await self._try(commands, seconds)
        unsure = results["detail"] == DETAIL_UNSURE
        while len(again := _refused(commands, results)):
            left_s = deadline_s - self._loop.time()
            if left_s <= backoff_s:
                break
            shard = int(self._owners_of(commands["debit_head"][again[:1]])[0])
            try:
                await self._learn(shard, version, left_s, backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)
                version = self._map.version
                left_s = max(deadline_s - self._loop.time(), BACKOFF_S_MIN)
                found, failure = await self._try(commands[again], left_s)
            except (ConnectionFailed, RequestRefused):
                if len(again) == len(commands) and not unsure.any():
                    raise  # Nothing of it has been done.
                break  # What is done, or may be, is told as that; the others keep WRONG_SHARD, which did nothing.
            results = results.copy()
            results[again] = found
            unknown = failure or unknown
            unsure |= results["detail"] == DETAIL_UNSURE
        return _settled(commands, results, unsure, unknown)

    async def _try(self, commands: Records, seconds: float) -> tuple[Records, OutcomeUnknown | None]:
        """What came of each command, WRONG_SHARD included, and why that of some is unknown if it is."""
        try:
            return await self._submit_once(commands, seconds), None
        except OutcomeUnknown as unknown:
            return unknown.results, unknown

    async def _submit_once(self, commands: Records, seconds: float) -> Records:
        """Execute commands where the map says, and return what came of each, WRONG_SHARD included."""
        owners = self._routes_of(commands)
        if not len(owners) or (owners == owners[0]).all():
            return await self._begin(int(owners[0]) if len(owners) else self._home, commands, seconds)
        parts = [(int(shard), np.flatnonzero(owners == shard)) for shard in np.unique(owners)]
        begun = [asyncio.ensure_future(self._begin(shard, commands[rows], seconds)) for shard, rows in parts]
        try:
            answers = await asyncio.gather(*begun, return_exceptions=True)
        finally:
            for part in begun:
                part.cancel()
        return _joined(commands, [rows for _, rows in parts], answers)

    def _begin(self, shard: int, commands: Records, seconds: float) -> Awaitable[Records]:
        """Begin a part; what was begun before on the same shard is before it, if there is a connection to it."""
        channel = self._channels.get(shard)
        if channel is not None and channel.state is not State.FAILED:
            return channel.begin(commands, seconds)
        return self._begin_when_connected(shard, commands, seconds)

    async def _begin_when_connected(self, shard: int, commands: Records, seconds: float) -> Records:
        deadline_s = self._loop.time() + seconds
        try:
            channel = await self.channel_of(shard, seconds)
        except ConnectionFailed as error:
            raise OutcomeUnknown(
                f"{len(commands)} commands were not sent, unless before: shard {shard} cannot be reached: {error}",
                commands,
                unknown_results(len(commands)),
            ) from error
        return await channel.begin(commands, max(deadline_s - self._loop.time(), BACKOFF_S_MIN))

    def _routes_of(self, commands: Records) -> Shards:
        """The shard that each command is sent to: of a chain, that of its first one."""
        owners = self._owners_of(commands["debit_head"])
        linked = (commands["flags"] & int(CommandFlag.LINKED)) != 0
        if linked.any():
            chains = _chain_numbers(linked)
            owners = owners[np.searchsorted(chains, chains)]
        return owners

    def _owners_of(self, heads: npt.NDArray[np.int64]) -> Shards:
        return self._owners[slots_of_words(heads)]

    # ---- everything else ----

    async def request(self, operation: Operation, body: bytes, timeout_s: float | None = None) -> bytes:
        """Ask anything but commands; see `Channel.request`. Raises `UsageError` for what one shard cannot answer."""
        seconds = self._seconds(timeout_s)
        if operation is Operation.LIST_ACCOUNTS:
            raise UsageError("accounts are listed a shard at a time")
        if operation in _LOOKUPS:
            return await self._look_up(operation, body, seconds)
        if operation in _OF_EACH_SHARD:
            replies = [await self.request_of(shard, operation, body, seconds) for shard in self.shards]
            return replies[-1]
        return await self.request_of(self._home, operation, body, seconds)

    async def request_of(self, shard: int, operation: Operation, body: bytes, timeout_s: float | None) -> bytes:
        """Ask one shard; see `Channel.request`."""
        seconds = self._seconds(timeout_s)
        deadline_s = self._loop.time() + seconds
        channel = await self.channel_of(shard, seconds)
        reply = await channel.request(operation, body, max(deadline_s - self._loop.time(), BACKOFF_S_MIN))
        self._maybe_refresh(shard, channel)
        return reply

    async def request_about(self, account: bytes, operation: Operation, body: bytes, timeout_s: float | None) -> bytes:
        """Ask the shard that has an account, again until the map is right; see `Channel.request`."""

        async def ask(seconds: float) -> bytes:
            return await self._asked(self.shard_of(account), operation, body, seconds)

        return await self._until_placed(ask, self._seconds(timeout_s))

    async def _look_up(self, operation: Operation, body: bytes, seconds: float) -> bytes:
        """Answer look-ups, each by its shard, again until the map is right."""
        return await self._until_placed(lambda left_s: self._look_up_once(operation, body, left_s), seconds)

    async def _until_placed(self, ask: Callable[[float], Awaitable[bytes]], seconds: float) -> bytes:
        """Ask, with so many seconds left, until no node says that it was the wrong one."""
        deadline_s, backoff_s = self._loop.time() + seconds, BACKOFF_S_MIN
        while True:
            version = self._map.version
            left_s = deadline_s - self._loop.time()
            try:
                return await ask(max(left_s, BACKOFF_S_MIN))
            except _WrongShard as wrong:
                if left_s <= backoff_s:
                    raise RequestTimedOut(f"no shard took the request before the deadline: {wrong}") from wrong
                await self._learn(wrong.shard, version, left_s, backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    async def _look_up_once(self, operation: Operation, body: bytes, seconds: float) -> bytes:
        size, account_word, answer_size = _LOOKUPS[operation]
        words = np.frombuffer(body, np.int64).reshape(-1, size // 8)
        owners = self._owners_of(words[:, account_word])
        parts = [(int(shard), np.flatnonzero(owners == shard)) for shard in np.unique(owners)]
        if len(parts) <= 1:
            shard = parts[0][0] if parts else self._home
            return await self._asked(shard, operation, body, seconds)
        asked = [self._asked(shard, operation, words[rows].tobytes(), seconds) for shard, rows in parts]
        answers = np.zeros((len(words), answer_size), np.uint8)
        for (_, rows), reply in zip(parts, await asyncio.gather(*asked), strict=True):
            answers[rows] = np.frombuffer(reply, np.uint8).reshape(len(rows), answer_size)
        return answers.tobytes()

    async def _asked(self, shard: int, operation: Operation, body: bytes, seconds: float) -> bytes:
        try:
            return await self.request_of(shard, operation, body, seconds)
        except RequestRefused as refusal:
            if refusal.code == FrameError.WRONG_SHARD:
                raise _WrongShard(shard, refusal) from refusal
            raise

    # ---- the map ----

    async def _learn(self, shard: int, version: int, seconds: float, backoff_s: float) -> None:
        """Have a later map than that with this version, which a node of `shard` refused us by; or wait a little."""
        async with self._asking:
            if self._map.version > version:
                return
            try:
                channel = await self.channel_of(shard, seconds)
                found = decode_message(await channel.request(Operation.MAP, b"", seconds), SlotMap)
            except (ConnectionFailed, RequestRefused):
                found = self._map  # Whoever asked waits and tries again, until its deadline.
            self._take(found)
        if self._map.version == version:
            await asyncio.sleep(min(backoff_s, seconds))

    def _take(self, found: SlotMap) -> None:
        if found.version <= self._map.version:
            return
        self._map, self._owners = found, owners_of(found)
        for shard, channel in self._channels.items():
            channel.go_by_map(shard, found.version & MAP_VERSION_MASK)

    def _maybe_refresh(self, shard: int, channel: TcpChannel) -> None:
        """Ask for the map if a node goes by another than ours, once for each that it tells of."""
        told = channel.told_map_version
        if told in (0, self._map.version & MAP_VERSION_MASK, self._told.get(shard)):
            return
        self._told[shard] = told
        if self._refreshing is None or self._refreshing.done():
            learning = self._learn(shard, self._map.version, self._timeout_s, 0.0)
            self._refreshing = asyncio.create_task(learning, name="bezant slot map")

    # ---- connections ----

    async def channel_of(self, shard: int, seconds: float) -> TcpChannel:
        """The channel of a shard, connected within so many seconds if it is not. Raises `ConnectionFailed`."""
        channel = self._channels.get(shard)
        if channel is not None and channel.state is not State.FAILED:
            return channel
        deadline_s, backoff_s = self._loop.time() + seconds, BACKOFF_S_MIN
        async with self._opening.setdefault(shard, asyncio.Lock()):
            while True:
                if self._closed:
                    raise UsageError("the connection has been closed")
                channel = self._channels.get(shard)
                if channel is not None and channel.state is not State.FAILED:
                    return channel
                until_s, code, why = self._denied.get(shard, (0.0, 0, ""))
                if until_s > self._loop.time():
                    raise AccessDenied(code, why)
                left_s = max(deadline_s - self._loop.time(), BACKOFF_S_MIN)
                try:
                    return await self._connect(shard, left_s)
                except AccessDenied as error:
                    self._denied[shard] = (self._loop.time() + DENIED_S, error.code, str(error))
                    raise
                except (ConnectionFailed, RequestRefused):
                    if left_s <= backoff_s:
                        raise
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, BACKOFF_S_MAX)

    async def _connect(self, shard: int, seconds: float) -> TcpChannel:
        addresses = next((place.addresses for place in self._map.shards if place.shard == shard), None)
        if addresses is None:
            raise ConnectionFailed(f"version {self._map.version} of the slot map names no shard {shard}")
        channel = await TcpChannel.open(",".join(addresses), seconds, shard, self.credentials)
        if self._closed:
            await channel.close()
            raise UsageError("the connection has been closed")
        channel.go_by_map(shard, self._map.version & MAP_VERSION_MASK)
        failed = self._channels.get(shard)
        self._channels[shard] = channel
        if failed is not None:
            await failed.close()
        return channel

    def addresses_of(self, shard: int) -> list[str]:
        """Where the nodes of a shard are, the one that leads first if that is known."""
        channel = self._channels.get(shard)
        if channel is not None:
            return channel.node_addresses
        return next((list(place.addresses) for place in self._map.shards if place.shard == shard), [])

    async def close(self) -> None:
        """Close the connections; what is still unanswered ends unknown. May be called again."""
        self._closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        for channel in list(self._channels.values()):
            await channel.close()

    def _seconds(self, timeout_s: float | None) -> float:
        if self._closed:
            raise UsageError("the connection has been closed")
        return self._timeout_s if timeout_s is None else check_timeout(timeout_s)


class _WrongShard(Exception):  # noqa: N818 - it never leaves this module
    """A node of ``shard`` says that an account is not there."""

    def __init__(self, shard: int, refusal: RequestRefused) -> None:
        super().__init__(str(refusal))
        self.shard = shard


def _chain_numbers(linked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Numbers of the chains that commands belong to, rising; a command that stands alone has its own."""
    begins = np.ones(len(linked), np.int64)
    begins[1:] = ~linked[:-1]
    return np.cumsum(begins)


def _refused(commands: Records, results: Records) -> npt.NDArray[np.int64]:
    """Which commands another shard is to execute: those refused for that, and the others of their chains."""
    wrong = results["code"] == int(ResultCode.WRONG_SHARD)
    if not wrong.any():
        return np.zeros(0, np.int64)
    linked = (commands["flags"] & int(CommandFlag.LINKED)) != 0
    chains = _chain_numbers(linked)
    return np.flatnonzero(np.isin(chains, chains[wrong]))


def _settled(
    commands: Records, results: Records, unsure: npt.NDArray[np.bool_], unknown: OutcomeUnknown | None
) -> Records:
    """The results to be told. Raises `OutcomeUnknown` if any is not known.

    `unsure`: what may have been executed by a shard that did not answer, and was asked of another one since.
    """
    lost = unsure & (results["code"] == int(ResultCode.WRONG_SHARD))
    if lost.any():
        results = results.copy()
        results[lost] = unknown_results(1)[0]
    if unknown is None and not lost.any():
        return results
    why = str(unknown) if unknown is not None else "a slot has moved, and no shard took its commands in time"
    raise OutcomeUnknown(why, commands, results) from unknown


def _joined(commands: Records, parts: list[npt.NDArray[np.int64]], answers: list[Records | BaseException]) -> Records:
    """The results of all parts, in the order of the commands.

    Raises `OutcomeUnknown`, or what every part failed with.
    """
    results = unknown_results(len(commands))
    failures = [answer for answer in answers if isinstance(answer, BaseException)]
    if len(failures) == len(parts) and not any(isinstance(failure, OutcomeUnknown) for failure in failures):
        raise failures[0]
    for rows, answer in zip(parts, answers, strict=True):
        if isinstance(answer, OutcomeUnknown):
            results[rows] = answer.results
        elif not isinstance(answer, BaseException):
            results[rows] = answer
        elif not isinstance(answer, (ConnectionFailed, RequestRefused)):
            raise answer
    if failures:
        raise OutcomeUnknown(str(failures[0]), commands, results) from failures[0]
    return results


def shard_channels(channel: Channel) -> list[Answerer]:
    """The channels that a question to the whole ledger goes to, one after the other."""
    if not isinstance(channel, ShardedChannel):
        return [channel]
    return [_OneShard(channel, shard) for shard in channel.shards]


class _OneShard:
    """One shard of a `ShardedChannel`, for questions."""

    def __init__(self, channel: ShardedChannel, shard: int) -> None:
        self._channel = channel
        self._shard = shard

    async def request(self, operation: Operation, body: bytes, timeout_s: float | None) -> bytes:
        """See `Channel.request`."""
        return await self._channel.request_of(self._shard, operation, body, timeout_s)
