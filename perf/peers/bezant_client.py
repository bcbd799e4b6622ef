"""Bezant as a peer among peers, through its SDK: for the load under which its node is killed.

Its speed is measured by the load of `bezant bench transfers`, which has frames of its own.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import bezant
from bezant.perf.load.books import CURRENCY, LoadAccounts, account_names
from bezant.perf.load.control import ControlClient
from bezant.perf.peers.plan import PeerPlan, Trade
from bezant.protocol.money import format_amount

DEADLINE_S: Final = 5.0
_DECIMALS: Final = 2


async def set_up(address: str, accounts: int) -> None:
    """Open the accounts; they have no limit, so the sum of all balances is zero."""
    async with ControlClient(address) as control:
        await LoadAccounts(accounts).open_all(control)


async def read_books(address: str, accounts: int) -> tuple[int, int]:
    """(sum of all balances, number of transfers)."""
    async with ControlClient(address) as control:
        books = await LoadAccounts(accounts).read(control)
    return books.balance, books.event_count // 2


async def is_durable(address: str) -> bool:
    """Whether the node says that an answer waits for the disk."""
    async with bezant.connect(address, timeout_s=DEADLINE_S) as wallet:
        return (await wallet.statistics()).durable


class BezantClient:
    """One wallet for all clients; it puts what is asked at the same time into the same frames."""

    losses = (bezant.ConnectionFailed, bezant.RequestTimedOut)

    def __init__(self, wallet: bezant.Wallet, accounts: int) -> None:
        self.retries = 0
        self._wallet = wallet
        self._names = account_names(accounts)

    async def transfer(self, connection: int, trades: Sequence[Trade]) -> int:
        """Make transfers, all at once; how many were made."""
        results = await asyncio.gather(*map(self._transfer, trades))
        if any(result.code is None for result in results):
            raise bezant.ConnectionFailed("an outcome is not known")
        return sum(result.committed for result in results)

    async def _transfer(self, trade: Trade) -> bezant.Result:
        debit, credit = self._names[trade.debit], self._names[trade.credit]
        amount = format_amount(trade.amount, _DECIMALS)
        return await self._wallet.transfer(debit, credit, amount, CURRENCY, id=trade.number.to_bytes(16, "big"))

    async def close(self) -> None:
        """Let go of the connection."""
        await self._wallet.close()


async def open_bezant(plan: PeerPlan) -> BezantClient:
    """Connect to the node of a plan."""
    (address,) = plan.addresses
    wallet = await bezant.connect(address, timeout_s=DEADLINE_S)
    return BezantClient(wallet, plan.accounts)
