"""Claim: a name and a currency give one account id, the same for every client, and tags keep accounts together."""

import time
import uuid
from unittest.mock import patch

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bezant.protocol import names
from bezant.protocol.currencies import ISO_4217
from bezant.protocol.errors import InvalidAmountOrName
from bezant.protocol.money import DECIMALS_MAX
from bezant.protocol.names import IdMaker, account_id, check_name, currency_code, currency_word, slot_key, slot_of

NAMES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=48)
CURRENCIES = st.text(st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"), min_size=1, max_size=8)

# Frozen: an id that changed would orphan every account of that name.
ACCOUNT_IDS = [
    ("world", "EUR", "d783757e9b88686ea574e3a68a4470f2"),
    ("world", "USD", "d785b0da7f9ce3a343f8ed866515fb89"),
    ("wallet:{ann}:savings", "EUR", "e8f8922115d39c32990e4a7fd08d1ab9"),
    ("wallet:{ann}:daily", "EUR", "e8f78eba960c5976dec65b1be0ae15fd"),
    ("ann", "EUR", "e8fe5cef275490813235404d94696d80"),
    ("a", "POINTS", "1779de494b24526a55ce416f71313a2c"),
    ("~" * 48, "ABCDEFG8", "568f8ab6d944ab7a9f64a6a321851a3b"),
]
SLOT_KEYS = [
    ("ann", "ann"),
    ("{ann}", "ann"),
    ("wallet:{ann}:savings", "ann"),
    ("{ann}{bob}", "ann"),
    ("{}ann", "{}ann"),
    ("{}{ann}", "{}{ann}"),
    ("{ann", "{ann"),
    ("ann}", "ann}"),
    ("}{ann}", "ann"),
    ("{{ann}}", "{ann"),
    ("{ann}}", "ann"),
    ("{", "{"),
    ("{}", "{}"),
]
BAD_NAMES = ["", " ", "a b", "a\tb", "a\n", "\0", "a\x7f", "\u00e9", "\uff41", "\udc80", "a" * 49]
BAD_CURRENCIES = ["", "eur", "EUR ", " EUR", "EU-R", "EUR\0", "\u00c9UR", "\uff25", "ABCDEFGHI"]


def derive(name: str, currency: str) -> bytes:
    """The derivation as README.md puts it, written down again without our helpers."""
    key = name
    opening = name.find("{")
    closing = name.find("}", opening + 1)
    if opening != -1 and closing > opening + 1:
        key = name[opening + 1 : closing]
    slot = int.from_bytes(blake3.blake3(key.encode()).digest()[:2], "big") >> 4
    digest = blake3.blake3(name.encode() + bytes(1) + currency.encode() + bytes(8 - len(currency))).digest()[:16]
    number = int.from_bytes(digest, "big") & (1 << 116) - 1 | slot << 116
    return number.to_bytes(16, "big")


@pytest.mark.parametrize(("name", "currency", "identifier"), ACCOUNT_IDS)
def test_account_ids_are_frozen(name: str, currency: str, identifier: str) -> None:
    assert account_id(name, currency).hex() == identifier
    assert derive(name, currency).hex() == identifier


@given(NAMES, CURRENCIES)
def test_account_ids_follow_the_written_derivation(name: str, currency: str) -> None:
    identifier = account_id(name, currency)
    assert identifier == derive(name, currency)
    assert slot_of(identifier) == int.from_bytes(identifier[:2], "big") >> 4


@given(NAMES, CURRENCIES, CURRENCIES)
def test_the_slot_depends_on_the_name_alone(name: str, one: str, other: str) -> None:
    assert slot_of(account_id(name, one)) == slot_of(account_id(name, other))


@given(
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="{}"), min_size=1, max_size=8),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="{}"), max_size=16),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=16),
)
def test_accounts_of_one_tag_share_a_slot(tag: str, before: str, after: str) -> None:
    together = account_id(f"{before}{{{tag}}}{after}", "EUR")
    assert slot_of(together) == slot_of(account_id(f"{{{tag}}}", "EUR")) == slot_of(account_id(tag, "EUR"))


@pytest.mark.parametrize(("name", "key"), SLOT_KEYS)
def test_the_tag_is_the_text_between_the_first_braces_if_there_is_any(name: str, key: str) -> None:
    assert slot_key(name.encode()) == key.encode()


def test_the_zero_byte_keeps_name_and_currency_apart() -> None:
    assert account_id("aE", "UR") != account_id("a", "EUR")


@pytest.mark.parametrize("name", BAD_NAMES)
def test_refuses_names_that_are_not_printable_ascii(name: str) -> None:
    with pytest.raises(InvalidAmountOrName):
        check_name(name)
    with pytest.raises(InvalidAmountOrName):
        account_id(name, "EUR")


@pytest.mark.parametrize("currency", BAD_CURRENCIES)
def test_refuses_currencies_that_are_not_capital_letters_and_digits(currency: str) -> None:
    with pytest.raises(InvalidAmountOrName):
        currency_word(currency)
    with pytest.raises(InvalidAmountOrName):
        account_id("ann", currency)


@given(CURRENCIES)
def test_a_currency_word_is_its_bytes_and_never_negative(currency: str) -> None:
    word = currency_word(currency)
    assert 0 < word < 1 << 63
    assert word.to_bytes(8, "little") == currency.encode().ljust(8, b"\0")
    assert currency_code(word) == currency


def test_any_word_can_be_shown_as_a_currency() -> None:
    assert currency_code(0) == ""
    assert currency_code(-1) == "\ufffd" * 8


def test_the_registry_starts_with_currencies_that_records_can_hold() -> None:
    for code, decimals in ISO_4217.items():
        assert len(code) == 3
        assert currency_code(currency_word(code)) == code
        assert 0 <= decimals <= DECIMALS_MAX
    assert (ISO_4217["EUR"], ISO_4217["JPY"], ISO_4217["KWD"], ISO_4217["CLF"]) == (2, 0, 3, 4)


def test_ids_match_the_example_of_rfc_9562() -> None:
    """Appendix A.6: the time 0x017F22E279B0 with rand_a 0xCC3 and rand_b 0x18C4DC0C0C07398F."""
    random = bytes.fromhex("fcc3d8c4dc0c0c07398f")  # version and variant bits set, to see that they are replaced
    pool = random * (names._RANDOM_POOL_SIZE // len(random))
    with patch.object(names.os, "urandom", return_value=pool), patch.object(names.time, "time_ns") as clock:
        clock.return_value = 0x017F22E279B0 * 1_000_000 + 999_999
        assert str(uuid.UUID(bytes=IdMaker().make())) == "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"


def test_ids_carry_the_time_and_are_of_version_7() -> None:
    maker = IdMaker()
    before = time.time_ns() // 1_000_000
    made = [uuid.UUID(bytes=maker.make()) for _ in range(2000)]
    after = time.time_ns() // 1_000_000
    for identifier in made:
        assert identifier.version == 7
        assert identifier.variant == uuid.RFC_4122
        assert before <= identifier.int >> 80 <= after


def test_ids_are_unique_across_pools_and_makers_even_within_one_millisecond() -> None:
    first, second = IdMaker(), IdMaker()
    count = 3 * names._RANDOM_POOL_SIZE
    with patch.object(names.time, "time_ns", return_value=1_700_000_000_000_000_000):
        made = {maker.make() for maker in (first, second) for _ in range(count)}
    assert len(made) == 2 * count


def test_all_74_random_bits_vary() -> None:
    maker = IdMaker()
    ones = zeros = 0
    for _ in range(2000):
        number = int.from_bytes(maker.make(), "big")
        ones |= number
        zeros |= ~number
    varied = ones & zeros & (1 << 80) - 1
    assert varied == 0x0FFF_3FFF_FFFF_FFFF_FFFF
    assert varied.bit_count() == 74
