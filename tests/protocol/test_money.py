"""Claim: decimal text and minor units are the same number, or the text is refused; nothing is ever rounded."""

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bezant.protocol.errors import InvalidAmountOrName, UsageError
from bezant.protocol.money import AMOUNT_MAX, DECIMALS_MAX, format_amount, parse_amount

EXACT = Context(prec=60)

# Text, decimals of the currency, minor units. `format_amount` gives the text back where it is canonical.
CANONICAL = [
    ("0", 0, 0),
    ("0.00", 2, 0),
    ("0.01", 2, 1),
    ("-0.01", 2, -1),
    ("12.50", 2, 1250),
    ("-12.50", 2, -1250),
    ("1.000", 3, 1000),
    ("7", 0, 7),
    ("0.000000000000000001", 18, 1),
    ("9.223372036854775807", 18, AMOUNT_MAX),
    ("-9.223372036854775807", 18, -AMOUNT_MAX),
    ("92233720368547758.07", 2, AMOUNT_MAX),
    ("9223372036854775807", 0, AMOUNT_MAX),
    ("-9223372036854775807", 0, -AMOUNT_MAX),
]
ALSO_READ = [
    ("12", 2, 1200),
    ("12.5", 2, 1250),
    ("007.50", 2, 750),
    ("-0", 2, 0),
    ("-0.00", 2, 0),
    ("0000000000000000001", 2, 100),
]
REFUSED = [
    ("", 2),
    ("-", 2),
    (".", 2),
    (".5", 2),
    ("5.", 2),
    ("+5", 2),
    ("--5", 2),
    ("- 5", 2),
    (" 5", 2),
    ("5 ", 2),
    ("5\n", 2),
    ("5\0", 2),
    ("1,50", 2),
    ("1_000", 2),
    ("1'000", 2),
    ("1e3", 2),
    ("0x10", 2),
    ("nan", 2),
    ("inf", 2),
    ("1.2.3", 2),
    ("\u0661\u0662", 2),  # digits, but not ASCII ones
    ("\u22125", 2),  # a minus sign, but not the ASCII one
    ("12.505", 2),
    ("12.500", 2),
    ("1.0", 0),
    ("9223372036854775808", 0),
    ("-9223372036854775808", 0),
    ("92233720368547758.08", 2),
    ("10000000000000000000", 0),
    ("9.223372036854775808", 18),
    ("1" * 5000, 2),
    ("0." + "1" * 5000, 18),
]


@pytest.mark.parametrize(("text", "decimals", "units"), CANONICAL + ALSO_READ)
def test_reads_text_as_minor_units(text: str, decimals: int, units: int) -> None:
    assert parse_amount(text, decimals) == units


@pytest.mark.parametrize(("text", "decimals", "units"), CANONICAL)
def test_writes_minor_units_as_canonical_text(text: str, decimals: int, units: int) -> None:
    assert format_amount(units, decimals) == text


@pytest.mark.parametrize(("text", "decimals"), REFUSED)
def test_refuses_what_is_not_exactly_an_amount(text: str, decimals: int) -> None:
    with pytest.raises(InvalidAmountOrName):
        parse_amount(text, decimals)


def test_a_refusal_is_the_callers_fault_and_a_value_error_that_names_the_limit() -> None:
    with pytest.raises(UsageError, match="has 3 decimals; the currency has 2"):
        parse_amount("1.005", 2)
    with pytest.raises(ValueError, match="64 bits"):
        parse_amount("92233720368547758.08", 2)


@pytest.mark.parametrize("text", ["12345678901234567890.00", "-1" + "0" * 19, "9" * 5000])
def test_a_number_that_is_too_long_does_not_fit_and_is_not_repeated_whole(text: str) -> None:
    """It is written as an amount is, so that is not what is wrong with it."""
    with pytest.raises(InvalidAmountOrName, match="does not fit in 64 bits") as refused:
        parse_amount(text, 2)
    assert len(str(refused.value)) < 120


def test_the_most_negative_word_can_be_written_though_no_amount_reads_as_it() -> None:
    assert format_amount(-(2**63), 2) == "-92233720368547758.08"


@given(st.integers(-AMOUNT_MAX, AMOUNT_MAX), st.integers(0, DECIMALS_MAX))
def test_every_amount_survives_the_round_trip(units: int, decimals: int) -> None:
    text = format_amount(units, decimals)
    assert parse_amount(text, decimals) == units
    assert Decimal(text) == Decimal(units).scaleb(-decimals, EXACT)


@given(st.from_regex(r"-?[0-9]{1,19}(\.[0-9]{1,18})?", fullmatch=True), st.integers(0, DECIMALS_MAX))
def test_agrees_with_decimal_arithmetic_or_refuses(text: str, decimals: int) -> None:
    exact = Decimal(text).scaleb(decimals, EXACT)
    fits = len(text.partition(".")[2]) <= decimals and abs(exact) <= AMOUNT_MAX
    if fits and text.isascii():
        assert parse_amount(text, decimals) == exact
    else:
        with pytest.raises(InvalidAmountOrName):
            parse_amount(text, decimals)


@given(st.text(max_size=40), st.integers(0, DECIMALS_MAX))
def test_any_text_is_an_exact_amount_or_refused(text: str, decimals: int) -> None:
    try:
        units = parse_amount(text, decimals)
    except InvalidAmountOrName:
        return
    assert Decimal(text).scaleb(decimals, EXACT) == units
