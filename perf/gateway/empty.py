"""An empty answer of the gateway's framework: the same request, decoded, and the smallest answer, by one process."""

import msgspec
from litestar import Litestar, post

from bezant.net.gateway.bodies import BalanceTransfer


class Answer(msgspec.Struct, frozen=True):
    """The smallest answer that a transfer could have."""

    status: str
    transaction_id: str | None


@post("/empty", status_code=200)
async def answer_nothing(data: BalanceTransfer) -> Answer:
    """Answer, and do nothing."""
    return Answer("success", data.transaction_id)


application = Litestar([answer_nothing], openapi_config=None, logging_config=None)
