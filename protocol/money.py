"""Exact amounts: between decimal text and 64-bit minor units, with nothing rounded and nothing guessed."""

import re
from typing import Final

from bezant.protocol.errors import InvalidAmountOrName

AMOUNT_MAX: Final = 2**63 - 1
DECIMALS_MAX: Final = 18
_WHOLE_DIGITS_MAX: Final = 19
_SHOWN_MAX: Final = 60
"""Characters of a text that an error repeats."""
_PATTERN: Final = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?", re.ASCII)


def parse_amount(text: str, decimals: int) -> int:
    """Read a decimal such as ``"12.50"`` as minor units of a currency with so many decimals.

    More decimals than the currency has are refused even if they are zeros; so are signs other than a leading minus,
    exponents, separators and spaces. Raises `InvalidAmountOrName`.
    """
    match = _PATTERN.fullmatch(text)
    shown = repr(text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "...")
    if match is None:
        raise InvalidAmountOrName(f"an amount is written like 12.50, with digits and one point only, not {shown}")
    sign, whole, fraction = match[1], match[2], match[3] or ""
    if len(fraction) > decimals:
        raise InvalidAmountOrName(f"{shown} has {len(fraction)} decimals; the currency has {decimals}")
    # Digits are counted first: a number of thousands of them would take Python long, or be refused by it.
    units = int(whole + fraction.ljust(decimals, "0")) if len(whole) <= _WHOLE_DIGITS_MAX else AMOUNT_MAX + 1
    if units > AMOUNT_MAX:
        raise InvalidAmountOrName(f"{shown} does not fit in 64 bits of minor units")
    return -units if sign else units


def format_amount(units: int, decimals: int) -> str:
    """Write minor units as a decimal with exactly so many decimals; the inverse of `parse_amount`."""
    digits = str(abs(units)).rjust(decimals + 1, "0")
    sign = "-" if units < 0 else ""
    if decimals == 0:
        return sign + digits
    return f"{sign}{digits[:-decimals]}.{digits[-decimals:]}"
