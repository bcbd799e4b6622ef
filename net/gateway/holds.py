"""Routes of holds."""

import asyncio
from typing import Annotated

from litestar import get, post
from litestar.params import PathParameter, QueryParameter

from bezant.net.client.results import Result
from bezant.net.gateway.accounts import AccountPath
from bezant.net.gateway.asking import AnyCall, AnyQuestion, Call, account_of_path, check_done
from bezant.net.gateway.bodies import (
    CaptureHold,
    CurrencyCode,
    HoldBody,
    HoldsBody,
    MakeHold,
    ReleaseHold,
    Transferred,
)
from bezant.net.gateway.conversions import as_of_body, transferred
from bezant.net.gateway.identity import TEXT_SIZE_MAX, id_of_text
from bezant.net.gateway.moments import AnyCursor, AnyMoment, HoldsCursor, Moment, read_cursor, write_cursor
from bezant.net.gateway.responses import COMMAND_PROBLEMS, QUESTION_PROBLEMS
from bezant.protocol.money import format_amount

_TAGS = ["Holds"]
HoldPath = Annotated[
    str, PathParameter(description="The `transaction_id` that the hold was made with.", max_length=TEXT_SIZE_MAX)
]


def _done(call: Call, result: Result, text: str, accounts: tuple[str, str | None, str]) -> Transferred:
    debit, credit, currency = accounts
    check_done(result, text)
    credit_known = credit is not None and call.ledger.same_shard(debit, credit, currency)
    return transferred(result, text, currency, credit_known=credit_known)


@post("/v1/holds", status_code=200, tags=_TAGS, responses=COMMAND_PROBLEMS, operation_id="make_hold")
async def make_hold(call: AnyCall, data: MakeHold) -> Transferred:
    """Set an amount of one account aside for another, to be captured or released."""
    text, identifier = call.name(data.transaction_id)
    await call.ledger.decimals_of(data.currency)
    result = await call.wallet.hold(
        data.from_account,
        data.to_account,
        data.amount,
        data.currency,
        hold_timeout_ms=data.expires_in_ms,
        id=identifier,
        code=data.code,
        timeout_s=call.timeout_s,
    )
    return _done(call, result, text, (data.from_account, data.to_account, data.currency))


@post(
    "/v1/holds/{hold_id:str}/capture",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="capture_hold",
)
async def capture_hold(call: AnyCall, hold_id: HoldPath, data: CaptureHold) -> Transferred:
    """Move what is held, or an amount of it, between the accounts of the hold; what that leaves is free again."""
    text, identifier = call.name(data.transaction_id)
    await call.ledger.decimals_of(data.currency)
    result = await call.wallet.capture(
        id_of_text(account_of_path(hold_id)),
        data.from_account,
        data.to_account,
        data.currency,
        amount=data.amount,
        keep_open=data.keep_open,
        id=identifier,
        code=data.code,
        timeout_s=call.timeout_s,
    )
    return _done(call, result, text, (data.from_account, data.to_account, data.currency))


@post(
    "/v1/holds/{hold_id:str}/release",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="release_hold",
)
async def release_hold(call: AnyCall, hold_id: HoldPath, data: ReleaseHold) -> Transferred:
    """Let what is left of a hold be free again."""
    text, identifier = call.name(data.transaction_id)
    await call.ledger.decimals_of(data.currency)
    result = await call.wallet.release(
        id_of_text(account_of_path(hold_id)),
        data.from_account,
        data.currency,
        id=identifier,
        code=data.code,
        timeout_s=call.timeout_s,
    )
    return _done(call, result, text, (data.from_account, None, data.currency))


@get("/v1/accounts/{name:str}/holds", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="list_holds")
async def list_holds(
    *,
    question: AnyQuestion,
    moment: AnyMoment,
    name: AccountPath,
    currency: CurrencyCode,
    limit: Annotated[int, QueryParameter(ge=1, le=1000, required=False, description="Holds on one page.")] = 100,
    cursor: AnyCursor = None,
) -> HoldsBody:
    """List the holds on an account that are open, or were, in the order in which they were made, a page at a time.

    All pages are as of the same moment, whatever happens meanwhile; give `cursor` and the same path and currency.
    """
    after = 0
    if cursor is not None:
        place = read_cursor(cursor, HoldsCursor)
        moment, after = Moment(None, place.position, moment.wait_for), place.after
    account = (account_of_path(name), currency)
    async with asyncio.timeout(question.timeout_s):
        asked = question.wallet.history.holds(account=account, after=after, limit=limit + 1, **moment.arguments())
        # One more than is told, to know whether there are more.
        found = [hold async for hold in asked]
        told = found[:limit]
        bodies = await question.ledger.event_bodies([hold.event for hold in told])
    holds = [
        HoldBody(body.transaction_id, format_amount(hold.remaining, hold.event.decimals), body)
        for hold, body in zip(told, bodies, strict=True)
    ]
    following = None
    if len(found) > limit and asked.as_of is not None:
        following = write_cursor(HoldsCursor(asked.as_of.position, told[-1].event.position))
    return HoldsBody(as_of_body(asked.as_of), holds, following, complete=following is None)


HOLD_ROUTES = (make_hold, capture_hold, release_hold, list_holds)
