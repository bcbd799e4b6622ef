"""Claim: `bezant reconcile` sees each payment between shards once, with its own id, and none that was not to be.

Asked of the running nodes, of the folders of all shards, and of one shard's folder alone.
"""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import bezant
from bezant.cli.local_cluster import node_folder
from bezant.cli.local_shards import shard_folder
from bezant.cli.main import main
from bezant.protocol.names import account_id
from bezant.protocol.transactions import leg_ids

from .processes import WAIT_S, running
from .shards import CURRENCY, channel_of, names_of

HEADER = "transaction_id,date,from_account,to_account,amount,currency,client_account,bank_recorded_balance"


class Row(NamedTuple):
    """A row of the statement, but for its day."""

    id: bytes
    debit: str
    credit: str
    amount: str
    client: str = ""
    balance: str = ""


def write_statement(path: Path, day: str, rows: Sequence[Row]) -> Path:
    lines = [
        f"{row.id.hex()},{day},{row.debit},{row.credit},{row.amount},{CURRENCY},{row.client},{row.balance}"
        for row in rows
    ]
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


async def told(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    capsys.readouterr()
    status = await asyncio.to_thread(main, ["reconcile", *map(str, words), "--json"])
    out, err = capsys.readouterr()
    assert status in (0, 1), err
    found: dict[str, Any] = json.loads(out)
    assert found["ok"] == (status == 0)
    return found


def bank_of(wallet: bezant.Wallet, shard: int) -> str:
    """A name of the outside world, which a statement is not about, that lies in a shard."""
    names = (f"bank:{number}" for number in range(100))
    return next(name for name in names if channel_of(wallet).shard_of(account_id(name, CURRENCY)) == shard)


class Books:
    """What was asked of the shards, and the statements that somebody has of it."""

    def __init__(self, wallet: bezant.Wallet) -> None:
        self.wallet = wallet
        self.bank = bank_of(wallet, 0)
        (self.ann,) = names_of(wallet, 0, 1)
        self.bob, self.carl, self.nobody = names_of(wallet, 1, 3)
        self.agreeing: list[Row] = []
        self.undone: list[tuple[Row, str]] = []

    async def pay(self, debit: str, credit: str, amount: str, client: str = "", balance: str = "") -> bezant.Result:
        done = await self.wallet.transfer(debit, credit, amount, CURRENCY)
        if done.committed:
            self.agreeing.append(Row(done.id, debit, credit, amount, client, balance))
        return done

    async def arrived(self, name: str) -> None:
        """Return when nothing is on its way to an account any more: what was answered is decided, and done soon."""
        async with asyncio.timeout(WAIT_S):
            while (account := await self.wallet.account(name, CURRENCY)) is None or account.incoming:
                await asyncio.sleep(0.005)

    async def transact(self, mode: str, *legs: tuple[str, str, str]) -> list[Row]:
        asked = [(*leg, CURRENCY) for leg in legs]
        done = await self.wallet.transaction(asked, mode=mode, await_applied=True)
        assert done.applied
        ids = leg_ids(done.id, account_id(legs[0][0], CURRENCY), len(legs))
        return [Row(identifier, *leg) for identifier, leg in zip(ids, legs, strict=True)]

    async def fill(self) -> bytes:
        """Fill the books; returns the id of a payment that no statement has."""
        await self.wallet.open_account(self.bank, CURRENCY, limit=bezant.UNLIMITED)
        for name in (self.ann, self.bob, self.carl):
            assert (await self.wallet.open_account(name, CURRENCY)).committed
        await self.pay(self.bank, self.ann, "100.00", self.ann, "100.00")
        await self.pay(self.ann, self.bob, "10.00", self.ann, "90.00")
        await self.pay(self.ann, self.bob, "5.00", self.bob, "15.00")
        await self.arrived(self.bob)  # Else he may pay before it has, and his balances are others.
        await self.pay(self.bob, self.ann, "2.00")
        for mode in ("tcc", "saga"):
            legs = ((self.ann, self.bob, "1.00"), (self.bob, self.carl, "0.50"), (self.bank, self.carl, "3.00"))
            self.agreeing += await self.transact(mode, *legs)
        refused = await self.pay(self.ann, self.nobody, "1.25")
        assert refused.code is bezant.ResultCode.CREDIT_ACCOUNT_UNKNOWN
        why = "refused: CREDIT_ACCOUNT_UNKNOWN"
        self.undone.append((Row(refused.id, self.ann, self.nobody, "1.25"), why))
        legs = ((self.ann, self.bob, "1.00"), (self.bank, self.ann, "4.00"), (self.bank, self.nobody, "1.00"))
        rows = await self.transact("saga", *legs)
        self.undone += zip(rows, (why, "taken back", "taken back"), strict=True)
        extra = await self.wallet.transfer(self.ann, self.carl, "7.00", CURRENCY)
        assert extra.committed
        return extra.id


async def test_payments_between_shards(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, day = tmp_path / "books", datetime.now(UTC).date().isoformat()
    async with running(data) as (shards, wallet):
        books = Books(wallet)
        extra = await books.fill()
        rows = [*books.agreeing, *(row for row, _ in books.undone)]
        file = write_statement(tmp_path / "s.csv", day, rows)
        by_nodes = await told(capsys, file, "--connect", ",".join(shards.addresses), "--timeout", "60")
        wrong = [books.agreeing[1]._replace(amount="10.01"), books.agreeing[2]._replace(balance="14.99")]
        file_wrong = write_statement(tmp_path / "wrong.csv", day, wrong)
        wrong_by_nodes = await told(capsys, file_wrong, "--connect", shards.addresses[1], "--timeout", "60")
    assert (by_nodes["agreeing"], by_nodes["missing"], by_nodes["extra"]) == (len(books.agreeing), 4, 1)
    missing = {found["transaction_id"]: found["books"] for found in by_nodes["differences"] if found["line"]}
    assert missing == {row.id.hex(): why for row, why in books.undone}
    (found,) = [found for found in by_nodes["differences"] if found["what"] == "extra"]
    assert (found["transaction_id"], found["books"]) == (
        extra.hex(),
        f"{day} 7.00 {CURRENCY} from {books.ann} to {books.carl}",
    )
    different = [found for found in wrong_by_nodes["differences"] if found["what"] == "different"]
    assert [(found["field"], found["statement"], found["books"]) for found in different] == [
        ("amount", "10.01", "10.00"),
        ("balance", "14.99", "15.00"),
    ]
    assert await told(capsys, file, "--data", data) == by_nodes
    folders = [node_folder(shard_folder(data, shard), 1) for shard in (0, 1)]
    assert await told(capsys, file, "--data", folders[1], "--data", folders[0]) == by_nodes
    assert await told(capsys, file_wrong, "--data", data) == wrong_by_nodes
    await check_one_shard(capsys, tmp_path / "one.csv", day, folders[1], books)


async def check_one_shard(capsys: pytest.CaptureFixture[str], file: Path, day: str, folder: Path, books: Books) -> None:
    """The books of the shard that received know the rows by ids that follow from theirs."""
    rows = [row for row in books.agreeing if books.bob in row or books.carl in row]
    file = write_statement(file, day, [*rows, books.undone[1][0]])
    found = await told(capsys, file, "--account", books.bob, "--account", books.carl, "--data", folder)
    assert (found["agreeing"], found["missing"], found["extra"]) == (len(rows), 1, 1)
    taken_back, extra = found["differences"]
    assert (taken_back["what"], taken_back["books"]) == ("missing", "taken back")
    assert extra["books"] == f"{day} 7.00 {CURRENCY} from {books.ann} to {books.carl}"
