"""Transactions of several transfers: asked of the shard that coordinates; where there are no shards, a linked chain."""

from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from typing import Final, NamedTuple

import msgspec
import numpy as np

from bezant.net.client.channel import CODE_UNKNOWN, Channel
from bezant.net.client.coalescer import Coalescer
from bezant.net.client.commands import amount_units, cached_account_id, encode_command
from bezant.net.client.results import Outcome
from bezant.net.client.sharding import ShardedChannel
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import ConnectionFailed, RemoteProtocolError, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.kinds import TRANSACTION_LEGS_MAX, CommandField, CommandFlag, CommandKind, ResultFlag
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.names import currency_word
from bezant.protocol.records import COMMAND
from bezant.protocol.transactions import NO_LEG, Transact, Transacted, TransactionMode, leg_ids

_OTHERS: Final = (int(ResultCode.CHAIN_MEMBER_REFUSED), int(ResultCode.CHAIN_MEMBER_NOT_EXECUTED))
_FIELD_CODES: Final = (ResultCode.ID_CONFLICT, ResultCode.FIELD_NOT_ALLOWED)
_NO_ID: Final = bytes(16)


class TransactionLeg(NamedTuple):
    """One transfer of a transaction; a plain tuple of the first four will do."""

    debit: str
    credit: str
    amount: str | Decimal
    currency: str
    user_data: bytes = b""
    code: int = 0


class TransactionResult(msgspec.Struct, frozen=True):
    """What became of a transaction.

    ``code`` is None when that is not known: ask again with the same ``id`` and legs, or `resolve` it. ``leg`` is the
    number of the leg that was refused, from 0, or None. ``repeated``: the id was known, and this is its first outcome.
    ``applied``: every leg is done or taken back; if not, it will be. ``conflict_field`` as in `Result`.
    """

    outcome: Outcome
    code: ResultCode | None
    leg: int | None
    repeated: bool
    applied: bool
    id: bytes
    conflict_field: CommandField | None = None

    @property
    def committed(self) -> bool:
        """Whether all legs are done, or will be, durably."""
        return self.outcome is Outcome.COMMITTED


class TransactionClient:
    """Asks for transactions over a channel."""

    def __init__(self, channel: Channel, coalescer: Coalescer, decimals_of: Callable[[str], Awaitable[int]]) -> None:
        self._channel = channel
        self._coalescer = coalescer
        self._decimals_of = decimals_of

    async def ask(
        self,
        legs: Sequence[TransactionLeg | tuple[str, str, str | Decimal, str]],
        mode: TransactionMode,
        identifier: bytes,
        *,
        await_applied: bool,
        timeout_s: float,
    ) -> TransactionResult:
        """See `Wallet.transaction`."""
        if not 1 <= len(legs) <= TRANSACTION_LEGS_MAX:
            raise UsageError(f"a transaction has 1 to {TRANSACTION_LEGS_MAX} legs, not {len(legs)}")
        named = [TransactionLeg(*leg) for leg in legs]
        debit = cached_account_id(named[0].debit, named[0].currency)
        if not isinstance(self._channel, ShardedChannel):
            return await self._link(named, identifier, debit, timeout_s)
        records = np.frombuffer(b"".join([await self._encode(leg, _NO_ID) for leg in named]), COMMAND).copy()
        records["currency"] = [currency_word(leg.currency) for leg in named]
        asked = Transact(identifier, int(mode), records.tobytes(), await_applied)
        body = encode_message(asked)
        try:
            answer = await self._channel.request_about(debit, Operation.TRANSACT, body, timeout_s)
        except ConnectionFailed:
            return _result(Transacted(CODE_UNKNOWN), identifier)
        return _result(decode_message(answer, Transacted), identifier)

    async def _encode(self, leg: TransactionLeg, identifier: bytes, *, linked: bool = False) -> bytes:
        return encode_command(
            CommandKind.TRANSFER,
            identifier,
            cached_account_id(leg.debit, leg.currency),
            credit=cached_account_id(leg.credit, leg.currency),
            units=amount_units(leg.amount, await self._decimals_of(leg.currency)),
            flags=CommandFlag.LINKED if linked else 0,
            user_data=leg.user_data,
            code=leg.code,
        )

    async def _link(
        self, legs: Sequence[TransactionLeg], identifier: bytes, debit: bytes, timeout_s: float
    ) -> TransactionResult:
        """Do the legs as a chain, in the one group that there is."""
        ids = leg_ids(identifier, debit, len(legs))
        encoded = [
            await self._encode(leg, of_leg, linked=number < len(legs))
            for number, (leg, of_leg) in enumerate(zip(legs, ids, strict=True), start=1)
        ]
        rows = await self._coalescer.submit_chain(encoded, timeout_s)
        telling = [number for number, row in enumerate(rows) if row[0] not in _OTHERS]
        leg = next((number for number in telling if rows[number][0]), telling[0] if telling else 0)
        code, flags, detail = rows[leg][:3]
        is_repeated = bool(flags & int(ResultFlag.REPEATED))
        told = Transacted(code, leg if code > 0 else NO_LEG, detail, repeated=is_repeated, applied=code != CODE_UNKNOWN)
        return _result(told, identifier)


def _result(told: Transacted, identifier: bytes) -> TransactionResult:
    """Make a result of an answer. Raises `RemoteProtocolError` on numbers that this version does not know."""
    if told.code == CODE_UNKNOWN:
        return TransactionResult(Outcome.UNKNOWN, None, None, False, False, identifier)
    try:
        code = ResultCode(told.code)
        field = CommandField(told.detail) if code in _FIELD_CODES else None
    except ValueError as error:
        raise RemoteProtocolError(f"the node answers with what this client does not know: {error}") from error
    outcome = Outcome.COMMITTED if code is ResultCode.COMMITTED else Outcome.REJECTED
    leg = None if told.leg == NO_LEG else told.leg
    return TransactionResult(outcome, code, leg, told.repeated, told.applied, identifier, field)
