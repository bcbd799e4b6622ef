"""Routes of the ledger as a whole: sums, currencies, and whether anybody is there."""

import asyncio
from typing import Literal

import msgspec
from litestar import get, post

from bezant.net.gateway.asking import AnyCall, AnyQuestion
from bezant.net.gateway.bodies import CurrenciesBody, CurrencyBody, RegisterCurrency, TotalsBody
from bezant.net.gateway.conversions import as_of_body, sums_body
from bezant.net.gateway.moments import AnyMoment
from bezant.net.gateway.problems import GatewayProblem, raised_by, refusal
from bezant.net.gateway.responses import COMMAND_PROBLEMS, QUESTION_PROBLEMS
from bezant.protocol.errors import AccessDenied, BezantError

_TAGS = ["Ledger"]


class Health(msgspec.Struct, frozen=True):
    """That it is well."""

    status: Literal["ok"] = "ok"


@get("/v1/totals", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="get_totals")
async def get_totals(question: AnyQuestion, moment: AnyMoment) -> TotalsBody:
    """Tell the sums of every currency in use, as they are or as they were."""
    async with asyncio.timeout(question.timeout_s):
        then = await question.wallet.history.totals(**moment.arguments())
    return TotalsBody(as_of_body(then.as_of), [sums_body(sums) for sums in then.currencies])


@get("/v1/currencies", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="list_currencies")
async def list_currencies(question: AnyQuestion) -> CurrenciesBody:
    """List the registered currencies, and how many decimals each has."""
    return _currencies(await question.wallet.currencies(timeout_s=question.timeout_s))


@post("/v1/currencies", status_code=200, tags=_TAGS, responses=COMMAND_PROBLEMS, operation_id="register_currency")
async def register_currency(call: AnyCall, data: RegisterCurrency) -> CurrenciesBody:
    """Register a currency, for ever. The same again changes nothing."""
    await call.wallet.register_currency(data.code, data.decimals, timeout_s=call.timeout_s)
    currencies = await call.wallet.currencies(timeout_s=call.timeout_s)
    call.ledger.learn(currencies)
    return _currencies(currencies)


def _currencies(decimals: dict[str, int]) -> CurrenciesBody:
    return CurrenciesBody([CurrencyBody(code, number) for code, number in sorted(decimals.items())])


@get("/health", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="get_health", sync_to_thread=False)
def get_health() -> Health:
    """Say that the gateway is there."""
    return Health()


@get("/ready", tags=_TAGS, responses=QUESTION_PROBLEMS, operation_id="get_readiness")
async def get_readiness(question: AnyQuestion) -> Health:
    """Say that the ledger answers, too."""
    try:
        await question.wallet.ping(timeout_s=question.timeout_s)
    except AccessDenied as error:
        raise refusal(GatewayProblem.NODE_REFUSED, "the nodes want a token that this gateway does not have") from error
    except BezantError as error:
        raise raised_by(error, is_command=False, is_known=False) from error
    return Health()


LEDGER_ROUTES = (get_totals, list_currencies, register_currency, get_health, get_readiness)
