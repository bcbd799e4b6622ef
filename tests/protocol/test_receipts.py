"""Claim: what checks a receipt follows RFC 9162 for every size of a tree, and refuses whatever was altered."""

import subprocess
import sys
from functools import cache

import blake3
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

import bezant
from bezant.protocol.errors import ReceiptInvalid
from bezant.protocol.receipts import (
    EMPTY_ROOT,
    EVENT_SIZE,
    EXTENDING_RECEIPT_SIZE_MAX,
    RECEIPT_SIZE_MAX,
    TREE_SIZE_MAX,
    Receipt,
    TreeHead,
    check_extends,
    check_receipt,
    encode_receipt,
    hash_leaf,
    hash_node,
    head_bytes,
    path_length,
    root_of_path,
)

SIZE_MAX = 200
LOG_ID = bytes(range(8))
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(32))
KEY = PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def event_of(number: int) -> tuple[bytes, bytes]:
    """(salt, event) of a leaf."""
    return bytes([number % 251]) * 16, number.to_bytes(2, "little") * (EVENT_SIZE // 2)


@cache
def leaf(number: int) -> bytes:
    return hash_leaf(*event_of(number), number + 1)


# ---- the definitions of RFC 9162, word for word ----


def power_below(count: int) -> int:
    power = 1
    while power * 2 < count:
        power *= 2
    return power


@cache
def naive_root(start: int, end: int) -> bytes:
    """MTH (2.1.1)."""
    if end - start == 0:
        return blake3.blake3(b"").digest()
    if end - start == 1:
        return leaf(start)
    middle = start + power_below(end - start)
    return hash_node(naive_root(start, middle), naive_root(middle, end))


def naive_path(number: int, start: int, end: int) -> list[bytes]:
    """PATH (2.1.3.1)."""
    if end - start == 1:
        return []
    middle = start + power_below(end - start)
    if number < middle:
        return [*naive_path(number, start, middle), naive_root(middle, end)]
    return [*naive_path(number, middle, end), naive_root(start, middle)]


def naive_proof(old: int, start: int, end: int, is_known: bool) -> list[bytes]:
    """SUBPROOF (2.1.4.1)."""
    if old == end - start:
        return [] if is_known else [naive_root(start, end)]
    step = power_below(end - start)
    middle = start + step
    if old <= step:
        return [*naive_proof(old, start, middle, is_known), naive_root(middle, end)]
    return [*naive_proof(old - step, middle, end, False), naive_root(start, middle)]


@pytest.mark.parametrize("size", range(1, SIZE_MAX, 7))
def test_every_leaf_leads_to_the_root(size: int) -> None:
    for number in range(size):
        path = naive_path(number, 0, size)
        assert len(path) == path_length(number, size)
        assert root_of_path(number, size, leaf(number), tuple(path)) == naive_root(0, size)


@pytest.mark.parametrize("size", range(1, SIZE_MAX, 13))
def test_every_history_is_proven_to_extend_every_earlier_one(size: int) -> None:
    for old in range(1, size + 1):
        check_extends(old, naive_root(0, old), size, naive_root(0, size), tuple(naive_proof(old, 0, size, True)))


@given(st.data())
def test_a_proof_that_was_altered_is_refused(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, SIZE_MAX))
    old = data.draw(st.integers(1, size - 1))
    path = naive_proof(old, 0, size, True)
    place = data.draw(st.integers(0, len(path) - 1))
    how = data.draw(st.sampled_from(["bit", "leave out", "twice", "old root", "root", "old size"]))
    old_root, root, old_size = naive_root(0, old), naive_root(0, size), old
    if how == "bit":
        path[place] = bytes([path[place][0] ^ 1]) + path[place][1:]
    elif how == "leave out":
        del path[place]
    elif how == "twice":
        path.insert(place, path[place])
    elif how == "old root":
        old_root = hash_node(old_root, old_root)
    elif how == "root":
        root = hash_node(root, root)
    else:
        old_size = 0 if old == 1 else size + 1
    with pytest.raises(ReceiptInvalid):
        check_extends(old_size, old_root, size, root, tuple(path))


def test_the_same_history_needs_no_proof_and_another_of_its_size_has_none() -> None:
    check_extends(5, naive_root(0, 5), 5, naive_root(0, 5), ())
    with pytest.raises(ReceiptInvalid, match="another one than before"):
        check_extends(5, naive_root(0, 5), 5, naive_root(0, 6), ())


# ---- receipts ----


def head_of(size: int, root: bytes | None = None, private: Ed25519PrivateKey = PRIVATE) -> TreeHead:
    key = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    root = naive_root(0, size) if root is None else root
    return TreeHead(LOG_ID, size, 77, root, key, private.sign(head_bytes(LOG_ID, size, 77, root)))


def receipt_of(number: int, size: int, old: int = 0) -> bytes:
    salt, event = event_of(number)
    receipt = Receipt(head_of(size), number + 1, event, salt, tuple(naive_path(number, 0, size)))
    if old:
        proof = tuple(naive_proof(old, 0, size, True))
        receipt = receipt._replace(earlier_size=old, earlier_root=naive_root(0, old), earlier_path=proof)
    return encode_receipt(receipt)


def test_a_good_receipt_says_what_is_in_it() -> None:
    found = check_receipt(receipt_of(4, 11), key=KEY, log_id=LOG_ID.hex())
    assert (found.position, found.event) == (5, event_of(4)[1])
    assert found.head == head_of(11)
    assert bezant.check_receipt is check_receipt


@given(st.data())
def test_no_bit_of_a_receipt_can_be_altered(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 60))
    receipt = receipt_of(data.draw(st.integers(0, size - 1)), size, data.draw(st.integers(0, size)))
    check_receipt(receipt)
    bit = data.draw(st.integers(0, 8 * len(receipt) - 1))
    altered = bytearray(receipt)
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ReceiptInvalid):
        check_receipt(bytes(altered))


def test_really_no_bit_of_one_receipt_can_be_altered() -> None:
    receipt = receipt_of(2, 6, 3)
    for bit in range(8 * len(receipt)):
        altered = bytearray(receipt)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(ReceiptInvalid):
            check_receipt(bytes(altered))


@given(st.binary(max_size=600), st.integers(0, 500))
def test_bytes_that_are_no_receipt_are_refused(data: bytes, cut: int) -> None:
    receipt, shorter = receipt_of(2, 6, 3), receipt_of(2, 6)
    for wrong in (data, receipt[:cut], receipt + data[:1] + b"\0", receipt[:8] + data, b"x" * 5000):
        if wrong not in (receipt, shorter):
            with pytest.raises(ReceiptInvalid):
                check_receipt(wrong)


def test_another_key_another_log_and_another_format_are_refused_in_words() -> None:
    receipt = receipt_of(2, 6)
    with pytest.raises(ReceiptInvalid, match=f"signed with the key {KEY.hex()}, not with {'07' * 32}"):
        check_receipt(receipt, key=bytes([7]) * 32)
    with pytest.raises(ReceiptInvalid, match="of the log 0001020304050607, not of 0123456789abcdef"):
        check_receipt(receipt, log_id="0123456789abcdef")
    with pytest.raises(ReceiptInvalid, match="format 2 is not known"):
        check_receipt(receipt[:7] + b"\2" + receipt[8:])


def test_a_head_that_its_signer_made_up_does_not_have_the_event() -> None:
    salt, event = event_of(2)
    receipt = Receipt(head_of(6, naive_root(0, 7)), 3, event, salt, tuple(naive_path(2, 0, 6)))
    with pytest.raises(ReceiptInvalid, match="not in the history whose head it has"):
        check_receipt(encode_receipt(receipt))


def test_a_later_receipt_proves_that_it_extends_an_earlier_one() -> None:
    earlier = receipt_of(1, 6)
    check_receipt(receipt_of(2, 20, 6), key=KEY, extends=earlier)
    check_receipt(receipt_of(2, 6), extends=earlier)
    with pytest.raises(ReceiptInvalid, match="no proof that its history extends that over 6 events"):
        check_receipt(receipt_of(2, 20), extends=earlier)
    with pytest.raises(ReceiptInvalid, match="no proof that its history extends that over 6 events"):
        check_receipt(receipt_of(2, 20, 7), extends=earlier)
    with pytest.raises(ReceiptInvalid, match="it is not later"):
        check_receipt(receipt_of(2, 5), extends=earlier)


def test_a_rewritten_history_cannot_extend_what_was_confirmed() -> None:
    """The earlier receipt is of a history whose sixth event was another one, signed by the same key."""
    salt, event = event_of(1)
    root = naive_root(0, 5)
    other = hash_node(naive_root(0, 4), hash_node(leaf(4), leaf(99)))
    path = (leaf(0), naive_root(2, 4), hash_node(leaf(4), leaf(99)))
    earlier = encode_receipt(Receipt(head_of(6, other), 2, event, salt, path))
    check_receipt(earlier)
    assert root != other
    with pytest.raises(ReceiptInvalid, match="extends another history over 6 events"):
        check_receipt(receipt_of(2, 20, 6), extends=earlier)


def test_sizes() -> None:
    """The largest history that positions have room for, and the deepest leaf in it."""
    length = path_length(0, TREE_SIZE_MAX)
    salt, event = event_of(0)
    head = head_of(1)._replace(size=TREE_SIZE_MAX)
    receipt = Receipt(head, 1, event, salt, (EMPTY_ROOT,) * length)
    assert len(encode_receipt(receipt)) <= RECEIPT_SIZE_MAX == 2048
    extending = receipt._replace(earlier_size=TREE_SIZE_MAX - 1, earlier_root=bytes(32), earlier_path=(bytes(32),) * 53)
    assert len(encode_receipt(extending)) <= EXTENDING_RECEIPT_SIZE_MAX


def test_checking_loads_no_engine() -> None:
    program = (
        "import sys, bezant; bezant.check_receipt\n"
        "print(sorted({'numba', 'llvmlite', 'rocksdict', 'bezant.engine', 'numpy', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
