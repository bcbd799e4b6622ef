"""Claim: the tree is that of RFC 9162 for every size, however it grew; what is on disk of it is whole or not used."""

from functools import cache
from pathlib import Path

import blake3
import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bezant.engine.compiled import COMPILED
from bezant.engine.log.resume import ResumePoint, SegmentSummary
from bezant.engine.log.storage import Directory
from bezant.engine.proofs import hashing as hashing_module
from bezant.engine.proofs.hashing import hash_nodes, salt_of
from bezant.engine.proofs.leaves import leaf_hashes, secret_of
from bezant.engine.proofs.store import TREE_NAME, StoredTree, load_tree, save_tree
from bezant.engine.proofs.tree import MerkleTree
from bezant.protocol.errors import LedgerError, StorageError
from bezant.protocol.receipts import EMPTY_ROOT, check_extends, hash_leaf, hash_node, root_of_path
from bezant.protocol.records import EVENT, EVENT_SIZE, Bytes, Records, position_of

SIZE_MAX = 1200
LEAVES = np.stack(
    [np.frombuffer(blake3.blake3(number.to_bytes(4, "little")).digest(), np.uint8) for number in range(SIZE_MAX)]
)


def read_leaves(start: int, end: int) -> Bytes:
    return LEAVES[start:end]


@cache
def naive_root(start: int, end: int) -> bytes:
    """MTH (RFC 9162, 2.1.1)."""
    if end - start == 0:
        return blake3.blake3(b"").digest()
    if end - start == 1:
        return LEAVES[start].tobytes()
    power = 1
    while power * 2 < end - start:
        power *= 2
    return hash_node(naive_root(start, start + power), naive_root(start + power, end))


# ---- hashes ----


SECRET = secret_of(0x1234567890ABCDEF)


def some_events(count: int) -> Records:
    """Events that have no two bytes in a row alike, and of which no two are."""
    words = np.arange(count * EVENT_SIZE, dtype=np.int64) * 0x1E3779B97F4A7C15 >> 20
    return words.astype(np.uint8).view(EVENT)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 40, 2049])
@pytest.mark.parametrize(("shard", "first_sequence"), [(0, 1), (3, 101), (4095, (1 << 35) + 7)])
def test_leaves_are_what_a_client_computes(count: int, shard: int, first_sequence: int) -> None:
    events = some_events(count)
    hashes = leaf_hashes(events, first_sequence, shard, SECRET)
    assert hashes.shape == (count, 32)
    for number in range(count):
        sequence = first_sequence + number
        salt = blake3.blake3(sequence.to_bytes(8, "little"), key=SECRET).digest(length=16)
        assert salt_of(SECRET, sequence) == salt
        assert hashes[number].tobytes() == hash_leaf(salt, events[number].tobytes(), position_of(shard, sequence))


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled")
def test_uncompiled_hashes_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    events = some_events(20)
    compiled = [leaf_hashes(events, 5, 1, SECRET), hash_nodes(LEAVES[:40])]
    monkeypatch.setattr(hashing_module, "COMPILED", False)
    plain = [leaf_hashes(events, 5, 1, SECRET), hash_nodes(LEAVES[:40])]
    assert all(np.array_equal(*pair) for pair in zip(compiled, plain, strict=True))


def test_the_secret_depends_on_the_log_and_on_nothing_else() -> None:
    assert secret_of(5) == secret_of(5) != secret_of(6)
    assert len(secret_of(-5)) == 32


@pytest.mark.parametrize("count", [0, 1, 2, 31, 32, 34, 41, 600])
def test_nodes_are_what_a_client_computes(count: int) -> None:
    found = hash_nodes(LEAVES[:count])
    assert found.shape == (count // 2, 32)
    for number in range(count // 2):
        assert found[number].tobytes() == hash_node(LEAVES[2 * number].tobytes(), LEAVES[2 * number + 1].tobytes())


# ---- the tree ----


def test_every_size_has_the_root_of_the_definition_and_keeps_it() -> None:
    tree = MerkleTree(read_leaves)
    assert tree.root(0) == EMPTY_ROOT
    for size in range(1, SIZE_MAX + 1):
        tree.append([LEAVES[size - 1 : size]])
        assert tree.root(size) == naive_root(0, size)
    for size in range(0, SIZE_MAX, 37):
        assert tree.root(size) == naive_root(0, size)


@given(st.lists(st.integers(0, 700), min_size=1, max_size=6), st.data())
def test_proofs_of_a_tree_that_grew_in_any_steps_hold(steps: list[int], data: st.DataObject) -> None:
    tree = MerkleTree(read_leaves)
    for step in steps:
        tree.append([LEAVES[tree.size : min(tree.size + step, SIZE_MAX)]])
    if not tree.size:
        return
    size = data.draw(st.integers(1, tree.size))
    number = data.draw(st.integers(0, size - 1))
    old = data.draw(st.integers(1, size))
    root = naive_root(0, size)
    assert tree.root(size) == root
    path = tuple(tree.inclusion_path(number, size))
    assert root_of_path(number, size, LEAVES[number].tobytes(), path) == root
    check_extends(old, naive_root(0, old), size, root, tuple(tree.consistency_path(old, size)))
    again = MerkleTree(read_leaves, tree.blocks())
    again.append([tree.tail()])
    assert (again.size, again.root(tree.size)) == (tree.size, naive_root(0, tree.size))


@pytest.mark.parametrize("size", [255, 256, 257, 300, 511, 512, 513, 770])
def test_every_leaf_and_every_earlier_size_of_a_tree(size: int) -> None:
    tree = MerkleTree(read_leaves)
    tree.append([LEAVES[:size]])
    for number in range(size):
        path = tuple(tree.inclusion_path(number, size))
        assert root_of_path(number, size, LEAVES[number].tobytes(), path) == naive_root(0, size)
        old = number + 1
        check_extends(old, naive_root(0, old), size, naive_root(0, size), tuple(tree.consistency_path(old, size)))


def test_what_is_not_there_is_not_proven() -> None:
    tree = MerkleTree(read_leaves)
    tree.append([LEAVES[:10]])
    for call in (
        lambda: tree.root(11),
        lambda: tree.inclusion_path(10, 10),
        lambda: tree.inclusion_path(-1, 10),
        lambda: tree.inclusion_path(3, 11),
        lambda: tree.consistency_path(0, 10),
        lambda: tree.consistency_path(10, 9),
        lambda: tree.consistency_path(3, 11),
    ):
        with pytest.raises(LedgerError):
            call()


# ---- on disk ----


def point_at(size: int) -> ResumePoint:
    return ResumePoint(
        log_id=99,
        index=3,
        term=1,
        timestamp_ns=5,
        next_sequence=size + 1,
        chain_hash=bytes(32),
        segment_number=1,
        entry_offset=4096,
        end_offset=5000,
        bytes_count=904,
        term_runs=((1, 1),),
        segments=(SegmentSummary(1, 5000, bytes(8), bytes(8), (4096).to_bytes(8, "little")),),
    )


def stored_of(size: int) -> StoredTree:
    tree = MerkleTree(read_leaves)
    tree.append([LEAVES[:size]])
    return StoredTree(point_at(size), tree.blocks(), tree.tail())


@pytest.mark.parametrize("size", [1, 255, 256, 700])
def test_what_was_saved_is_found_again(tmp_path: Path, size: int) -> None:
    directory = Directory(tmp_path / "proofs")
    assert load_tree(directory, 2, 99) is None
    save_tree(directory, 2, stored_of(size))
    found = load_tree(directory, 2, 99)
    assert found is not None
    assert found.point == point_at(size)
    tree = MerkleTree(read_leaves, found.blocks)
    tree.append([found.tail])
    assert tree.root(size) == naive_root(0, size)


@given(st.integers(0, 10_000), st.integers(0, 7), st.booleans())
def test_a_file_that_is_damaged_or_cut_is_not_used(
    tmp_path_factory: pytest.TempPathFactory, place: int, bit: int, cut: bool
) -> None:
    directory = Directory(tmp_path_factory.mktemp("proofs"))
    save_tree(directory, 2, stored_of(300))
    path = directory.path / TREE_NAME
    data = bytearray(path.read_bytes())
    place %= len(data)
    if cut:
        data = data[:place]
    else:
        data[place] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(StorageError, match="damaged, or of another log"):
        load_tree(directory, 2, 99)


def test_a_file_of_another_log_or_shard_is_not_used(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    save_tree(directory, 2, stored_of(300))
    for shard, log_id in ((1, 99), (2, 98)):
        with pytest.raises(StorageError, match="of another log"):
            load_tree(directory, shard, log_id)
    wrong = msgspec.structs.replace(point_at(300), next_sequence=305)
    save_tree(directory, 2, stored_of(300)._replace(point=wrong))
    with pytest.raises(StorageError):
        load_tree(directory, 2, 99)
