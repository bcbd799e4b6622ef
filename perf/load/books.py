"""The books around a load: accounts to move money between, and the proof that what was answered is what happened."""

from typing import Final, NamedTuple

import numpy as np

from bezant.perf.load.control import ControlClient
from bezant.protocol.codes import CODE_ROW, ResultCode
from bezant.protocol.errors import BezantError
from bezant.protocol.frames import BATCH_COUNT_MAX
from bezant.protocol.kinds import CommandKind
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import COMMAND, COMMAND_SIZE, LIMIT_UNLIMITED, NAME_SIZE_MAX, Records, Words

CURRENCY: Final = "EUR"
_READY: Final = (ResultCode.COMMITTED, ResultCode.ACCOUNT_EXISTS)
_NAME_OFFSET: Final = 32
"""Where an OPEN has the name: from the bytes of the credit account on."""


class BooksUnusable(BezantError):  # noqa: N818 - it says what happened, as in `bezant.protocol.errors`
    """The node would not open the accounts that the load needs."""


class Books(NamedTuple):
    """Sums over the accounts of a load. ``event_count`` rises by two for a transfer or capture, one for each of its
    accounts, by one for a hold, and by none for a refusal."""

    event_count: int
    balance: int
    held: int


def account_names(count: int) -> list[str]:
    """The names of the accounts of a load, in order."""
    return [f"bench:{number:06d}" for number in range(count)]


class LoadAccounts:
    """The accounts of a load: ids, and the same as the two arrays of words that the kernels read.

    Behind `count` accounts without a limit there are `unfunded_count` that never have money, with limit 0.
    """

    def __init__(self, count: int, unfunded_count: int = 0) -> None:
        self.count = count
        self.names = account_names(count) + [f"bench:unfunded:{number:02d}" for number in range(unfunded_count)]
        self.identifiers = [account_id(name, CURRENCY) for name in self.names]
        words = np.frombuffer(b"".join(self.identifiers), np.int64).reshape(len(self.names), 2)
        self.heads: Words = words[:, 0].copy()
        self.tails: Words = words[:, 1].copy()

    async def open_all(self, client: ControlClient) -> None:
        """Open the accounts that are not open yet; most have no limit, so that no transfer is refused for funds.

        Opening an account again is a repeat and leaves no event. Raises `BooksUnusable`.
        """
        for start in range(0, len(self.names), BATCH_COUNT_MAX):
            chosen = range(start, min(start + BATCH_COUNT_MAX, len(self.names)))
            codes = (await client.submit(opening_commands(self, chosen)))["code"]
            refused = np.flatnonzero(~np.isin(codes, _READY))
            if len(refused):
                row = CODE_ROW.get(int(codes[refused[0]]))
                why = row.meaning if row else f"result code {codes[refused[0]]}"
                raise BooksUnusable(f"the node does not open the account {self.names[start + refused[0]]}: {why}")

    async def read(self, client: ControlClient) -> Books:
        """The sums as they are now. Raises `BooksUnusable` if an account is missing."""
        records = await client.accounts(self.identifiers)
        missing = np.flatnonzero(records["found"] == 0)
        if len(missing):
            raise BooksUnusable(f"the node has no account {self.names[missing[0]]}")
        return Books(int(records["event_count"].sum()), sum(records["balance"].tolist()), sum(records["held"].tolist()))


def opening_commands(accounts: LoadAccounts, chosen: range) -> Records:
    """Commands that open the accounts with the numbers `chosen`; the id of each is its account's."""
    part = slice(chosen.start, chosen.stop)
    commands = np.zeros(len(chosen), COMMAND)
    commands["id_head"] = commands["debit_head"] = accounts.heads[part]
    commands["id_tail"] = commands["debit_tail"] = accounts.tails[part]
    commands["amount"] = np.where(np.arange(chosen.start, chosen.stop) < accounts.count, LIMIT_UNLIMITED, 0)
    commands["currency"] = currency_word(CURRENCY)
    commands["kind"] = CommandKind.OPEN
    names = np.array([name.encode() for name in accounts.names[part]], f"S{NAME_SIZE_MAX}")
    raw = commands.view(np.uint8).reshape(len(chosen), COMMAND_SIZE)
    raw[:, _NAME_OFFSET : _NAME_OFFSET + NAME_SIZE_MAX] = names.view(np.uint8).reshape(len(chosen), NAME_SIZE_MAX)
    return commands


def books_fault(before: Books, after: Books, committed: int, holds: int = 0) -> str | None:
    """What contradicts that exactly `committed` transfers were made between the accounts, or None.

    Captures count as transfers, and so do the `holds` among them, which have all been captured.
    """
    touched = after.event_count - before.event_count + holds
    if touched != 2 * committed:
        return f"{committed} transfers were answered as committed, but the accounts took part in {touched / 2}"
    if after.balance != before.balance:
        return f"the balances of the accounts add up to {after.balance - before.balance} minor units more than before"
    if after.held != before.held:
        return f"{after.held - before.held} minor units more than before are held, but every hold was captured"
    return None
