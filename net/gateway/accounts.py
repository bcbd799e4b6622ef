"""Routes of accounts: open, read, list, change."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Annotated

from litestar import get, post
from litestar.params import PathParameter, QueryParameter

from bezant.net.client.history import AsOf
from bezant.net.client.lookups import list_accounts
from bezant.net.client.results import UNLIMITED, Result, Unlimited
from bezant.net.client.sharding import shard_channels
from bezant.net.gateway.asking import AnyCall, AnyQuestion, account_of_path, check_done
from bezant.net.gateway.bodies import (
    AccountBody,
    AccountChanged,
    AccountsPage,
    ChangeAccount,
    CurrencyCode,
    OpenAccount,
    SetLimit,
)
from bezant.net.gateway.conversions import account_body, account_changed
from bezant.net.gateway.moments import AnyMoment, ListCursor, read_cursor, write_cursor
from bezant.net.gateway.problems import GatewayProblem, refusal
from bezant.net.gateway.responses import COMMAND_PROBLEMS, QUESTION_PROBLEMS

_TAGS = ["Accounts"]
AccountPath = Annotated[str, PathParameter(description="The account's name, with `/` as `%2F`.", max_length=48)]


def limit_of(text: str) -> str | Decimal | Unlimited:
    """A limit as the SDK takes it."""
    return UNLIMITED if text == UNLIMITED.value else text


def _done(result: Result, text: str) -> AccountChanged:
    check_done(result, text)
    return account_changed(result, text)


@post("/v1/accounts", status_code=200, tags=_TAGS, responses=COMMAND_PROBLEMS, operation_id="open_account")
async def open_account(call: AnyCall, data: OpenAccount) -> AccountChanged:
    """Open an account. Names are for ever: better opaque ones than those of people."""
    text, identifier = call.name(data.transaction_id)
    await call.ledger.decimals_of(data.currency)
    result = await call.wallet.open_account(
        data.name,
        data.currency,
        limit=limit_of(data.limit),
        id=identifier,
        code=data.code,
        timeout_s=call.timeout_s,
    )
    return _done(result, text)


@get("/v1/accounts", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="list_accounts")
async def list_all_accounts(
    question: AnyQuestion, cursor: Annotated[str | None, QueryParameter(max_length=200, required=False)] = None
) -> AccountsPage:
    """List all accounts, in the order in which they were opened, of each shard after those of another."""
    channels = shard_channels(question.wallet.channel)
    place = ListCursor(0, 0) if cursor is None else read_cursor(cursor, ListCursor)
    if not 0 <= place.part < len(channels) or not 0 <= place.skip < 1 << 40:
        raise refusal(GatewayProblem.REQUEST_INVALID, "that cursor leads nowhere")
    found = await list_accounts(channels[place.part], place.skip, question.timeout_s)
    following: ListCursor | None = ListCursor(place.part, place.skip + len(found))
    if not found:
        following = ListCursor(place.part + 1, 0) if place.part + 1 < len(channels) else None
    return AccountsPage(
        [account_body(account) for account in found], None if following is None else write_cursor(following)
    )


@get("/v1/accounts/{name:str}", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="get_account")
async def get_account(
    question: AnyQuestion, moment: AnyMoment, name: AccountPath, currency: CurrencyCode
) -> AccountBody:
    """Tell an account's balance and the rest of it: now or, `at` a time or a `position`, as it was.

    Now is asked of the leader, and has all that is committed.
    """
    name = account_of_path(name)
    as_of: AsOf | None = None
    if moment.is_now and not moment.wait_for:
        account = await question.wallet.account(name, currency, timeout_s=question.timeout_s)
    else:
        async with asyncio.timeout(question.timeout_s):
            as_of, account = await question.wallet.history.account(name, currency, **moment.arguments())
    if account is None:
        when = "" if moment.is_now else " then"
        raise refusal(GatewayProblem.NOT_FOUND, f"there is no account {name} in {currency}{when}")
    return account_body(account, as_of)


@post(
    "/v1/accounts/{name:str}/limit",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="set_limit",
)
async def set_limit(call: AnyCall, name: AccountPath, data: SetLimit) -> AccountChanged:
    """Set how far below zero an account may go."""
    text, identifier = call.name(data.transaction_id)
    await call.ledger.decimals_of(data.currency)
    result = await call.wallet.set_limit(
        account_of_path(name),
        data.currency,
        limit_of(data.limit),
        id=identifier,
        code=data.code,
        timeout_s=call.timeout_s,
    )
    return _done(result, text)


@post(
    "/v1/accounts/{name:str}/freeze",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="freeze_account",
)
async def freeze(call: AnyCall, name: AccountPath, data: ChangeAccount) -> AccountChanged:
    """Keep an account out of every transfer, hold and capture. What is held of it can still be released."""
    return await _change(call, call.wallet.freeze, name, data)


@post(
    "/v1/accounts/{name:str}/unfreeze",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="unfreeze_account",
)
async def unfreeze(call: AnyCall, name: AccountPath, data: ChangeAccount) -> AccountChanged:
    """Let a frozen account take part again."""
    return await _change(call, call.wallet.unfreeze, name, data)


@post(
    "/v1/accounts/{name:str}/close",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="close_account",
)
async def close(call: AnyCall, name: AccountPath, data: ChangeAccount) -> AccountChanged:
    """Close an account, for ever. It must have no balance and nothing held."""
    return await _change(call, call.wallet.close_account, name, data)


async def _change(
    call: AnyCall, change: Callable[..., Awaitable[Result]], name: str, data: ChangeAccount
) -> AccountChanged:
    """Have an account changed by a method of the wallet that takes nothing else."""
    text, identifier = call.name(data.transaction_id)
    await call.ledger.decimals_of(data.currency)
    result = await change(account_of_path(name), data.currency, id=identifier, code=data.code, timeout_s=call.timeout_s)
    return _done(result, text)


ACCOUNT_ROUTES = (open_account, list_all_accounts, get_account, set_limit, freeze, unfreeze, close)
