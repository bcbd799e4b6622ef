"""Claim: the hashes inside kernels are those of the libraries, bit for bit, for every input that a kernel may have."""

from typing import Final

import blake3
import numpy as np
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from bezant.engine.compiled import kernel
from bezant.engine.hashing import (
    SCRATCH_SIZE,
    XXH3_SHORT_MAX,
    XXH3_SHORT_MIN,
    account_id_words,
    load_word,
    mix_words,
    prefetch,
    store_word,
    xxh3_64,
)
from bezant.protocol.names import account_id, currency_word, slot_of
from bezant.protocol.records import Bytes, Words, id_bytes, id_words

SIZES: Final = range(XXH3_SHORT_MIN, XXH3_SHORT_MAX + 1)
MAX: Final = 2**63 - 1
MIN: Final = -(2**63)
EDGES: Final = (0, 1, -1, 2, 255, 2**31, 2**32 - 1, 2**32, 2**62, MAX - 1, MAX, MIN, MIN + 1)

words = st.one_of(st.sampled_from(EDGES), st.integers(MIN, MAX))


@kernel
def xxh3_of_all_sizes(buffer: Bytes, start: int, hashes: Words) -> None:
    for number in range(len(hashes)):
        hashes[number] = np.int64(xxh3_64(buffer, start, start + XXH3_SHORT_MIN + number))


@kernel
def mix(head: int, tail: int, extra: int, salt_1: int, salt_2: int) -> int:
    return mix_words(head, tail, extra, salt_1, salt_2)


@kernel
def account_of(name_words: Words, currency: int, scratch: Bytes, found: Words) -> None:
    found[0], found[1] = account_id_words(name_words, currency, scratch)


@kernel
def copy_words(source: Bytes, target: Bytes, start: int, count: int) -> None:
    for number in range(count):
        store_word(target, start + 8 * number, load_word(source, start + 8 * number))


@kernel
def prefetch_all(table: Words) -> None:
    for row in range(len(table)):
        prefetch(table, row)


# --- XXH3


def buffers() -> list[Bytes]:
    """Of random bytes, of equal ones, and of ones that count."""
    rng = np.random.default_rng(1)
    size = 16 + XXH3_SHORT_MAX
    return [
        rng.integers(0, 256, size, np.uint8),
        np.zeros(size, np.uint8),
        np.full(size, 0xFF, np.uint8),
        np.arange(size, dtype=np.uint8),
    ]


@pytest.mark.parametrize("start", [0, 1, 3, 8, 13])
@pytest.mark.parametrize("buffer", buffers(), ids=["random", "zeros", "ones", "counting"])
def test_xxh3_of_every_size(buffer: Bytes, start: int) -> None:
    """From any offset; the bytes around do not matter."""
    hashes = np.zeros(len(SIZES), np.int64)
    xxh3_of_all_sizes(buffer, start, hashes)
    expected = [xxhash.xxh3_64_intdigest(buffer[start : start + size].tobytes()) for size in SIZES]
    assert hashes.view(np.uint64).tolist() == expected


@given(st.binary(min_size=XXH3_SHORT_MAX, max_size=XXH3_SHORT_MAX))
def test_xxh3_of_any_bytes(data: bytes) -> None:
    hashes = np.zeros(len(SIZES), np.int64)
    xxh3_of_all_sizes(np.frombuffer(bytearray(data), np.uint8), 0, hashes)
    assert hashes.view(np.uint64).tolist() == [xxhash.xxh3_64_intdigest(data[:size]) for size in SIZES]


def test_outside_kernels_xxh3_takes_any_size() -> None:
    data = np.arange(5000, dtype=np.uint8)
    for size in (0, 1, 16, 17, 240, 241, 4000):
        assert int(xxh3_64(data, 7, 7 + size)) == xxhash.xxh3_64_intdigest(data[7 : 7 + size].tobytes())


# --- The mixer


def reference_mix(head: int, tail: int, extra: int, salt_1: int, salt_2: int) -> int:
    """Written once more, in unsigned integers without bounds."""

    def unsigned(value: int) -> int:
        return value % 2**64

    def fold(left: int, right: int) -> int:
        high, low = divmod(left * right, 2**64)
        return high ^ low

    first = fold(unsigned(head) ^ unsigned(salt_1), unsigned(tail) ^ unsigned(salt_2))
    return fold(first ^ unsigned(extra) ^ unsigned(salt_1), 0x9E3779B97F4A7C15) // 2


@given(words, words, words, words, words)
def test_the_mixer_is_the_same_compiled_and_not(head: int, tail: int, extra: int, salt_1: int, salt_2: int) -> None:
    expected = reference_mix(head, tail, extra, salt_1, salt_2)
    assert int(mix_words(head, tail, extra, salt_1, salt_2)) == expected
    assert mix(head, tail, extra, salt_1, salt_2) == expected
    assert 0 <= expected <= MAX


def test_the_mixer_spreads_ids_that_count() -> None:
    """Ids that differ in one word alone, in its low bits or its high ones, fill a table evenly: of 16,384 none of 256
    parts gets more than twice its share."""
    for shift in (0, 20, 49):
        for place in ("head", "tail"):
            parts = np.zeros(256, np.int64)
            for number in range(1 << 14):
                word = number << shift
                hashed = (
                    mix(word, 5, 0, 0x1234567, 0x7654321) if place == "head" else mix(5, word, 0, 0x1234567, 0x7654321)
                )
                parts[hashed % 256] += 1
            assert parts.max() < 2 * 64, (shift, place)


# --- Account ids

NAMES: Final = (
    "a",
    "~",
    "!",
    "world",
    "x" * 47,
    "x" * 48,
    "{t}",
    "{t}a",
    "{ann}:wallet",
    "wallet:{ann}:savings",
    "{}",
    "{}a",
    "{}{t}",
    "{",
    "}",
    "}{",
    "}{t}",
    "a{t",
    "a}t{",
    "{{t}}",
    "{{}",
    "{a}{b}",
    "{a{b}c}",
    "{" + "y" * 46 + "}",
    "{" + "y" * 47,
    "z" * 46 + "{}",
    "z" * 45 + "{t}",
)
CURRENCIES: Final = ("A", "9", "EUR", "JPY", "POINTS", "ABCDEFGH", "ZZZZZZZZ", "00000000")


def kernel_account(name: str, currency: str, scratch: Bytes) -> tuple[int, int]:
    name_words = np.frombuffer(name.encode().ljust(48, b"\0"), np.int64).copy()
    found = np.zeros(2, np.int64)
    account_of(name_words, currency_word(currency), scratch, found)
    return int(found[0]), int(found[1])


@pytest.mark.parametrize("name", NAMES)
def test_account_ids_of_names_with_and_without_tags(name: str) -> None:
    """With working memory in any state."""
    for currency in CURRENCIES:
        expected = id_words(account_id(name, currency))
        for fill in (0, 0xFF):
            scratch = np.full(SCRATCH_SIZE, fill, np.uint8)
            assert kernel_account(name, currency, scratch) == expected
        plain = account_id_words(
            np.frombuffer(name.encode().ljust(48, b"\0"), np.int64), currency_word(currency), scratch
        )
        assert plain == expected


@pytest.mark.parametrize("size", range(1, 49))
def test_account_ids_of_names_of_every_length(size: int) -> None:
    scratch = np.zeros(SCRATCH_SIZE, np.uint8)
    for name in ("q" * size, ("{k}" + "q" * size)[:size], ("q" * size)[:-1] + "}"):
        assert kernel_account(name, "EUR", scratch) == id_words(account_id(name, "EUR"))


@given(
    st.text(st.sampled_from("{}ab!~"), min_size=1, max_size=48),
    st.text(st.sampled_from("ABCXYZ0189"), min_size=1, max_size=8),
)
def test_account_ids_of_any_name(name: str, currency: str) -> None:
    scratch = np.zeros(SCRATCH_SIZE, np.uint8)
    assert kernel_account(name, currency, scratch) == id_words(account_id(name, currency))


def test_a_tag_decides_the_slot_and_nothing_else() -> None:
    scratch = np.zeros(SCRATCH_SIZE, np.uint8)
    first = id_bytes(*kernel_account("{ann}:wallet", "EUR", scratch))
    second = id_bytes(*kernel_account("savings:{ann}", "JPY", scratch))
    assert slot_of(first) == slot_of(second)
    assert slot_of(first) == int.from_bytes(blake3.blake3(b"ann").digest(length=2), "big") >> 4
    assert first[2:] == blake3.blake3(b"{ann}:wallet\0EUR\0\0\0\0\0").digest(length=16)[2:]


# --- Words in bytes


@pytest.mark.parametrize("start", range(9))
def test_words_are_read_and_written_at_any_offset(start: int) -> None:
    source = np.random.default_rng(2).integers(0, 256, 64, np.uint8)
    target = np.zeros(64, np.uint8)
    copy_words(source, target, start, 4)
    expected = np.zeros(64, np.uint8)
    expected[start : start + 32] = source[start : start + 32]
    assert target.tobytes() == expected.tobytes()


@pytest.mark.parametrize("value", [0, 1, 2**63, 2**64 - 1, 0x0123456789ABCDEF])
def test_words_are_little_endian_outside_kernels_too(value: int) -> None:
    buffer = np.zeros(20, np.uint8)
    store_word(buffer, 3, value)
    assert buffer.tobytes() == bytes(3) + value.to_bytes(8, "little") + bytes(9)
    assert load_word(buffer, 3) == value


def test_prefetching_changes_nothing() -> None:
    table = np.arange(200, dtype=np.int64).reshape(100, 2)
    prefetch_all(table)
    prefetch(table, 10**9)
    assert table.tolist() == np.arange(200).reshape(100, 2).tolist()
