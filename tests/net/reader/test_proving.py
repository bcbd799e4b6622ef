"""Claim: the reader of a running node gives receipts and heads that clients check, and goes on with its tree."""

import asyncio
from pathlib import Path

import pytest

import bezant
from bezant.engine.following import Follower, open_follower
from bezant.engine.log.storage import Directory
from bezant.engine.proofs.offline import TREE_FOLDER
from bezant.engine.proofs.store import TREE_NAME
from bezant.engine.replica import ReplicaSettings, open_replica, shard_directory
from bezant.net.client.members import ask_node
from bezant.net.client.wallet import Wallet
from bezant.net.reader import proving as proving_module
from bezant.net.reader.projecting import Awaits
from bezant.net.reader.proving import ProofProjection, ProofQueries
from bezant.protocol.errors import ReceiptInvalid, RemoteProtocolError, RequestRefused, StorageError, UsageError
from bezant.protocol.frames import FrameError, Operation
from bezant.protocol.messages import encode_message
from bezant.protocol.receipts import AskConsistency, AskReceipt, check_receipt

from ...engine.commands import opening_world, transfers

WAIT_S = 60.0


async def test_receipts_and_heads_over_the_wire(wallet: Wallet) -> None:
    await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
    opened = await wallet.open_account("ann", "EUR")
    first = await wallet.receipts.receipt(opened.position or 0)
    old_head = await wallet.receipts.head()
    refused = await wallet.transfer("ann", "world", "9.00", "EUR")
    later = await wallet.receipts.receipt(refused.position or 0, extends=first)
    assert check_receipt(later, key=old_head.key, extends=first).position == refused.position
    head = await wallet.receipts.head()
    assert head.size == 3
    await wallet.receipts.check_extends(old_head, head)
    with pytest.raises(ReceiptInvalid):
        await wallet.receipts.check_extends(old_head._replace(root=bytes(32)), head)
    with pytest.raises(ReceiptInvalid, match="not a receipt"):
        await wallet.receipts.receipt(1, extends=b"nothing")


REFUSED = (
    (Operation.RECEIPT, b"\xff", FrameError.BODY_MALFORMED),
    (Operation.RECEIPT, encode_message(AskReceipt(0)), FrameError.REQUEST_REFUSED),
    (Operation.RECEIPT, encode_message(AskReceipt(1, -1)), FrameError.REQUEST_REFUSED),
    (Operation.RECEIPT, encode_message(AskReceipt(1 << 60)), FrameError.REQUEST_REFUSED),
    (Operation.RECEIPT, encode_message(AskReceipt(1 << 50)), FrameError.BEHIND),
    (Operation.CONSISTENCY, encode_message(AskConsistency(2, 1)), FrameError.REQUEST_REFUSED),
    (Operation.CONSISTENCY, encode_message(AskConsistency(0, 1)), FrameError.REQUEST_REFUSED),
    (Operation.CONSISTENCY, encode_message(AskConsistency(1, 1 << 50)), FrameError.BEHIND),
)


async def test_what_cannot_be_answered_is_told(wallet: Wallet) -> None:
    opened = await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
    await wallet.receipts.receipt(opened.position or 0)
    reader = wallet.channel.welcome.reader
    asked = (ask_node(reader, operation, body, WAIT_S) for operation, body, _ in REFUSED)
    answers = await asyncio.gather(*asked, return_exceptions=True)
    codes = [answer.code if isinstance(answer, RequestRefused) else answer for answer in answers]
    assert codes == [code for _, _, code in REFUSED]


# ---- without a process ----


def fed(path: Path, events: int, small: ReplicaSettings) -> Follower:
    """A folder with so many more events, followed."""
    replica = open_replica(path, settings=small)
    if replica.ledger.account_count == 0:
        replica.execute(opening_world("ann"))
    for _ in range(events // 150):
        replica.execute(transfers("world", "ann", 150))
        replica.write_group()
    replica.log.commit_index = replica.log.durable_index
    replica.close()
    follower = open_follower(shard_directory(path, 0))
    assert follower is not None
    return follower


@pytest.fixture
def small() -> ReplicaSettings:
    return ReplicaSettings(segment_size=1 << 20, free_space_floor=0, ids_memory_bytes=64 << 20)


def projection_of(path: Path, follower: Follower) -> ProofProjection:
    folder = shard_directory(path, 0).path / "reader"
    return ProofProjection(folder, 0, follower.log_id)


def take_all(projection: ProofProjection, follower: Follower) -> int:
    """Feed it as a reader does; how many entries it was."""
    start = projection.start()
    follower.begin(start)
    projection.begin(follower)
    count = 0
    while entries := follower.take():
        projection.take_in(entries)
        count += len(entries)
    projection.rest()
    return count


def test_a_tree_is_saved_and_gone_on_with(
    tmp_path: Path, small: ReplicaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving_module, "SAVE_AT_END_EVENTS_MIN", 1)
    follower = fed(tmp_path, 600, small)
    first = projection_of(tmp_path, follower)
    entries = take_all(first, follower)
    earlier = first.issuer.receipt(5)
    first.close()
    follower.close()
    follower = fed(tmp_path, 450, small)
    second = projection_of(tmp_path, follower)
    assert take_all(second, follower) < entries
    receipt = ProofQueries(second).receipt(encode_message(AskReceipt(900, check_receipt(earlier).head.size)), 0)
    check_receipt(receipt, extends=earlier)
    second.close()
    follower.close()

    file = Directory(shard_directory(tmp_path, 0).path / "reader" / TREE_FOLDER).path / TREE_NAME
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    follower = fed(tmp_path, 0, small)
    third = projection_of(tmp_path, follower)
    assert take_all(third, follower) > entries
    assert third.issuer.head().root == second.issuer.head().root
    follower.close()


def test_what_is_asked_too_early(tmp_path: Path, small: ReplicaSettings) -> None:
    follower = fed(tmp_path, 150, small)
    projection = projection_of(tmp_path, follower)
    queries = ProofQueries(projection)
    with pytest.raises(StorageError, match="is being opened"):
        queries.head(b"", 0)
    follower.begin()
    projection.begin(follower)
    with pytest.raises(StorageError, match="is being read, up to event 0"):
        queries.receipt(encode_message(AskReceipt(1)), 0)
    follower.close()
    follower = fed(tmp_path, 0, small)
    take_all(projection, follower)
    size = projection.issuer.size
    for body in (AskReceipt(size + 1), AskReceipt(1, size + 1)):
        with pytest.raises(Awaits):
            queries.receipt(encode_message(body), 0)
    with pytest.raises(Awaits):
        queries.consistency(encode_message(AskConsistency(1, size + 1)), 0)
    with pytest.raises(UsageError):
        queries.receipt(encode_message(AskReceipt(1 << 60)), 0)
    with pytest.raises(RemoteProtocolError):
        queries.receipt(b"", 0)
    follower.close()
