"""Memory by its address, for kernels that read of many mappings in one call: arrays of them would have to be one type.

Whoever gives an address holds what is mapped there until the kernel has returned.
"""

import ctypes
import mmap
from typing import Any, Final

import numpy as np
from numba import types
from numba.extending import lower_builtin, overload, type_callable

from bezant.engine.compiled import PART_OPTIONS
from bezant.protocol.records import Bytes, Words

_LIBC: Final = ctypes.CDLL(None)
_WILL_NEED: Final = int(mmap.MADV_WILLNEED)
_madvise: Final = types.ExternalFunction("madvise", types.int32(types.uintp, types.uintp, types.int32))


def bytes_at(address: int, size: int) -> Bytes:
    """The bytes from an address on."""
    return np.frombuffer(memoryview((ctypes.c_uint8 * int(size)).from_address(int(address))), np.uint8)


def words_at(address: int, count: int) -> Words:
    """The words from an address on."""
    return np.frombuffer(memoryview((ctypes.c_int64 * int(count)).from_address(int(address))), np.int64)


@type_callable(bytes_at)
def _type_bytes_at(_context: Any) -> Any:
    return lambda _address, _size: types.Array(types.uint8, 1, "C")


@type_callable(words_at)
def _type_words_at(_context: Any) -> Any:
    return lambda _address, _count: types.Array(types.int64, 1, "C")


@lower_builtin(bytes_at, types.int64, types.int64)
@lower_builtin(words_at, types.int64, types.int64)
def _array_at_compiled(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Built here, because a compiled function without reference counts may not return an array."""
    from numba.np.arrayobj import populate_array  # takes 20 ms to load, and only who compiles needs it

    address, count = arguments
    array = context.make_array(signature.return_type)(context, builder)
    data = builder.inttoptr(address, array.data.type)
    size = context.get_constant(types.intp, signature.return_type.dtype.bitwidth // 8)
    populate_array(array, data=data, shape=[count], strides=[size], itemsize=size, meminfo=None)
    return array._getvalue()


def will_need(address: int, size: int) -> None:
    """Have the kernel read pages of a mapping, from the beginning of one on, without waiting for them.

    It is free to do nothing, and what it cannot do shows when the bytes are read.
    """
    _LIBC.madvise(ctypes.c_void_p(int(address)), ctypes.c_size_t(int(size)), _WILL_NEED)


@overload(will_need, jit_options=PART_OPTIONS)
def _will_need_compiled(address, size):
    def ask(address, size):
        _madvise(np.uint64(address), np.uint64(size), np.int32(_WILL_NEED))

    return ask
