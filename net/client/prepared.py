"""Commands that are made before they are sent: what a chain consists of, and every kind but the transfer.

A `Command` holds what people write: names, and amounts as text. It becomes a record when it is sent, for that takes the
decimals of its currency, and the wallet may have to ask for those.
"""

from collections.abc import Callable
from decimal import Decimal

import msgspec

from bezant.net.client.commands import (
    NO_ID,
    amount_units,
    cached_account_id,
    check_id,
    encode_command,
    encode_open,
    limit_units,
)
from bezant.net.client.results import Unlimited
from bezant.protocol.errors import InvalidAmountOrName
from bezant.protocol.kinds import CommandFlag, CommandKind


class Command(msgspec.Struct, frozen=True):
    """A command that has not been sent. `Wallet.command` makes them and `Wallet.linked` executes them.

    ``id`` names it for ever, so sending one command twice does nothing twice. Of what it asks, only the id is checked
    so far: the rest is when it is sent.
    """

    kind: CommandKind
    id: bytes
    debit: str
    currency: str
    credit: str | None = None
    amount: str | Decimal | Unlimited | None = None
    reference: bytes = NO_ID
    hold_timeout_ms: int = 0
    keep_open: bool = False
    user_data: bytes = b""
    code: int = 0

    def encode(self, decimals: int, *, linked: bool = False) -> bytes:
        """The record; `decimals` are those of the currency. Raises `UsageError` if a field cannot be written in it."""
        flags = (CommandFlag.LINKED if linked else 0) | (CommandFlag.KEEP_OPEN if self.keep_open else 0)
        units = self._units(decimals)
        if self.kind is CommandKind.OPEN:
            return encode_open(self.id, self.debit, self.currency, units, self.code, flags=flags)
        return encode_command(
            self.kind,
            self.id,
            cached_account_id(self.debit, self.currency),
            credit=NO_ID if self.credit is None else cached_account_id(self.credit, self.currency),
            reference=self.reference,
            units=units,
            timeout_ms=self.hold_timeout_ms,
            flags=flags,
            user_data=self.user_data,
            code=self.code,
        )

    def _units(self, decimals: int) -> int:
        """The amount in minor units; 0 if there is none."""
        if self.amount is None:
            return 0
        if self.kind in (CommandKind.OPEN, CommandKind.SET_LIMIT):
            return limit_units(self.amount, decimals)
        if isinstance(self.amount, Unlimited):
            raise InvalidAmountOrName("UNLIMITED is a limit and no amount")
        units = amount_units(self.amount, decimals)
        if self.kind is CommandKind.CAPTURE and units == 0:
            # In the record a zero asks for all that is held: the last thing that somebody who writes "0.00" wants.
            raise InvalidAmountOrName("a capture of nothing is none; leave the amount out to capture all that is held")
        return units


class CommandMaker:
    """Makes commands without sending them; the arguments are those of the methods of `Wallet` with the same names.

    Raises `UsageError` for an ``id`` that is none, and nothing else.
    """

    def __init__(self, make_id: Callable[[], bytes]) -> None:
        self._make_id = make_id

    def open_account(
        self,
        name: str,
        currency: str,
        *,
        limit: str | Decimal | Unlimited = "0",
        id: bytes | None = None,  # noqa: A002 - the word that everybody looks for
        code: int = 0,
    ) -> Command:
        """Make the command of `Wallet.open_account`."""
        return Command(CommandKind.OPEN, self._id(id), name, currency, amount=limit, code=code)

    def transfer(
        self,
        debit: str,
        credit: str,
        amount: str | Decimal,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
    ) -> Command:
        """Make the command of `Wallet.transfer`."""
        return Command(
            CommandKind.TRANSFER, self._id(id), debit, currency, credit, amount, user_data=user_data, code=code
        )

    def transfer_available(
        self,
        debit: str,
        credit: str,
        amount: str | Decimal,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
    ) -> Command:
        """Make the command of `Wallet.transfer_available`."""
        return Command(
            CommandKind.TRANSFER_AVAILABLE,
            self._id(id),
            debit,
            currency,
            credit,
            amount,
            user_data=user_data,
            code=code,
        )

    def hold(
        self,
        debit: str,
        credit: str,
        amount: str | Decimal,
        currency: str,
        *,
        hold_timeout_ms: int = 0,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
    ) -> Command:
        """Make the command of `Wallet.hold`. Its ``id`` names the hold, also for what follows in the same chain."""
        return Command(
            CommandKind.HOLD,
            self._id(id),
            debit,
            currency,
            credit,
            amount,
            hold_timeout_ms=hold_timeout_ms,
            user_data=user_data,
            code=code,
        )

    def capture(
        self,
        hold_id: bytes,
        debit: str,
        credit: str,
        currency: str,
        *,
        amount: str | Decimal | None = None,
        keep_open: bool = False,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
    ) -> Command:
        """Make the command of `Wallet.capture`."""
        return Command(
            CommandKind.CAPTURE,
            self._id(id),
            debit,
            currency,
            credit,
            amount,
            check_id(hold_id),
            keep_open=keep_open,
            user_data=user_data,
            code=code,
        )

    def release(
        self,
        hold_id: bytes,
        debit: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
    ) -> Command:
        """Make the command of `Wallet.release`."""
        return Command(
            CommandKind.RELEASE,
            self._id(id),
            debit,
            currency,
            reference=check_id(hold_id),
            user_data=user_data,
            code=code,
        )

    def set_limit(
        self,
        name: str,
        currency: str,
        limit: str | Decimal | Unlimited,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
    ) -> Command:
        """Make the command of `Wallet.set_limit`."""
        return Command(
            CommandKind.SET_LIMIT, self._id(id), name, currency, amount=limit, user_data=user_data, code=code
        )

    def freeze(
        self,
        name: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
    ) -> Command:
        """Make the command of `Wallet.freeze`."""
        return Command(CommandKind.FREEZE, self._id(id), name, currency, user_data=user_data, code=code)

    def unfreeze(
        self,
        name: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
    ) -> Command:
        """Make the command of `Wallet.unfreeze`."""
        return Command(CommandKind.UNFREEZE, self._id(id), name, currency, user_data=user_data, code=code)

    def close_account(
        self,
        name: str,
        currency: str,
        *,
        id: bytes | None = None,  # noqa: A002
        user_data: bytes = b"",
        code: int = 0,
    ) -> Command:
        """Make the command of `Wallet.close_account`."""
        return Command(CommandKind.CLOSE, self._id(id), name, currency, user_data=user_data, code=code)

    def _id(self, identifier: bytes | None) -> bytes:
        return self._make_id() if identifier is None else check_id(identifier)
