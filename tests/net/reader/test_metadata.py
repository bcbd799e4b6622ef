"""Claim: metadata that a wallet sets is told by the reader of the node; what is erased is neither told nor kept."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import bezant
from bezant.engine.projections.warm import warm_projections
from bezant.net.client.wallet import Wallet
from bezant.net.server.warm import warm_kernels
from bezant.protocol.errors import RequestRefused, UsageError

from ..server.process import NodeProcess, running

WAIT_S = 120.0
ANN = ("ann", "EUR")
MARK = "ann@example.org"


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """Has the kernels of both processes compiled before anything waits for them."""
    warm_kernels()
    warm_projections()


@pytest.fixture
async def wallet(node: NodeProcess) -> AsyncIterator[Wallet]:
    async with bezant.connect("{}:{}".format(*node.address), timeout_s=WAIT_S) as opened:
        await opened.open_account("world", "EUR", limit=bezant.UNLIMITED)
        await opened.open_account(*ANN)
        yield opened


def is_on_disk(folder: Path, mark: str) -> bool:
    return any(mark.encode() in path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_what_is_set_is_told_until_it_is_set_anew_or_erased(wallet: Wallet, tmp_path: Path) -> None:
    paid = await wallet.transfer("world", "ann", "1.00", "EUR")
    assert await wallet.metadata(ANN) is None
    first = await wallet.set_metadata(ANN, {"email": MARK, "tags": ["a", 1, None]})
    await wallet.set_metadata(paid, {"order": 117})
    assert await wallet.metadata(ANN) == {"email": MARK, "tags": ["a", 1, None]}
    assert await wallet.metadata(paid.position or 0) == {"order": 117}
    assert await wallet.set_metadata(ANN, {"email": MARK, "tags": ["a", 1, None]}) == first
    assert is_on_disk(tmp_path, MARK)
    assert await wallet.set_metadata(ANN, {"email": "other"}) > first
    assert await wallet.metadata(ANN) == {"email": "other"}
    assert await wallet.erase_metadata(ANN) > first
    assert await wallet.erase_metadata(ANN) == 0
    assert await wallet.metadata(ANN) is None
    assert await wallet.metadata(paid) == {"order": 117}


async def test_it_outlives_the_node_and_its_erasing_too(node: NodeProcess, wallet: Wallet, tmp_path: Path) -> None:
    await wallet.set_metadata(ANN, {"email": MARK})
    await wallet.set_metadata(("world", "EUR"), {"kept": True})
    await wallet.erase_metadata(ANN)
    node.process.kill()
    await node.process.wait()
    async with (
        running(tmp_path / "data", reader=True) as again,
        bezant.connect("{}:{}".format(*again.address), timeout_s=WAIT_S) as opened,
    ):
        assert await opened.metadata(ANN) is None
        assert await opened.metadata(("world", "EUR")) == {"kept": True}
    assert not is_on_disk(tmp_path, MARK)


async def test_what_cannot_be_is_refused_in_words(wallet: Wallet) -> None:
    with pytest.raises(RequestRefused, match="no such account or event"):
        await wallet.set_metadata(("nobody", "EUR"), {"a": 1})
    with pytest.raises(RequestRefused, match="no such account or event"):
        await wallet.set_metadata(9999, {"a": 1})
    with pytest.raises(UsageError, match="1 to 1024"):
        await wallet.set_metadata(ANN, {"a": "x" * 1024})
    with pytest.raises(UsageError, match="JSON object"):
        await wallet.set_metadata(ANN, {"a": object()})
    refused = await wallet.transfer("ann", "nobody", "1.00", "EUR")
    assert await wallet.set_metadata(refused, {"why": "typing"}) > 0
    with pytest.raises(UsageError, match="position"):
        await wallet.set_metadata(0, {"a": 1})


async def test_a_ledger_in_this_process_has_it_too(tmp_path: Path) -> None:
    async with await bezant.open(tmp_path / "own") as wallet:
        await wallet.open_account(*ANN)
        await wallet.set_metadata(ANN, {"email": MARK})
        assert await wallet.metadata(ANN) == {"email": MARK}
        await wallet.erase_metadata(ANN)
        assert await wallet.metadata(ANN) is None
    assert not is_on_disk(tmp_path, MARK)


def test_without_await(tmp_path: Path) -> None:
    from bezant.net.client.blocking import BlockingWallet

    assert {"set_metadata", "metadata", "erase_metadata"} <= set(vars(BlockingWallet))
