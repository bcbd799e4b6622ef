"""Follows the ledger for each hook, and tells it what happens: in order, at least once, no matter what others do.

    behind the position --event--> attempt --2xx--> position written
                                     |----410--> disabled: nothing is told until somebody enables it
                                     |----else--> a pause, and again; after ATTEMPTS_MAX given up: kept as a dead letter

A hook whose dead letters are as many as are kept is disabled before one is lost, with the position where it was. While
the ledger cannot be followed, or does not let the gateway in, hooks wait, which the metrics tell.
"""

import asyncio
import contextlib
import hashlib
import logging
import random
import secrets
import ssl
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from bezant.net.gateway.bodies import EventBody
from bezant.net.gateway.own import OwnLedger
from bezant.net.gateway.problems import GatewayProblem, ProblemRaised, refusal
from bezant.net.gateway.push import followed, read_after
from bezant.net.gateway.settings import GatewaySettings
from bezant.net.gateway.webhooks.resolving import Resolver
from bezant.net.gateway.webhooks.sending import SendFailed, Way, send, signature_of
from bezant.net.gateway.webhooks.store import DEAD_MAX, HOOKS_MAX, DeadLetter, Hook, Store
from bezant.net.metrics.exposition import Family
from bezant.net.metrics.families import counted
from bezant.protocol.errors import BezantError, UsageError

BACKOFF_S_MAX: Final = 300.0
"""Seconds between two attempts: doubled each time, less up to half of it by chance."""
LOST_S: Final = 5.0
"""Seconds before the ledger is followed again when that ended."""
SECRET_SIZE: Final = 32
OLD_SECRET_S: Final = 24 * 3600
"""Seconds for which a secret that was replaced still signs, beside the new one."""
SENDING_MAX: Final = 64
"""Attempts at a time on behalf of somebody who waits: tests, and dead letters that are told again."""
_GONE: Final = 410
_NANOSECONDS: Final = 10**9
_log = logging.getLogger("bezant")
_encode = msgspec.json.Encoder().encode
T = TypeVar("T")


class Attempt(NamedTuple):
    """What came of telling a hook: the status of the answer, 0 without one, and why it was not taken; "" if it was."""

    status: int
    failure: str


class Message(msgspec.Struct, frozen=True):
    """What is sent, as Standard Webhooks has it."""

    type: str
    timestamp: str
    data: EventBody | dict[str, str]


def networks_of(texts: tuple[str, ...]) -> tuple[Any, ...]:
    """Networks, such as 10.0.0.0/8. Raises `UsageError`."""
    try:
        return tuple(ip_network(text) for text in texts)
    except ValueError as error:
        raise UsageError(f"a network is written as 10.0.0.0/8: {error}") from error


def receivers_context(authorities: str) -> ssl.SSLContext:
    """How receivers are known: by the authorities that the machine trusts, and those in a file ("" for no file).

    Raises `UsageError` for a file that has none.
    """
    context = ssl.create_default_context()
    if authorities:
        try:
            context.load_verify_locations(cafile=authorities)
        except OSError as error:
            raise UsageError(f"{authorities} has no certificates of authorities: {error.strerror or error}") from error
    return context


class Webhooks:
    """The hooks of a gateway; see the module."""

    def __init__(self, own: OwnLedger, settings: GatewaySettings) -> None:
        """The ledger of `own` is followed. Raises `UsageError` if the folder of the settings cannot be had."""
        self._way = Way(networks_of(settings.webhook_allow), receivers_context(settings.webhook_ca), Resolver())
        self._store = Store(Path(settings.webhooks))
        self._own = own
        self._attempts_max = settings.webhook_attempts_max
        self._backoff_s = settings.webhook_backoff_s
        self._thread = ThreadPoolExecutor(1, "bezant-webhooks")
        self._hooks = {hook.id: hook for hook in self._store.hooks()}
        self._following: dict[str, asyncio.Task[None]] = {}
        self._behind: set[str] = set()
        """Hooks that the ledger is followed for, in vain."""
        self._failing: dict[str, str] = {}
        """Why the message that a hook is to take was not taken at the last attempt; it is sent again, or given up."""
        self._sending = 0

    def start(self) -> None:
        """Tell all hooks that are not disabled."""
        for hook in self._hooks:
            self._follow(hook)

    async def close(self) -> None:
        """Stop; what was being told is told again by the next gateway that has the folder."""
        for hook in list(self._following):
            await self._leave(hook)
        self._thread.shutdown()
        self._store.close()

    def families(self) -> list[Family]:
        """How many hooks are told, are behind as the ledger cannot be followed for them, are disabled."""
        disabled = sum(bool(hook.disabled) for hook in self._hooks.values())
        behind = len(self._behind) if not self._own.is_refused else len(self._hooks) - disabled
        return hook_families(len(self._hooks) - disabled - behind, behind, disabled)

    # ---- what is asked of it ----

    def failure(self, hook: str) -> str:
        """Why a hook did not take what it was sent last; "" if it did, or was sent nothing since the start."""
        return self._failing.get(hook, "")

    def all(self) -> list[Hook]:
        """All hooks, the oldest first."""
        return [*self._hooks.values()]

    def find(self, hook: str) -> Hook:
        """A hook. Raises `ProblemRaised` if there is none."""
        found = self._hooks.get(hook)
        if found is None:
            raise refusal(GatewayProblem.NOT_FOUND, "there is no such webhook")
        return found

    async def create(self, hook: Hook) -> Hook:
        """Take on a hook. Raises `ProblemRaised` if there is no room."""
        if len(self._hooks) >= HOOKS_MAX:
            raise refusal(GatewayProblem.GATEWAY_OVERLOADED, f"there are {HOOKS_MAX} webhooks already")
        self._hooks[hook.id] = hook
        try:
            await self._stored(lambda: self._store.put(hook))
        except BaseException:
            # Whoever asked may be gone, and knows no secret: it is taken back, behind what may be writing it now.
            self._hooks.pop(hook.id, None)
            self._begin(lambda: self._store.delete(hook.id))
            raise
        self._follow(hook.id)
        return hook

    async def delete(self, hook: str) -> None:
        """Forget a hook. Raises `ProblemRaised` if there is none."""
        self.find(hook)
        # All of it is begun before anything is awaited: whoever asks may go away, and others may ask meanwhile.
        del self._hooks[hook]
        forgetting = self._begin(lambda: self._store.delete(hook))
        await self._leave(hook)
        await asyncio.shield(forgetting)

    async def rotate(self, hook: str) -> Hook:
        """Give a hook a new secret; the old one signs besides for a day."""
        until_ns = time.time_ns() + OLD_SECRET_S * _NANOSECONDS
        old = self.find(hook).secret
        return await self._change(hook, secret=new_secret(), old_secret=old, old_until_ns=until_ns)

    async def enable(self, hook: str) -> Hook:
        """Go on with a hook that was disabled. Raises `ProblemRaised` if its dead letters are as many as are kept."""
        self.find(hook)
        if await self._stored(lambda: self._store.dead_count(hook)) >= DEAD_MAX:
            raise refusal(GatewayProblem.REQUEST_INVALID, "its dead letters are as many as are kept: delete some")
        await self._change(hook, disabled="")
        self._follow(hook)
        return self.find(hook)

    async def dead(self, hook: str) -> list[DeadLetter]:
        """What was given up of a hook."""
        self.find(hook)
        return await self._stored(lambda: self._store.dead(hook))

    async def find_dead(self, hook: str, message: str) -> DeadLetter:
        """One message that was given up. Raises `ProblemRaised` if there is none."""
        found = next((letter for letter in await self.dead(hook) if letter.message == message), None)
        if found is None:
            raise refusal(GatewayProblem.NOT_FOUND, "there is no such dead letter")
        return found

    async def forget_dead(self, hook: str, message: str) -> None:
        """Forget what was given up. Raises `ProblemRaised` if there is none."""
        self.find(hook)
        if not await self._stored(lambda: self._store.forget_dead(hook, message)):
            raise refusal(GatewayProblem.NOT_FOUND, "there is no such dead letter")

    async def replay(self, hook: str, message: str) -> Attempt:
        """Tell a hook once more what was given up; it is forgotten if that is taken."""
        found = await self.find_dead(hook, message)
        attempt = await self._tell_now(self.find(hook), message, found.body)
        if not attempt.failure:
            await self._stored(lambda: self._store.forget_dead(hook, message))
        return attempt

    async def test(self, hook: str, time_text: str) -> Attempt:
        """Tell a hook something that has not happened, once."""
        body = _encode(Message("webhook.test", time_text, {"webhook_id": hook}))
        return await self._tell_now(self.find(hook), f"msg_test_{secrets.token_hex(12)}", body)

    async def _tell_now(self, hook: Hook, message: str, body: bytes) -> Attempt:
        if self._sending >= SENDING_MAX:
            raise refusal(GatewayProblem.GATEWAY_OVERLOADED, f"{SENDING_MAX} messages are under way already")
        self._sending += 1
        try:
            return await self._tell(hook, message, body)
        finally:
            self._sending -= 1

    # ---- following ----

    def _follow(self, hook: str) -> None:
        found = self._hooks.get(hook)
        if found is not None and not found.disabled and hook not in self._following:
            self._following[hook] = asyncio.create_task(self._tell_all(hook), name=f"bezant {hook}")

    async def _leave(self, hook: str) -> None:
        task = self._following.pop(hook, None)
        self._behind.discard(hook)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        self._failing.pop(hook, None)

    async def _tell_all(self, hook: str) -> None:
        """Follow the ledger, again and again, until cancelled or the hook is disabled."""
        while not self._hooks[hook].disabled:
            await self._own.served()
            try:
                await self._tell_on(hook)
            except (BezantError, ProblemRaised) as error:
                if hook not in self._behind:
                    _log.warning("bezant: webhook %s: the ledger is not followed just now: %s", hook, error)
                self._behind.add(hook)
            except Exception:
                _log.exception("bezant: webhook %s failed", hook)
            if not self._hooks[hook].disabled:
                await asyncio.sleep(LOST_S)
        self._behind.discard(hook)
        self._following.pop(hook, None)

    async def _tell_on(self, hook: str) -> None:
        """Tell what there is behind the position of a hook, until the subscription ends or the hook is disabled."""
        found, ledger = self._hooks[hook], self._own.ledger
        subscription = ledger.wallet.subscribe(
            accounts=found.accounts, currency=found.currency, kinds=found.kinds, after=read_after(found.position)
        )
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            await subscription.begin()
            if hook in self._behind:
                self._behind.discard(hook)
                _log.warning("bezant: webhook %s: the ledger is followed again", hook)
            async with contextlib.aclosing(followed(ledger, subscription, never)) as told:
                async for batch in told:
                    for position, event in batch:
                        if not await self._tell_event(hook, position, event):
                            return
                    position = str(subscription.position or "")
                    if not batch and position not in {"", self._hooks[hook].position}:
                        await self._change(hook, position=position)
        finally:
            await subscription.close()

    async def _tell_event(self, hook: str, position: str, event: EventBody) -> bool:
        """Tell a hook of an event until it takes it, or has had as many attempts as there are.

        False: it has done neither, because the hook is disabled (and perhaps enabled since); the event is due again.
        """
        message, body = message_id(hook, event), _encode(Message(event.kind, event.time, event))
        attempt = Attempt(0, "")
        for number in range(self._attempts_max):
            if number:
                pause_s = min(self._backoff_s * 2.0 ** (number - 1), BACKOFF_S_MAX)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            attempt = await self._tell(self._hooks[hook], message, body)
            if attempt.failure:
                self._failing[hook] = attempt.failure
            else:
                self._failing.pop(hook, None)
                await self._change(hook, position=position, delivered=self._hooks[hook].delivered + 1)
                return True
            if attempt.status == _GONE:
                await self._disable(hook, "it answered 410 Gone")
                return False
        if await self._stored(lambda: self._store.dead_count(hook)) >= DEAD_MAX:
            await self._disable(hook, f"{DEAD_MAX} messages were given up, and there is no room for more")
            return False
        before = self._hooks[hook].position
        changed = self._hooks[hook] = msgspec.structs.replace(self._hooks[hook], position=position)
        try:
            await self._stored(lambda: self._store.bury(changed, message, attempt.failure, body))
        except Exception:
            self._hooks[hook] = msgspec.structs.replace(self._hooks[hook], position=before)
            raise
        return True

    async def _tell(self, hook: Hook, message: str, body: bytes) -> Attempt:
        now_ns = time.time_ns()
        now_s = now_ns // _NANOSECONDS
        signing = [hook.secret, *([hook.old_secret] if hook.old_until_ns > now_ns else [])]
        headers = [
            ("Content-Type", "application/json"),
            ("User-Agent", "bezant"),
            ("webhook-id", message),
            ("webhook-timestamp", str(now_s)),
            ("webhook-signature", signature_of(signing, message, now_s, body)),
        ]
        try:
            status = await send(hook.url, headers, body, self._way)
        except SendFailed as error:
            return Attempt(0, str(error))
        return Attempt(status, "" if 200 <= status < 300 else f"it answered {status}")

    async def _disable(self, hook: str, reason: str) -> None:
        _log.warning("bezant: webhook %s is disabled: %s", hook, reason)
        await self._change(hook, disabled=reason)

    # ---- keeping ----

    async def _change(self, hook: str, **changes: Any) -> Hook:
        changed = msgspec.structs.replace(self.find(hook), **changes)
        self._hooks[hook] = changed  # before anything is awaited, so that no change is lost to another
        await self._stored(lambda: self._store.put(changed) if hook in self._hooks else None)
        return changed

    def _begin(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Have the store do something behind what it does already, whether or not anybody waits for it."""
        doing = asyncio.get_running_loop().run_in_executor(self._thread, work)
        doing.add_done_callback(_note_failure)
        return doing

    async def _stored(self, work: Callable[[], T]) -> T:
        """Have the store do something, to its end: it blocks, and is not to be left halfway."""
        return await asyncio.shield(self._begin(work))


def hook_families(told: int, behind: int, disabled: int) -> list[Family]:
    """How many hooks do how."""
    states = {"told": told, "behind": behind, "disabled": disabled}
    return [counted("bezant_gateway_webhooks", "webhooks, by how they do", "state", states, kind="gauge")]


def _note_failure(doing: "asyncio.Future[Any]") -> None:
    if not doing.cancelled() and doing.exception() is not None:
        _log.error("bezant: the folder of webhooks could not be written or read", exc_info=doing.exception())


def new_secret() -> bytes:
    """A secret that nobody guesses."""
    return secrets.token_bytes(SECRET_SIZE)


def message_id(hook: str, event: EventBody) -> str:
    """The id of a message: the same whenever a hook is told of the same event."""
    text = f"{hook}\n{event.position}\n{event.kind}\n{event.transaction_id}\n{event.from_account}\n{event.to_account}"
    return "msg_" + hashlib.sha256(text.encode()).hexdigest()[:40]
