"""Routes of transactions: several transfers that are all done, or none; and what became of one, leg by leg."""

import asyncio
from typing import Annotated, Final

from litestar import get, post
from litestar.params import QueryParameter

from bezant.net.client.commands import cached_account_id
from bezant.net.client.history import AsOf
from bezant.net.client.results import Event
from bezant.net.client.tracing import Phase, Side, Trace, TracedLeg
from bezant.net.client.transactions import TransactionLeg
from bezant.net.gateway.asking import HIDDEN, AnyCall, AnyQuestion, Ledger, account_of_path, check_done
from bezant.net.gateway.bodies import (
    CurrencyCode,
    EventBody,
    LegBody,
    MakeTransaction,
    SideBody,
    TransactionBody,
    TransactionDone,
)
from bezant.net.gateway.conversions import as_of_body, time_text
from bezant.net.gateway.history import IdPath
from bezant.net.gateway.identity import id_of_text, text_of_id
from bezant.net.gateway.moments import AnyMoment
from bezant.net.gateway.problems import GatewayProblem, refusal
from bezant.net.gateway.responses import QUESTION_PROBLEMS, TRANSACTION_PROBLEMS
from bezant.protocol.money import format_amount

_TAGS: Final = ["Transactions"]
_ENDED: Final = (Phase.CONFIRMED, Phase.CANCELLED, Phase.REFUSED)

Names = dict[bytes, tuple[str, str]]
Bodies = dict[int, EventBody]


@post(
    "/v1/transactions",
    status_code=200,
    tags=_TAGS,
    responses=TRANSACTION_PROBLEMS,
    operation_id="make_transaction",
)
async def make_transaction(call: AnyCall, data: MakeTransaction) -> TransactionDone:
    """Do several transfers, between accounts of any shards: all of them are done, or none.

    What each leg takes must be there without what the others bring. The transaction id and the first leg's account that
    pays name the transaction for ever.
    """
    text, identifier = call.name(data.transaction_id)
    for currency in {leg.currency for leg in data.legs}:
        await call.ledger.decimals_of(currency)
    result = await call.wallet.transaction(
        [
            TransactionLeg(leg.from_account, leg.to_account, leg.amount, leg.currency, code=leg.code)
            for leg in data.legs
        ],
        mode=data.mode,
        await_applied=data.answer_when == "applied",
        id=identifier,
        timeout_s=call.timeout_s,
    )
    check_done(result, text)
    return TransactionDone(transaction_id=text, repeated=result.repeated, applied=result.applied)


@get("/v1/transactions/{transaction_id:str}", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="get_transaction")
async def get_transaction(
    *,
    question: AnyQuestion,
    moment: AnyMoment,
    transaction_id: IdPath,
    from_account: Annotated[
        str | None,
        QueryParameter(
            max_length=48,
            required=False,
            description="The first leg's account that pays, if several accounts have used the id.",
        ),
    ] = None,
    to_account: Annotated[
        str | None,
        QueryParameter(
            max_length=48,
            required=False,
            description="The first leg's account that receives, for a token that is limited to it.",
        ),
    ] = None,
    currency: CurrencyCode | None = None,
) -> TransactionBody:
    """Tell what became of a transaction, or of a single transfer: of each leg, what was done in which shard, and when.

    It is as of one moment in all shards. A token that is limited to accounts is told of those sides of legs that are
    its own, if the first leg is paid or received by one of these. One that receives from another shard is to be named
    as `to_account`: where it is not open nobody knows its name.
    """
    if currency is None and (from_account is not None or to_account is not None):
        raise refusal(GatewayProblem.REQUEST_INVALID, "an account goes with its currency")
    async with asyncio.timeout(question.timeout_s):
        identifier = id_of_text(account_of_path(transaction_id))
        payer = None if from_account is None or currency is None else cached_account_id(from_account, currency)
        own = ("", "") if to_account is None or currency is None else (to_account, currency)
        as_of, traces = await question.wallet.history.trace(identifier, payer=payer, own=own, **moment.arguments())
        if not traces:
            raise refusal(GatewayProblem.NOT_FOUND, "there is no transaction with this id, as far as has been taken in")
        if len(traces) > 1:
            told = f"{len(traces)} accounts have used this id: name the one that pays, and its currency"
            raise refusal(GatewayProblem.REQUEST_INVALID, told)
        return await _transaction_body(question.ledger, as_of, traces[0])


async def _transaction_body(ledger: Ledger, as_of: AsOf | None, trace: Trace) -> TransactionBody:
    sides = [side for leg in trace.legs for side in leg.sides]
    events = {event.position: event for side in sides for event in side.events}
    bodies = dict(zip(events, await ledger.event_bodies([*events.values()]), strict=True))
    named = await ledger.names_of({side.account for side in sides})
    for leg in trace.legs:
        leg.debit, leg.credit = _if_shown(leg.debit, named), _if_shown(leg.credit, named)
    trace.legs = [leg for leg in trace.legs if leg.sides]
    legs = [await _leg_body(ledger, trace, leg, named, bodies) for leg in trace.legs]
    times = [event.timestamp_ns for event in events.values()]
    return TransactionBody(
        transaction_id=text_of_id(trace.id),
        kind=trace.kind,
        phase=trace.phase,
        result=None if trace.code is None else trace.code.name,
        refused_leg=trace.leg,
        shards=sorted({side.shard for leg in trace.legs for side in leg.sides if side.shard is not None}),
        begun=time_text(min(times)),
        ended=time_text(max(times)) if trace.phase in _ENDED else None,
        legs=legs,
        as_of=as_of_body(as_of),
    )


def _if_shown(side: Side | None, named: Names) -> Side | None:
    """A side, if whoever asks is told of its account."""
    return None if side is None or named.get(side.account, HIDDEN) == HIDDEN else side


async def _leg_body(ledger: Ledger, trace: Trace, leg: TracedLeg, named: Names, bodies: Bodies) -> LegBody:
    currency = next((found for side in leg.sides if (found := named[side.account][1])), "")
    return LegBody(
        number=leg.number,
        from_account=None if leg.debit is None else named[leg.debit.account][0],
        to_account=None if leg.credit is None else named[leg.credit.account][0],
        amount=format_amount(leg.amount, await ledger.decimals_of(currency) if currency else 0),
        currency=currency,
        phase=trace.phase_of(leg),
        debit=_side_body(leg.debit, named, bodies),
        credit=_side_body(leg.credit, named, bodies),
    )


def _side_body(side: Side | None, named: Names, bodies: Bodies) -> SideBody | None:
    if side is None:
        return None
    last: Event | None = side.events[-1] if side.events else None
    return SideBody(
        account=named[side.account][0],
        shard=side.shard,
        status=side.state,
        time=None if last is None else time_text(last.timestamp_ns),
        events=[bodies[event.position] for event in side.events],
    )


TRANSACTION_ROUTES = (make_transaction, get_transaction)
