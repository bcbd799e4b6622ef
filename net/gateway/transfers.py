"""`POST /v1/wallet/balance_transfer`: the one request that comes by the thousand a second.

It has two ways in, which give the same answers: `Transfers.lane`, an ASGI application of its own that takes requests
whose body has arrived whole and spends nothing else on them; and the route, which describes it and takes the rest.
Concurrent transfers share frames to the node, all that one turn of the event loop brings: the SDK does that.
"""

from typing import Any, Final

import msgspec
from litestar import post

from bezant.net.gateway.asgi import Message, Receive, Scope, Send
from bezant.net.gateway.asking import AnyCall, Ledger, check_done, deadline_s, name_of_command
from bezant.net.gateway.authorizing import PRINCIPAL
from bezant.net.gateway.bodies import BalanceTransfer, Transferred
from bezant.net.gateway.conversions import transferred
from bezant.net.gateway.problems import GatewayProblem, refusal
from bezant.net.gateway.responses import COMMAND_PROBLEMS, send_answer

TRANSFER_PATH: Final = "/v1/wallet/balance_transfer"
_IDEMPOTENCY_KEY: Final = b"idempotency-key"
_REQUEST_TIMEOUT: Final = b"request-timeout"

_decode = msgspec.json.Decoder(BalanceTransfer).decode
_encode = msgspec.json.Encoder().encode


async def transfer(ledger: Ledger, asked: BalanceTransfer, key: str | None, timeout_s: float) -> Transferred:
    """Do a transfer. Raises `ProblemRaised` unless it is done, and `BezantError`."""
    text, identifier = name_of_command(asked.transaction_id, key)
    currency = asked.currency
    await ledger.decimals_of(currency)
    result = await ledger.wallet.transfer(
        asked.from_account,
        asked.to_account,
        asked.amount,
        currency,
        id=identifier,
        code=asked.code,
        timeout_s=timeout_s,
    )
    check_done(result, text)
    credit_known = ledger.same_shard(asked.from_account, asked.to_account, currency)
    return transferred(result, text, currency, credit_known=credit_known)


@post(TRANSFER_PATH, status_code=200, tags=["Transfers"], responses=COMMAND_PROBLEMS, operation_id="balance_transfer")
async def balance_transfer(call: AnyCall, data: BalanceTransfer) -> Transferred:
    """Move an amount from one wallet to another, durably.

    The account that pays and the transaction id name the transfer for ever. Sent again with the same content it gets
    the first outcome, with `repeated` true; with other content it is a conflict (409) that names the `field`. When the
    outcome is unknown (504), or nobody answers at all, send the same again until it is known.
    """
    return await transfer(call.ledger, data, call.key, call.timeout_s)


class Transfers:
    """The short way in."""

    async def lane(self, scope: Scope, body: bytes, send: Send) -> None:
        """Answer a request whose body is here. Raises what `transfer` raises."""
        ledger = scope[PRINCIPAL].ledger
        key = timeout = None
        for name, value in scope["headers"]:
            if name == _IDEMPOTENCY_KEY:
                key = value.decode("latin-1")
            elif name == _REQUEST_TIMEOUT:
                timeout = value.decode("latin-1")
        try:
            asked = _decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise refusal(GatewayProblem.REQUEST_INVALID, str(error)) from error
        answer = await transfer(ledger, asked, key, deadline_s(timeout, ledger.timeout_s))
        await send_answer(send, _encode(answer))


def replayed(message: Message, receive: Receive) -> Receive:
    """What gives a message that was received already once more, and then goes on."""
    waiting = [message]

    async def receive_again() -> Any:
        return waiting.pop() if waiting else await receive()

    return receive_again
