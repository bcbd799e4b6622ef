"""The API of webhooks. Whoever may make tokens may use it: a hook is told of events for as long as it is there.

Whatever changes one is noted in the log first, over the connection of whoever asks: by the id of the hook, and the host
and port of its address, no more of which is told. What cannot be noted is not done; and what then fails is noted once
more, with the reason.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final, Literal

import msgspec
from litestar import delete, get, post
from litestar.di import NamedDependency
from litestar.params import PathParameter, SkipValidation

from bezant.net.gateway.asking import AnyLedger, AnyQuestion, Ledger
from bezant.net.gateway.bodies import AccountName, CurrencyCode
from bezant.net.gateway.conversions import time_text
from bezant.net.gateway.problems import GatewayProblem, refusal
from bezant.net.gateway.responses import COMMAND_PROBLEMS, QUESTION_PROBLEMS
from bezant.net.gateway.webhooks.hooks import Attempt, Webhooks, new_secret
from bezant.net.gateway.webhooks.sending import URL_SIZE_MAX, place_of, secret_text, target_of
from bezant.net.gateway.webhooks.store import Hook
from bezant.protocol.access import NOTED_WHAT_SIZE_MAX
from bezant.protocol.errors import BezantError

ACCOUNTS_MAX: Final = 100
"""Accounts that a hook may be limited to."""
KINDS_MAX: Final = 32
_TAGS: Final = ["Webhooks"]
_log = logging.getLogger("bezant")

HookPath = Annotated[str, PathParameter(description="The id of the webhook.", max_length=40)]
MessagePath = Annotated[str, PathParameter(description="The `webhook-id` of the message.", max_length=60)]


class MakeWebhook(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to tell of what: of events of these accounts, in this currency, of these kinds; of all that is left out."""

    url: Annotated[str, msgspec.Meta(max_length=URL_SIZE_MAX, examples=["https://shop.example/hooks/wallet"])]
    accounts: Annotated[list[AccountName], msgspec.Meta(max_length=ACCOUNTS_MAX)] = []
    currency: CurrencyCode | None = None
    kinds: Annotated[
        list[Annotated[str, msgspec.Meta(max_length=20, examples=["transfer"])]], msgspec.Meta(max_length=KINDS_MAX)
    ] = []


class WebhookBody(msgspec.Struct, frozen=True):
    """A webhook, and how it does. `disabled` says why it is told nothing, `failing` why it did not take what it was
    sent last, which is sent again; `position` is behind what it was told.
    """

    id: str
    url: str
    accounts: list[str]
    currency: str | None
    kinds: list[str]
    made: str
    delivered: int
    position: str
    disabled: str | None
    failing: str | None


class WebhookWithSecret(msgspec.Struct, frozen=True):
    """A webhook, and the secret that signs its messages, which is told this once."""

    webhook: WebhookBody
    secret: str


class WebhooksBody(msgspec.Struct, frozen=True):
    """All webhooks, the oldest first."""

    webhooks: list[WebhookBody]


class AttemptBody(msgspec.Struct, frozen=True):
    """What came of one message: whether it was taken, the status of the answer if there was one, and why if not."""

    delivered: bool
    status: int | None
    failure: str | None


class DeadLetterBody(msgspec.Struct, frozen=True):
    """A message that was given up, why, and what it said."""

    webhook_id: str
    time: str
    reason: str
    body: str


class DeadLettersBody(msgspec.Struct, frozen=True):
    """Messages that were given up, the oldest first."""

    dead_letters: list[DeadLetterBody]


class Done(msgspec.Struct, frozen=True):
    """That it was done."""

    status: Literal["success"] = "success"


AnyWebhooks = NamedDependency[SkipValidation[Webhooks | None]]


async def _checked(ledger: Ledger, webhooks: Webhooks | None) -> Webhooks:
    """The webhooks, for those who may administer them. Raises `ProblemRaised` and `BezantError`."""
    await ledger.check_may_administer()
    if webhooks is None:
        raise refusal(GatewayProblem.NOT_FOUND, "this gateway keeps no webhooks: it was given no folder for them")
    return webhooks


@asynccontextmanager
async def _noting(ledger: Ledger, operation: str, what: str) -> AsyncIterator[None]:
    """Have the log say what is about to be done, and if that fails, that it did. Raises `BezantError`."""
    await ledger.note(operation, what)
    try:
        yield
    except Exception as error:
        why = "".join(one if one.isprintable() else " " for one in str(error) or type(error).__name__)
        told = f"{what} - failed: {why}".encode()[:NOTED_WHAT_SIZE_MAX].decode(errors="ignore")
        try:
            await ledger.note(operation, told)
        except BezantError as missing:
            _log.warning("bezant: the audit lacks that %s %s: %s", operation, told, missing)
        raise


@asynccontextmanager
async def _noted(
    ledger: Ledger, webhooks: Webhooks | None, operation: str, hook: str, message: str = ""
) -> AsyncIterator[Webhooks]:
    """The webhooks, when the log says what is about to be done to one, or to a message that it did not take.

    Raises `ProblemRaised`, also if there is no such one, which leaves no act, and `BezantError`.
    """
    kept = await _checked(ledger, webhooks)
    place = place_of(kept.find(hook).url)
    if message:
        message = f" {(await kept.find_dead(hook, message)).message}"
    async with _noting(ledger, operation, f"{hook}{message} to {place}"):
        yield kept


@post("/v1/webhooks", status_code=200, tags=_TAGS, responses=COMMAND_PROBLEMS, operation_id="create_webhook")
async def create_webhook(question: AnyQuestion, webhooks: AnyWebhooks, data: MakeWebhook) -> WebhookWithSecret:
    """Have an address told of what happens from now on, by signed POSTs as in Standard Webhooks, in order.

    A message is told at least once, under the same `webhook-id`; one that is not taken is tried again later and later,
    and kept as a dead letter in the end. An answer of 410 disables the webhook.
    """
    kept = await _checked(question.ledger, webhooks)
    target_of(data.url)
    currency = data.currency or ""
    if currency:
        await question.ledger.decimals_of(currency)
    # The node says whether whoever asks may be told of this, and where "now" is.
    subscription = question.wallet.subscribe(accounts=data.accounts, currency=currency, kinds=data.kinds)
    try:
        async with asyncio.timeout(question.timeout_s):
            await subscription.begin()
        position = str(subscription.position)
    finally:
        await subscription.close()
    hook = Hook(
        id=f"wh_{secrets.token_hex(12)}",
        url=data.url,
        accounts=tuple(data.accounts),
        currency=currency,
        kinds=tuple(data.kinds),
        made_ns=time.time_ns(),
        secret=new_secret(),
        position=position,
    )
    async with _noting(question.ledger, "CREATE_WEBHOOK", f"{hook.id} to {place_of(hook.url)}"):
        return _with_secret(await kept.create(hook))


@get("/v1/webhooks", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="list_webhooks")
async def list_webhooks(ledger: AnyLedger, webhooks: AnyWebhooks) -> WebhooksBody:
    """List all webhooks of this gateway."""
    kept = await _checked(ledger, webhooks)
    return WebhooksBody([_body(hook, kept.failure(hook.id)) for hook in kept.all()])


@get("/v1/webhooks/{hook:str}", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="get_webhook")
async def get_webhook(ledger: AnyLedger, webhooks: AnyWebhooks, hook: HookPath) -> WebhookBody:
    """Tell how a webhook does."""
    kept = await _checked(ledger, webhooks)
    return _body(kept.find(hook), kept.failure(hook))


@delete(
    "/v1/webhooks/{hook:str}", status_code=200, tags=_TAGS, responses=COMMAND_PROBLEMS, operation_id="delete_webhook"
)
async def delete_webhook(ledger: AnyLedger, webhooks: AnyWebhooks, hook: HookPath) -> Done:
    """Tell a webhook nothing more, and forget it."""
    async with _noted(ledger, webhooks, "DELETE_WEBHOOK", hook) as kept:
        await kept.delete(hook)
    return Done()


@post(
    "/v1/webhooks/{hook:str}/test",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="test_webhook",
)
async def test_webhook(ledger: AnyLedger, webhooks: AnyWebhooks, hook: HookPath) -> AttemptBody:
    """Send a message of type `webhook.test`, once, and tell what came of it."""
    return _attempt(await (await _checked(ledger, webhooks)).test(hook, time_text(time.time_ns())))


@post(
    "/v1/webhooks/{hook:str}/secret",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="rotate_webhook_secret",
)
async def rotate_secret(ledger: AnyLedger, webhooks: AnyWebhooks, hook: HookPath) -> WebhookWithSecret:
    """Give a webhook a new secret. The old one signs beside it for 24 hours."""
    async with _noted(ledger, webhooks, "ROTATE_WEBHOOK_SECRET", hook) as kept:
        return _with_secret(await kept.rotate(hook))


@post(
    "/v1/webhooks/{hook:str}/enable",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="enable_webhook",
)
async def enable_webhook(ledger: AnyLedger, webhooks: AnyWebhooks, hook: HookPath) -> WebhookBody:
    """Go on, where it stood, with a webhook that was disabled."""
    async with _noted(ledger, webhooks, "ENABLE_WEBHOOK", hook) as kept:
        return _body(await kept.enable(hook), failing="")


@get("/v1/webhooks/{hook:str}/dead-letters", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="list_dead_letters")
async def list_dead_letters(ledger: AnyLedger, webhooks: AnyWebhooks, hook: HookPath) -> DeadLettersBody:
    """List the messages that were given up."""
    letters = await (await _checked(ledger, webhooks)).dead(hook)
    return DeadLettersBody(
        [DeadLetterBody(one.message, time_text(one.time_ns), one.reason, one.body.decode()) for one in letters]
    )


@post(
    "/v1/webhooks/{hook:str}/dead-letters/{message:str}/replay",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="replay_dead_letter",
)
async def replay_dead_letter(
    ledger: AnyLedger, webhooks: AnyWebhooks, hook: HookPath, message: MessagePath
) -> AttemptBody:
    """Send a message that was given up once more; if it is taken it is no dead letter any longer."""
    async with _noted(ledger, webhooks, "REPLAY_DEAD_LETTER", hook, message) as kept:
        return _attempt(await kept.replay(hook, message))


@delete(
    "/v1/webhooks/{hook:str}/dead-letters/{message:str}",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="delete_dead_letter",
)
async def delete_dead_letter(ledger: AnyLedger, webhooks: AnyWebhooks, hook: HookPath, message: MessagePath) -> Done:
    """Forget a message that was given up."""
    async with _noted(ledger, webhooks, "DELETE_DEAD_LETTER", hook, message) as kept:
        await kept.forget_dead(hook, message)
    return Done()


def _body(hook: Hook, failing: str) -> WebhookBody:
    return WebhookBody(
        id=hook.id,
        url=hook.url,
        accounts=list(hook.accounts),
        currency=hook.currency or None,
        kinds=list(hook.kinds),
        made=time_text(hook.made_ns),
        delivered=hook.delivered,
        position=hook.position,
        disabled=hook.disabled or None,
        failing=failing or None,
    )


def _with_secret(hook: Hook) -> WebhookWithSecret:
    return WebhookWithSecret(_body(hook, failing=""), secret_text(hook.secret))


def _attempt(attempt: Attempt) -> AttemptBody:
    return AttemptBody(not attempt.failure, attempt.status or None, attempt.failure or None)


WEBHOOK_ROUTES = (
    create_webhook,
    list_webhooks,
    get_webhook,
    delete_webhook,
    test_webhook,
    rotate_secret,
    enable_webhook,
    list_dead_letters,
    replay_dead_letter,
    delete_dead_letter,
)
