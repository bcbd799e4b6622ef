"""Routes of what happened: statements, transfers, receipts, and what became of a command."""

import asyncio
from collections.abc import Callable
from typing import Annotated, Final

from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import PathParameter, QueryParameter

from bezant.net.client.history import Statement
from bezant.net.client.subscribing import kind_numbers
from bezant.net.gateway.accounts import AccountPath
from bezant.net.gateway.asking import AnyCall, AnyQuestion, Question, account_of_path, check_done
from bezant.net.gateway.bodies import CurrencyCode, EventsPage, ResolveCommand, Resolved
from bezant.net.gateway.conversions import as_of_body, position_text
from bezant.net.gateway.identity import TEXT_SIZE_MAX, id_of_text
from bezant.net.gateway.moments import (
    AnyCursor,
    AnyMoment,
    AnyRange,
    Cursor,
    Moment,
    Range,
    next_cursor,
    read_cursor,
    read_position,
)
from bezant.net.gateway.problems import GatewayProblem, not_that_far, refusal
from bezant.net.gateway.responses import COMMAND_PROBLEMS, QUESTION_PROBLEMS
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import CommandKind

EVENTS_OF_ID_MAX: Final = 1000
"""Events on a page of those of one transaction id: its own, and those of its hold."""
_TAGS: Final = ["History"]
_BYTES: Final = "application/octet-stream"
IdPath = Annotated[str, PathParameter(description="A `transaction_id`.", max_length=TEXT_SIZE_MAX)]

Lines = Callable[[Moment, Range], Statement]


async def page_of(question: Question, lines: Lines, moment: Moment, pages: Range) -> EventsPage:
    """One page of events. `lines` asks for those of a range, as of a moment."""
    if pages.cursor is not None:
        cursor = read_cursor(pages.cursor, Cursor)
        moment = Moment(cursor.at, cursor.position, moment.wait_for)
        start, end = (pages.start, cursor.bound_ns) if cursor.reverse else (cursor.bound_ns, pages.end)
        pages = Range(start, end, cursor.reverse, pages.limit, None)
    async with asyncio.timeout(question.timeout_s):
        statement = lines(moment, pages)
        # One more than is told, to know whether, and where, there are more.
        events = [event async for event in statement]
        bodies = await question.ledger.event_bodies(events[: pages.limit])
    following = None
    if len(events) > pages.limit:
        bound_ns = events[pages.limit].timestamp_ns + (1 if pages.reverse else 0)
        following = next_cursor(statement.as_of, bound_ns, reverse=pages.reverse)
    return EventsPage(as_of_body(statement.as_of), bodies, following)


@get("/v1/accounts/{name:str}/statement", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="get_statement")
async def get_statement(
    question: AnyQuestion, moment: AnyMoment, pages: AnyRange, name: AccountPath, currency: CurrencyCode
) -> EventsPage:
    """Tell the events that touched an account, a page at a time, with the balances after each.

    All pages are as of the same moment, whatever happens meanwhile; give `cursor` and the same path and currency.
    """

    def lines(then: Moment, within: Range) -> Statement:
        return question.wallet.history.statement(
            account_of_path(name),
            currency,
            start=within.start,
            end=within.end,
            reverse=within.reverse,
            limit=within.limit + 1,
            **then.arguments(),
        )

    return await page_of(question, lines, moment, pages)


@get("/v1/transfers", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="find_transfers")
async def find_transfers(
    *,
    question: AnyQuestion,
    moment: AnyMoment,
    pages: AnyRange,
    account: Annotated[str | None, QueryParameter(max_length=48, required=False)] = None,
    currency: CurrencyCode | None = None,
    code: Annotated[int | None, QueryParameter(ge=-(2**31), le=2**31 - 1, required=False)] = None,
    kind: Annotated[str | None, QueryParameter(max_length=20, required=False)] = None,
    refused: Annotated[bool, QueryParameter(required=False, description="Also what was refused.")] = False,
) -> EventsPage:
    """Find events by all of what is given, a page at a time. An `account` goes with its `currency`."""
    if account is not None and currency is None:
        raise refusal(GatewayProblem.REQUEST_INVALID, "an account goes with its currency")
    kinds = [CommandKind(number) for number in kind_numbers([] if kind is None else [kind])]
    about = None if account is None or currency is None else (account, currency)

    def lines(then: Moment, within: Range) -> Statement:
        return question.wallet.history.transfers(
            account=about,
            currency=currency or "",
            code=code,
            kinds=kinds,
            refused=refused,
            start=within.start,
            end=within.end,
            reverse=within.reverse,
            limit=within.limit + 1,
            **then.arguments(),
        )

    return await page_of(question, lines, moment, pages)


@get("/v1/transfers/{transaction_id:str}", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="get_transfer")
async def get_transfer(
    question: AnyQuestion, moment: AnyMoment, transaction_id: IdPath, cursor: AnyCursor = None
) -> EventsPage:
    """Tell the events of a transaction id, whoever paid, and those that captured, released or expired its hold.

    There are up to 1000 on a page, all pages as of the same moment; give `cursor` and the same path.
    """
    identifier = id_of_text(account_of_path(transaction_id))

    def lines(then: Moment, within: Range) -> Statement:
        return question.wallet.history.by_id(identifier, start=within.start, limit=within.limit + 1, **then.arguments())

    page = await page_of(question, lines, moment, Range(None, None, False, EVENTS_OF_ID_MAX, cursor))
    if not page.events:
        raise refusal(GatewayProblem.NOT_FOUND, "there is no event with this id, as far as has been taken in")
    return page


@post(
    "/v1/transfers/{transaction_id:str}/resolve",
    status_code=200,
    tags=_TAGS,
    responses=COMMAND_PROBLEMS,
    operation_id="resolve_transfer",
)
async def resolve(call: AnyCall, transaction_id: IdPath, data: ResolveCommand) -> Resolved:
    """Settle what became of a command whose outcome is unknown: tell it, or see to it that it is never done."""
    text = account_of_path(transaction_id)
    await call.ledger.decimals_of(data.currency)
    result = await call.wallet.resolve(id_of_text(text), data.from_account, data.currency, timeout_s=call.timeout_s)
    if result.code is None:
        check_done(result, text)
    code = ResultCode.COMMITTED if result.code is None else result.code
    return Resolved(
        transaction_id=text,
        executed=code is not ResultCode.ID_FORBIDDEN,
        result=code.name,
        position=position_text(result.position),
    )


@get(
    "/v1/events/{position:str}/receipt",
    tags=_TAGS,
    responses=QUESTION_PROBLEMS | {200: ResponseSpec(bytes, generate_examples=False, media_type=_BYTES)},
    operation_id="get_receipt",
)
async def get_receipt(
    question: AnyQuestion, position: Annotated[str, PathParameter(description="Of the event.", max_length=20)]
) -> Response[bytes]:
    """Give the proof that an event is in the history, signed, for `bezant check-receipt` or `bezant.check_receipt`."""
    place = read_position(position)
    try:
        async with asyncio.timeout(question.timeout_s):
            receipt = await question.wallet.receipts.receipt(place)
    except TimeoutError as error:
        raise not_that_far(place, question.timeout_s) from error
    return Response(receipt, media_type=_BYTES)


HISTORY_ROUTES = (get_statement, find_transfers, get_transfer, resolve, get_receipt)
