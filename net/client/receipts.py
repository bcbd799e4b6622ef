"""Receipts from the reader of the node that a wallet is connected to. All are checked before they are handed out."""

from typing import Final

from bezant.net.client.sharding_readers import Readers
from bezant.protocol.errors import ReceiptInvalid, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.receipts import (
    AskConsistency,
    AskReceipt,
    ConsistencyProof,
    SignedTreeHead,
    TreeHead,
    check_extends,
    check_head,
    check_receipt,
)
from bezant.protocol.records import POSITION_NONE

_NOTHING: Final = b""


class Receipts:
    """See the module. Made by `Wallet.receipts`.

    Raises `RequestRefused` for what is not known (yet), with words that say why; `ConnectionFailed`, `RequestTimedOut`,
    and `ReceiptInvalid` for an answer that does not prove what it should.
    """

    def __init__(self, readers: Readers, timeout_s: float) -> None:
        self._readers = readers
        self._timeout_s = timeout_s

    async def receipt(self, position: int, *, extends: bytes | None = None) -> bytes:
        """The receipt for the event at a position, as a `Result` has it, for `bezant.check_receipt`.

        `extends` is an earlier receipt: this one then proves that nothing of the history at that time has changed. It
        can be had as soon as the reader has come so far, some milliseconds after the result; that is waited for.
        """
        if not -(1 << 63) <= position < 1 << 63:
            raise UsageError(f"a position has 64 bits; {position} has more")
        reader, log_id = await self._readers.reader_at(position)
        earlier = 0 if extends is None else check_receipt(extends, log_id=log_id).head.size
        asked = encode_message(AskReceipt(position, earlier))
        receipt = await reader.request(Operation.RECEIPT, asked, self._timeout_s)
        found = check_receipt(receipt, log_id=log_id)
        if found.position != position:
            raise ReceiptInvalid(f"a receipt for position {position} was asked for, and one for {found.position} came")
        if extends is not None:
            check_receipt(receipt, log_id=log_id, extends=extends)
        return receipt

    async def head(self) -> TreeHead:
        """The signed head of the history as the reader knows it now."""
        reader, log_id = await self._readers.reader_at(POSITION_NONE)
        reply = await reader.request(Operation.TREE_HEAD, _NOTHING, self._timeout_s)
        told = decode_message(reply, SignedTreeHead)
        head = TreeHead(told.log_id, told.size, told.timestamp_ns, told.root, told.key, told.signature)
        check_head(head)
        if head.log_id.hex() != log_id:
            raise ReceiptInvalid(f"the head is of the log {head.log_id.hex()}, not of {log_id}")
        return head

    async def check_extends(self, earlier: TreeHead, later: TreeHead) -> None:
        """Have it proven that the history of a head goes on from that of an earlier one, and check the proof."""
        asked = encode_message(AskConsistency(earlier.size, later.size))
        reader, _ = await self._readers.reader_at(POSITION_NONE)
        reply = await reader.request(Operation.CONSISTENCY, asked, self._timeout_s)
        path = decode_message(reply, ConsistencyProof).path
        check_extends(earlier.size, earlier.root, later.size, later.root, tuple(path))
