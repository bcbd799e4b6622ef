"""Arrow arrays of the words that records are made of. Rows where `there` is false become NULL."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bezant.protocol.money import DECIMALS_MAX
from bezant.protocol.records import NAME_SIZE_MAX, Words

Flags = npt.NDArray[np.bool_]

TIME: Final = pa.timestamp("ns", tz="UTC")
PRECISION: Final = 38
"""Digits of a DECIMAL: 19 of an amount in minor units and 18 decimals are at most 37."""
_ID_DIGITS: Final = 32
_HEXADECIMAL: Final = np.array([f"{byte:02x}".encode() for byte in range(256)], "S2")
_FACTORS: Final = np.array([10**power for power in range(DECIMALS_MAX + 1)], np.int64)
_INT64_MAX: Final = 2**63 - 1


def money_type(decimals: int) -> Any:
    """The type of amounts with so many decimals."""
    return pa.decimal128(PRECISION, decimals)


def integers(values: "npt.NDArray[Any]", kind: Any, there: Flags | None = None) -> Any:
    """Whole numbers, or times in nanoseconds, of an Arrow type."""
    return pa.array(np.ascontiguousarray(values), mask=None if there is None else ~there).cast(kind)


def booleans(values: Flags, there: Flags | None = None) -> Any:
    """Truth values."""
    return pa.array(values, mask=None if there is None else ~there)


def identifiers(head: Words, tail: Words, there: Flags | None = None) -> Any:
    """Ids as 32 hexadecimal digits; an id of zeros is none."""
    is_id = (head != 0) | (tail != 0)
    there = is_id if there is None else is_id & there
    data = np.stack([head, tail], axis=1).astype("<i8").view(np.uint8)
    digits = _HEXADECIMAL[data.reshape(-1)]
    offsets = np.arange(0, _ID_DIGITS * (len(head) + 1), _ID_DIGITS, dtype=np.int32)
    bitmap = np.packbits(there, bitorder="little")
    return pa.StringArray.from_buffers(len(head), pa.py_buffer(offsets), pa.py_buffer(digits), pa.py_buffer(bitmap))


def chosen(texts: Sequence[str], places: Words) -> Any:
    """For each row the text at its place; NULL for a place of -1."""
    return pa.array(list(texts), pa.string()).take(pa.array(places, mask=places < 0))


def names(rows: Words, numbers: Words) -> Any:
    """Names of accounts by their numbers; `rows` (accounts, 6) are the words of all names. NULL for -1."""
    distinct, places = np.unique(np.maximum(numbers, 0), return_inverse=True)
    if not len(rows):
        return pa.nulls(len(numbers), pa.string())
    texts = np.ascontiguousarray(rows[distinct]).view(f"S{NAME_SIZE_MAX}").reshape(-1)
    return pa.array(texts, pa.binary()).cast(pa.string()).take(pa.array(places, mask=numbers < 0))


def money(minor: Words, decimals: Words, scale: int, there: Flags | None = None) -> Any:
    """Amounts in minor units, each of a currency with so many decimals, as exact decimals of one scale.

    Those whose currency is not known (-1) become NULL. No currency may have more decimals than the scale.
    """
    known = decimals >= 0
    there = known if there is None else known & there
    factors = _FACTORS[np.where(known, scale - decimals, 0)]
    minor = np.where(there, minor, 0)
    pairs = np.empty((len(minor), 2), np.int64)
    if len(minor) and (np.abs(minor) > _INT64_MAX // factors).any():
        exact = [value * factor for value, factor in zip(minor.tolist(), factors.tolist(), strict=True)]
        pairs[:, 0] = np.array([value & (1 << 64) - 1 for value in exact], np.uint64).view(np.int64)
        pairs[:, 1] = [value >> 64 for value in exact]
    else:
        pairs[:, 0] = minor * factors
        pairs[:, 1] = pairs[:, 0] >> 63
    bitmap = pa.py_buffer(np.packbits(there, bitorder="little"))
    return pa.Array.from_buffers(money_type(scale), len(minor), [bitmap, pa.py_buffer(pairs)])
