"""Receipts: that an event is in the history of a log, checked by whoever has the receipt and the log's key, alone.

Over all events of a log lies a Merkle tree as in RFC 9162, section 2.1, with BLAKE3 in place of SHA-256. Leaf number n
(from 0) is of the event with sequence n + 1:

    leaf  BLAKE3(0x00, salt, event, position)          node  BLAKE3(0x01, left, right)

A *tree head* says how many events there are and what the root over them is, signed by a node with Ed25519 (RFC 8032).
A receipt is an event, its salt, the hashes on the way from its leaf to the root, and a head. It may also have the proof
(RFC 9162, section 2.1.4) that the history of an earlier head is the beginning of this one: that nothing that was
confirmed before was changed or left out. The hashes tell nothing of other events, each of which has a salt of its own.

    offset    0  magic `BZRECPT` and the format, 1        offset   96  root, 32 bytes
    offset    8  id of the log, 8 bytes                   offset  128  int64 position of the event
    offset   16  int64 number of events (tree size)       offset  136  salt, 16 bytes
    offset   24  int64 time of the head, ns               offset  152  event, 192 bytes
    offset   32  signature, 64 bytes                      offset  344  public key, 32 bytes

Then the hashes of the path, from the leaf to the root, as many as number and tree size make; then, if there is one, the
earlier head: int64 size, root, and the hashes of the proof. What is signed is ``bezant tree head 1``, a zero byte, and
id of the log, size, time and root in this order. Everything is little-endian. This module needs no engine.
"""

import struct
from typing import Final, NamedTuple

import blake3
import msgspec

from bezant.protocol.errors import ReceiptInvalid

HASH_SIZE: Final = 32
SALT_SIZE: Final = 16
KEY_SIZE: Final = 32
SIGNATURE_SIZE: Final = 64
POSITION_SIZE: Final = 8
LOG_ID_SIZE: Final = 8
EVENT_SIZE: Final = 192
RECEIPT_SIZE_MAX: Final = 2048
"""Bytes of a receipt without an earlier head, whatever the size of the history."""
EXTENDING_RECEIPT_SIZE_MAX: Final = 4096
"""Bytes of one with an earlier head."""
TREE_SIZE_MAX: Final = (1 << 52) - 1
LEAF_PREFIX: Final = b"\0"
NODE_PREFIX: Final = b"\1"
EMPTY_ROOT: Final = blake3.blake3().digest()

_MAGIC: Final = b"BZRECPT\1"
_HEAD: Final = struct.Struct("<8sqq")
_RECEIPT: Final = struct.Struct("<8s8sqq64s32sq16s192s32s")
_EARLIER: Final = struct.Struct("<q32s")
_WORD: Final = struct.Struct("<q")
_SIGNED_CONTEXT: Final = b"bezant tree head 1\0"
_SEQUENCE_MASK: Final = (1 << 52) - 1


class TreeHead(NamedTuple):
    """How many events a log had at a time (ns since 1970, by the clock of who signed), and the root over them.

    `log_id` is the public id of the log, 8 bytes; `key` the public key of the node, 32 bytes.
    """

    log_id: bytes
    size: int
    timestamp_ns: int
    root: bytes
    key: bytes
    signature: bytes

    def signed_bytes(self) -> bytes:
        """What the signature is of."""
        return head_bytes(self.log_id, self.size, self.timestamp_ns, self.root)


class Receipt(NamedTuple):
    """A receipt that has been checked.

    `position` is opaque, `event` the bytes of the EVENT record. `earlier_size` and `earlier_root`: the head that the
    history is proven to extend; 0 and empty if it has no such proof.
    """

    head: TreeHead
    position: int
    event: bytes
    salt: bytes
    path: tuple[bytes, ...]
    earlier_size: int = 0
    earlier_root: bytes = b""
    earlier_path: tuple[bytes, ...] = ()


# ---- what is asked of a reader ----


class SignedTreeHead(msgspec.Struct, frozen=True):
    """The reply to TREE_HEAD: a `TreeHead`, field by field."""

    log_id: bytes
    size: int
    timestamp_ns: int
    root: bytes
    key: bytes
    signature: bytes


class AskReceipt(msgspec.Struct, frozen=True):
    """Asks for a receipt for the event at a position, and for one that extends the history of ``extends_size`` events.

    The reply is the bytes of a receipt. A reader that has not come so far waits a moment for it.
    """

    position: int
    extends_size: int = 0


class AskConsistency(msgspec.Struct, frozen=True):
    """Asks for the proof that the history over ``size`` events begins with that over the first ``old_size``."""

    old_size: int
    size: int


class ConsistencyProof(msgspec.Struct, frozen=True):
    """The reply: what `check_extends` takes."""

    path: list[bytes]


# ---- the tree ----


def hash_leaf(salt: bytes, event: bytes, position: int) -> bytes:
    """Hash of the leaf of an event."""
    return blake3.blake3(LEAF_PREFIX + salt + event + _WORD.pack(position)).digest()


def hash_node(left: bytes, right: bytes) -> bytes:
    """Hash of a node above two hashes."""
    return blake3.blake3(NODE_PREFIX + left + right).digest()


def path_length(number: int, size: int) -> int:
    """Hashes in the path of a leaf (from 0) in a tree of so many leaves."""
    length, last = 0, size - 1
    while last > 0:
        length += int(number & 1 == 1 or number < last)
        number >>= 1
        last >>= 1
    return length


def root_of_path(number: int, size: int, leaf: bytes, path: tuple[bytes, ...]) -> bytes:
    """The root that a path leads to (RFC 9162, section 2.1.3.2). Raises `ReceiptInvalid` for one of another length."""
    if not 0 <= number < size or len(path) != path_length(number, size):
        raise ReceiptInvalid(f"{len(path)} hashes do not lead from event {number + 1} to the root over {size}")
    found, last = leaf, size - 1
    for step in path:
        # Where a node has no neighbour on the right, it is the node above as well.
        while not number & 1 and number == last:
            number >>= 1
            last >>= 1
        found = hash_node(step, found) if number & 1 else hash_node(found, step)
        number >>= 1
        last >>= 1
    return found


def check_extends(old_size: int, old_root: bytes, size: int, root: bytes, path: tuple[bytes, ...]) -> None:
    """Check that a tree has another as its beginning (RFC 9162, section 2.1.4.2). Raises `ReceiptInvalid`."""
    if not 0 < old_size <= size:
        raise ReceiptInvalid(f"a history of {size} events does not extend one of {old_size}")
    steps = list(path)
    if old_size == size:
        if steps or old_root != root:
            raise ReceiptInvalid(f"the history over {size} events is another one than before")
        return
    if old_size & (old_size - 1) == 0:
        steps.insert(0, old_root)
    wrong = ReceiptInvalid(f"the history over {size} events is not proven to extend that over {old_size}")
    if not steps:
        raise wrong
    number, last = old_size - 1, size - 1
    while number & 1:
        number >>= 1
        last >>= 1
    old_found = found = steps[0]
    for step in steps[1:]:
        if last == 0:
            raise wrong
        if number & 1 or number == last:
            old_found, found = hash_node(step, old_found), hash_node(step, found)
            while not number & 1 and number:
                number >>= 1
                last >>= 1
        else:
            found = hash_node(found, step)
        number >>= 1
        last >>= 1
    if last or old_found != old_root or found != root:
        raise wrong


# ---- heads and receipts ----


def head_bytes(log_id: bytes, size: int, timestamp_ns: int, root: bytes) -> bytes:
    """What a node signs."""
    return _SIGNED_CONTEXT + _HEAD.pack(log_id, size, timestamp_ns) + root


def check_head(head: TreeHead, key: bytes | None = None) -> None:
    """Check the signature of a head, and that it is by this key. Raises `ReceiptInvalid`."""
    # Every client can check a receipt, and few do: the library takes 6 ms of a command to load.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if key is not None and head.key != key:
        raise ReceiptInvalid(f"it is signed with the key {head.key.hex()}, not with {key.hex()}")
    try:
        Ed25519PublicKey.from_public_bytes(head.key).verify(head.signature, head.signed_bytes())
    except (InvalidSignature, ValueError) as error:
        raise ReceiptInvalid("the signature of its head is not one of the key that it names") from error


def encode_receipt(receipt: Receipt) -> bytes:
    """The bytes of a receipt."""
    head = receipt.head
    encoded = _RECEIPT.pack(
        _MAGIC,
        head.log_id,
        head.size,
        head.timestamp_ns,
        head.signature,
        head.root,
        receipt.position,
        receipt.salt,
        receipt.event,
        head.key,
    ) + b"".join(receipt.path)
    if receipt.earlier_size:
        encoded += _EARLIER.pack(receipt.earlier_size, receipt.earlier_root) + b"".join(receipt.earlier_path)
    return encoded


def decode_receipt(data: bytes) -> Receipt:
    """Take a receipt apart; nothing in it is checked but that it is one. Raises `ReceiptInvalid`."""
    if len(data) > EXTENDING_RECEIPT_SIZE_MAX:
        raise ReceiptInvalid(f"{len(data)} bytes are more than a receipt has")
    if data[: len(_MAGIC) - 1] != _MAGIC[:-1] or len(data) < _RECEIPT.size:
        raise ReceiptInvalid("this is not a receipt")
    if data[len(_MAGIC) - 1] != _MAGIC[-1]:
        raise ReceiptInvalid(f"a receipt of format {data[len(_MAGIC) - 1]} is not known here")
    _, log_id, size, timestamp_ns, signature, root, position, salt, event, key = _RECEIPT.unpack_from(data)
    number = (position & _SEQUENCE_MASK) - 1
    if not 0 <= number < size <= TREE_SIZE_MAX:
        raise ReceiptInvalid(f"its event is not among the {size} that its head speaks of")
    path_end = _RECEIPT.size + HASH_SIZE * path_length(number, size)
    earlier, proof = data[path_end : path_end + _EARLIER.size], data[path_end + _EARLIER.size :]
    if len(data) < path_end or len(earlier) not in (0, _EARLIER.size) or len(proof) % HASH_SIZE:
        raise ReceiptInvalid(f"a receipt for one of {size} events does not have {len(data)} bytes")
    head = TreeHead(log_id, size, timestamp_ns, root, key, signature)
    receipt = Receipt(head, position, event, salt, _hashes(data[_RECEIPT.size : path_end]))
    if not earlier:
        return receipt
    earlier_size, earlier_root = _EARLIER.unpack(earlier)
    return receipt._replace(earlier_size=earlier_size, earlier_root=earlier_root, earlier_path=_hashes(proof))


def _hashes(data: bytes) -> tuple[bytes, ...]:
    return tuple(data[start : start + HASH_SIZE] for start in range(0, len(data), HASH_SIZE))


def check_receipt(
    receipt: bytes, *, key: bytes | None = None, log_id: str | None = None, extends: bytes | None = None
) -> Receipt:
    """Check a receipt, and return what it says: this event is in the history with that head.

    `key` (32 bytes) is the public key of the node that must have signed it, and `log_id` the public id of the log, 16
    hexadecimal digits. Whoever gives no key knows that the receipt is whole, and by whom it claims to be, in
    ``head.key``. `extends` is an earlier receipt of the same log, which must hold as well, and whose history this
    receipt must prove to be the beginning of its own. Raises `ReceiptInvalid`, which says what is wrong.
    """
    found = decode_receipt(receipt)
    _check_whole(found, key)
    if log_id is not None and found.head.log_id.hex() != log_id:
        raise ReceiptInvalid(f"it is of the log {found.head.log_id.hex()}, not of {log_id}")
    if extends is not None:
        _check_later(found, check_receipt(extends, key=key, log_id=log_id).head)
    return found


def _check_whole(receipt: Receipt, key: bytes | None) -> None:
    head, number = receipt.head, (receipt.position & _SEQUENCE_MASK) - 1
    check_head(head, key)
    leaf = hash_leaf(receipt.salt, receipt.event, receipt.position)
    if root_of_path(number, head.size, leaf, receipt.path) != head.root:
        raise ReceiptInvalid("its event is not in the history whose head it has")
    if receipt.earlier_size:
        check_extends(receipt.earlier_size, receipt.earlier_root, head.size, head.root, receipt.earlier_path)
    elif receipt.earlier_root:
        raise ReceiptInvalid("a history without events is extended by any, and proves nothing")


def _check_later(receipt: Receipt, earlier: TreeHead) -> None:
    """Raise `ReceiptInvalid` unless a receipt proves that its history goes on from an earlier head."""
    head = receipt.head
    if head.log_id != earlier.log_id:
        raise ReceiptInvalid(f"it is of the log {head.log_id.hex()}, and the earlier one of {earlier.log_id.hex()}")
    if (head.size, head.root) == (earlier.size, earlier.root):
        return
    if head.size <= earlier.size:
        raise ReceiptInvalid(f"its history has {head.size} events, and the earlier one {earlier.size}: it is not later")
    if receipt.earlier_size != earlier.size:
        raise ReceiptInvalid(
            f"it has no proof that its history extends that over {earlier.size} events: ask for one that does"
        )
    if receipt.earlier_root != earlier.root:
        raise ReceiptInvalid(f"it extends another history over {earlier.size} events than the earlier receipt is of")
