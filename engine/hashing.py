"""Hashes that kernels need: XXH3-64 of short frames, BLAKE3 of names, and the mixer of the hash indexes.

Each is a plain Python function over the well-kept library, which runs outside kernels and when kernels are not
compiled, and a compiled body for use inside kernels; tests hold the two against each other. Sources: the XXH3
specification (xxHash repository, doc/xxhash_spec.md, "XXH3 algorithm"), the BLAKE3 paper (section 2.2, compression
function), and for the mixer wyhash (github.com/wangyi-fudan/wyhash).
"""

from typing import Any, Final

import numpy as np
import xxhash
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from bezant.engine.compiled import PART_OPTIONS, called
from bezant.protocol.names import account_id, currency_code
from bezant.protocol.records import Bytes, id_words

_MASK: Final = (1 << 64) - 1


@intrinsic
def _load_word(_context: Any, buffer: Any, offset: Any) -> Any:
    """Read 8 bytes at any offset of a uint8 array as a little-endian uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        word = builder.bitcast(pointer, ir.IntType(64).as_pointer())
        load = builder.load(word)
        load.align = 1
        return load

    return types.uint64(buffer, types.int64), generate


@intrinsic
def _store_word(_context: Any, buffer: Any, offset: Any, value: Any) -> Any:
    """Write a uint64 as 8 little-endian bytes at any offset of a uint8 array."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        pointer = builder.gep(array.data, [arguments[1]])
        word = builder.bitcast(pointer, ir.IntType(64).as_pointer())
        store = builder.store(arguments[2], word)
        store.align = 1
        return context.get_dummy_value()

    return types.void(buffer, types.int64, types.uint64), generate


@intrinsic
def _multiply_fold(_context: Any, left: Any, right: Any) -> Any:
    """Multiply two uint64 to 128 bits and xor the halves."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(builder.zext(arguments[0], wide), builder.zext(arguments[1], wide))
        high = builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), ir.IntType(64))
        return builder.xor(builder.trunc(product, ir.IntType(64)), high)

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic
def _prefetch(_context: Any, table: Any, row: Any) -> Any:
    """Start to load the cache line of a row of a two-dimensional table."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        stride = builder.extract_value(array.strides, 0)
        address = builder.add(builder.ptrtoint(array.data, ir.IntType(64)), builder.mul(arguments[1], stride))
        pointer = builder.inttoptr(address, ir.IntType(8).as_pointer())
        flag = ir.IntType(32)
        function_type = ir.FunctionType(ir.VoidType(), [pointer.type, flag, flag, flag])
        function = builder.module.declare_intrinsic("llvm.prefetch", [pointer.type], function_type)
        builder.call(function, [pointer, flag(1), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(table, types.int64), generate


def prefetch(table: Any, row: int) -> None:
    """Tell the processor that a row of a table will be needed soon; changes nothing else."""


@overload(prefetch, jit_options=PART_OPTIONS)
def _prefetch_compiled(table, row):
    return lambda table, row: _prefetch(table, row)


def load_word(buffer: Bytes, offset: int) -> int:
    """The uint64 at any byte offset of a buffer."""
    return int.from_bytes(buffer[offset : offset + 8].tobytes(), "little")


@overload(load_word, jit_options=PART_OPTIONS)
def _load_word_compiled(buffer, offset):
    return lambda buffer, offset: _load_word(buffer, offset)


def store_word(buffer: Bytes, offset: int, value: int) -> None:
    """Write a uint64 at any byte offset of a buffer."""
    buffer[offset : offset + 8] = np.frombuffer((int(value) & _MASK).to_bytes(8, "little"), np.uint8)


@overload(store_word, jit_options=PART_OPTIONS)
def _store_word_compiled(buffer, offset, value):
    return lambda buffer, offset, value: _store_word(buffer, offset, np.uint64(value))


# ---- XXH3-64, seed 0, default secret, 17 to 240 bytes ----

_SECRET: Final = np.frombuffer(
    bytes.fromhex(
        "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221b8084674f743248e"
        "e03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a"
        "51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8f"
        "f8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
    ),
    np.uint8,
)
_SECRET_WORDS: Final = tuple(
    np.uint64(int.from_bytes(_SECRET[offset : offset + 8].tobytes(), "little")) for offset in range(185)
)
_SECRETS: Final = np.array(_SECRET_WORDS, np.uint64)
"""The secret read as a uint64 at every byte offset."""

_PRIME_1: Final = np.uint64(0x9E3779B185EBCA87)
_AVALANCHE: Final = np.uint64(0x165667919E3779F9)

XXH3_SHORT_MIN: Final = 17
XXH3_SHORT_MAX: Final = 240


def xxh3_64(buffer: Bytes, start: int, end: int) -> Any:
    """XXH3-64 of ``buffer[start:end]``. Inside kernels only for 17 to 240 bytes; the caller checks that."""
    return np.uint64(xxhash.xxh3_64_intdigest(buffer[start:end].tobytes()))


@overload(xxh3_64, jit_options=PART_OPTIONS)
def _xxh3_64_compiled(buffer, start, end):
    def mix(buffer, offset, secret):
        return _multiply_fold(
            _load_word(buffer, offset) ^ _SECRETS[secret], _load_word(buffer, offset + 8) ^ _SECRETS[secret + 8]
        )

    mix_16 = called(mix)

    def implementation(buffer, start, end):
        start = np.int64(start)
        end = np.int64(end)
        size = end - start
        accumulator = np.uint64(size) * _PRIME_1
        if size <= 128:
            if size > 96:
                accumulator += mix_16(buffer, start + 48, 96) + mix_16(buffer, end - 64, 112)
            if size > 64:
                accumulator += mix_16(buffer, start + 32, 64) + mix_16(buffer, end - 48, 80)
            if size > 32:
                accumulator += mix_16(buffer, start + 16, 32) + mix_16(buffer, end - 32, 48)
            accumulator += mix_16(buffer, start, 0) + mix_16(buffer, end - 16, 16)
        else:
            for block in range(8):
                accumulator += mix_16(buffer, start + 16 * block, 16 * block)
            accumulator ^= accumulator >> np.uint64(37)
            accumulator *= _AVALANCHE
            accumulator ^= accumulator >> np.uint64(32)
            for block in range(8, size // 16):
                accumulator += mix_16(buffer, start + 16 * block, 16 * (block - 8) + 3)
            accumulator += mix_16(buffer, end - 16, 119)
        accumulator ^= accumulator >> np.uint64(37)
        accumulator *= _AVALANCHE
        accumulator ^= accumulator >> np.uint64(32)
        return accumulator

    return implementation


# ---- the mixer of the hash indexes ----

_SPREAD: Final = 0x9E3779B97F4A7C15


def mix_words(head: int, tail: int, extra: int, salt_1: int, salt_2: int) -> Any:
    """Hash two words and a small third under two secret salts to a non-negative int64 (63 bits).

    Two rounds of a 64 by 64 to 128 bit product whose halves are folded, as in wyhash. Both words meet a secret before
    the product, so that whoever does not know the salts cannot choose words that collide; a secret that is merely
    added lets pairs collide under every salt.
    """
    product = ((int(head) ^ int(salt_1)) & _MASK) * ((int(tail) ^ int(salt_2)) & _MASK)
    value = (product ^ product >> 64) & _MASK
    product = (value ^ (int(extra) ^ int(salt_1)) & _MASK) * _SPREAD
    return np.int64(((product ^ product >> 64) & _MASK) >> 1)


@overload(mix_words, jit_options=PART_OPTIONS)
def _mix_words_compiled(head, tail, extra, salt_1, salt_2):
    spread = np.uint64(_SPREAD)

    def implementation(head, tail, extra, salt_1, salt_2):
        value = _multiply_fold(np.uint64(head) ^ np.uint64(salt_1), np.uint64(tail) ^ np.uint64(salt_2))
        value = _multiply_fold(value ^ np.uint64(extra) ^ np.uint64(salt_1), spread)
        return np.int64(value >> np.uint64(1))

    return implementation


# ---- BLAKE3 of one block, for account ids ----

_BLAKE3_IV: Final = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
_BLAKE3_PERMUTATION: Final = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
_BLAKE3_MIXES: Final = (
    (0, 4, 8, 12),
    (1, 5, 9, 13),
    (2, 6, 10, 14),
    (3, 7, 11, 15),
    (0, 5, 10, 15),
    (1, 6, 11, 12),
    (2, 7, 8, 13),
    (3, 4, 9, 14),
)
_BLAKE3_ROUNDS: Final = 7
_BLAKE3_FLAGS: Final = 1 | 2 | 8
"""CHUNK_START, CHUNK_END and ROOT: the input is one block."""


@intrinsic
def _blake3_block(_context: Any, buffer: Any, block: Any, size: Any) -> Any:
    """First two output words (64 bits each) of the root block at an offset of a uint8 array; `size` bytes of it count.

    Written out, so that state and message stay in registers: a third of the time of loops over tables of them.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word, wide = ir.IntType(32), ir.IntType(64)

        def mix(state: list[Any], places: tuple[int, ...], first: Any, second: Any) -> None:
            """The function G of the paper on one column or diagonal."""
            a, b, c, d = places
            for message, (turn_d, turn_b) in ((first, (16, 12)), (second, (8, 7))):
                state[a] = builder.add(builder.add(state[a], state[b]), message)
                state[d] = rotate(builder.xor(state[d], state[a]), turn_d)
                state[c] = builder.add(state[c], state[d])
                state[b] = rotate(builder.xor(state[b], state[c]), turn_b)

        def rotate(value: Any, count: int) -> Any:
            return builder.or_(builder.lshr(value, word(count)), builder.shl(value, word(32 - count)))

        array = context.make_array(signature.args[0])(context, builder, arguments[0])
        start = builder.bitcast(builder.gep(array.data, [arguments[1]]), word.as_pointer())
        message = [builder.load(builder.gep(start, [word(index)])) for index in range(16)]
        for load in message:
            load.align = 1
        counters = [word(0), word(0), builder.trunc(arguments[2], word), word(_BLAKE3_FLAGS)]
        state = [word(value) for value in (*_BLAKE3_IV, *_BLAKE3_IV[:4])] + counters
        for _ in range(_BLAKE3_ROUNDS):
            for step, places in enumerate(_BLAKE3_MIXES):
                mix(state, places, message[2 * step], message[2 * step + 1])
            message = [message[index] for index in _BLAKE3_PERMUTATION]
        output = [builder.zext(builder.xor(state[index], state[8 + index]), wide) for index in range(4)]
        words = [builder.or_(output[index], builder.shl(output[index + 1], wide(32))) for index in (0, 2)]
        return context.make_tuple(builder, signature.return_type, words)

    return types.UniTuple(types.int64, 2)(buffer, types.int64, types.int64), generate


SCRATCH_SIZE: Final = 128
"""Bytes of working memory that `account_id_words` needs: two blocks of 64."""
_KEY_AT: Final = 64


def account_id_words(name_words: Any, currency: int, scratch: Bytes) -> tuple[int, int]:
    """The (head, tail) words of the account id for a checked name (six words, zero padded) and currency word.

    Defined by `bezant.protocol.names.account_id`. Kernels allocate nothing, so they bring `scratch`.
    """
    name = b"".join(int(word).to_bytes(8, "little", signed=True) for word in name_words).rstrip(b"\0")
    return id_words(account_id(name.decode("ascii"), currency_code(currency)))


@called
def _compress(scratch: Any, block: Any, size: Any) -> Any:
    return _blake3_block(scratch, block, size)


@overload(account_id_words, jit_options=PART_OPTIONS)
def _account_id_words_compiled(name_words, currency, scratch):
    @called
    def find_byte(scratch, start, end, byte):
        while start < end and scratch[start] != byte:
            start += 1
        return start

    def implementation(name_words, currency, scratch):
        for index in range(2 * 8):
            _store_word(scratch, 8 * index, np.uint64(0))
        for index in range(6):
            _store_word(scratch, 8 * index, np.uint64(name_words[index]))
        size = find_byte(scratch, 0, 48, 0)
        start, end = 0, size
        opening = find_byte(scratch, 0, size, 123)
        closing = find_byte(scratch, opening + 1, size, 125)
        if closing < size and closing > opening + 1:
            start, end = opening + 1, closing
        for index in range(start, end):
            scratch[_KEY_AT + index - start] = scratch[index]
        place, _ = _compress(scratch, _KEY_AT, end - start)
        _store_word(scratch, size + 1, np.uint64(currency))
        head, tail = _compress(scratch, 0, size + 9)
        slot_mask = np.int64(0xF0FF)
        return (head & ~slot_mask) | (place & slot_mask), tail

    return implementation
