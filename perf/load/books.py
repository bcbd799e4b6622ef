"""The books around a load: accounts to move money between, and the proof that what was answered is what happened."""

from typing import Final, NamedTuple

import numpy as np

from bezant.perf.load.control import ControlClient
from bezant.protocol.codes import CODE_ROW, ResultCode
from bezant.protocol.errors import BezantError
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandKind
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import COMMAND, LIMIT_UNLIMITED, NAME_SIZE_MAX, Words

CURRENCY: Final = "EUR"
_READY: Final = (ResultCode.COMMITTED, ResultCode.ACCOUNT_EXISTS)
_NAME_OFFSET: Final = COMMAND.fields["credit_head"][1] if COMMAND.fields else 0


class BooksUnusable(BezantError):  # noqa: N818 - it says what happened, as in `bezant.protocol.errors`
    """The node would not open the accounts that the load needs."""


class Books(NamedTuple):
    """Sums over the accounts of a load. ``event_count`` rises by two for a transfer: one for each of its accounts."""

    event_count: int
    balance: int


def account_names(count: int) -> list[str]:
    """The names of the accounts of a load, in order."""
    return [f"bench:{number:06d}" for number in range(count)]


class LoadAccounts:
    """The accounts of a load: ids, and the same as the two arrays of words that the kernels read."""

    def __init__(self, count: int) -> None:
        self.names = account_names(count)
        self.identifiers = [account_id(name, CURRENCY) for name in self.names]
        words = np.frombuffer(b"".join(self.identifiers), np.int64).reshape(count, 2)
        self.heads: Words = words[:, 0].copy()
        self.tails: Words = words[:, 1].copy()

    async def open_all(self, client: ControlClient) -> None:
        """Open the accounts that are not open yet, without a limit, so that no transfer is refused for funds.

        The id of each opening is that of the account, so that opening again is a repeat and leaves no event. Raises
        `BooksUnusable`.
        """
        currency = currency_word(CURRENCY)
        for start in range(0, len(self.names), BATCH_COUNT_MAX):
            names = self.names[start : start + BATCH_COUNT_MAX]
            heads, tails = self.heads[start : start + len(names)], self.tails[start : start + len(names)]
            commands = np.zeros(len(names), COMMAND)
            commands["id_head"], commands["id_tail"] = heads, tails
            commands["debit_head"], commands["debit_tail"] = heads, tails
            commands["amount"] = LIMIT_UNLIMITED
            commands["currency"] = currency
            commands["kind"] = CommandKind.OPEN
            raw = commands.view(np.uint8).reshape(len(names), COMMAND.itemsize)
            padded = np.array([name.encode() for name in names], f"S{NAME_SIZE_MAX}")
            raw[:, _NAME_OFFSET : _NAME_OFFSET + NAME_SIZE_MAX] = padded.view(np.uint8).reshape(len(names), -1)
            codes = (await client.submit(commands))["code"]
            refused = np.flatnonzero(~np.isin(codes, _READY))
            if len(refused):
                row = CODE_ROW.get(int(codes[refused[0]]))
                why = row.meaning if row else f"result code {codes[refused[0]]}"
                raise BooksUnusable(f"the node does not open the account {names[refused[0]]}: {why}")

    async def read(self, client: ControlClient) -> Books:
        """The sums as they are now. Raises `BooksUnusable` if an account is missing."""
        records = await client.accounts(self.identifiers)
        missing = np.flatnonzero(records["found"] == 0)
        if len(missing):
            raise BooksUnusable(f"the node has no account {self.names[missing[0]]}")
        return Books(int(records["event_count"].sum()), sum(records["balance"].tolist()))


def books_fault(before: Books, after: Books, committed: int) -> str | None:
    """What contradicts that exactly `committed` transfers were made between the accounts, or None."""
    touched = after.event_count - before.event_count
    if touched != 2 * committed:
        return f"{committed} transfers were answered as committed, but the accounts have {touched / 2:g} more of them"
    if after.balance != before.balance:
        return f"the balances of the accounts add up to {after.balance - before.balance} minor units more than before"
    return None
