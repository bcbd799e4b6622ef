"""Claim: which id a text stands for is stated, and the same for everybody."""

import blake3
import pytest

from bezant.net.gateway.asking import deadline_s
from bezant.net.gateway.identity import ID_CONTEXT, id_of_text, text_of_id, text_of_request
from bezant.net.gateway.problems import ProblemRaised
from bezant.net.gateway.settings import DEADLINES_S

UUID = "01589980-2664-11ec-9621-0242ac130002"
BYTES = bytes.fromhex("01589980266411ec96210242ac130002")


@pytest.mark.parametrize("text", [UUID, UUID.upper(), UUID.replace("-", "")])
def test_a_uuid_is_itself(text: str) -> None:
    assert id_of_text(text) == BYTES
    assert text_of_id(BYTES) == UUID


@pytest.mark.parametrize(
    "text",
    [
        "a",
        "rent of May",
        "ß€",
        "\ud800",
        UUID[:-1] + "g",
        UUID + " ",
        "{" + UUID + "}",
        "01589980-2664-11ec-9621-0242ac13-002",
        "01 89980 66411ec96210242ac130002",
        "-" * 36,
        "x" * 255,
    ],
)
def test_any_other_text_is_hashed(text: str) -> None:
    expected = blake3.blake3(text.encode("utf-8", "surrogatepass"), derive_key_context=ID_CONTEXT).digest(length=16)
    assert id_of_text(text) == expected


def test_the_hash_does_not_change() -> None:
    assert id_of_text("rent of May").hex() == "8646bde24fbedb8307161ba02aef276b"


@pytest.mark.parametrize(
    ("given", "key", "text"),
    [
        ("a", None, "a"),
        (None, "a", "a"),
        (None, '"a"', "a"),
        ("a", '"a"', "a"),
        (None, None, None),
        (UUID, UUID.replace("-", ""), UUID),
        (None, '"', '"'),
    ],
)
def test_the_body_and_the_header_name_the_same(given: str | None, key: str | None, text: str | None) -> None:
    assert text_of_request(given, key) == text


@pytest.mark.parametrize(("given", "key"), [("a", "b"), (None, ""), (None, "x" * 256)])
def test_a_key_that_will_not_do_is_refused(given: str | None, key: str) -> None:
    with pytest.raises(ProblemRaised):
        text_of_request(given, key)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [(None, 5.0), ("0.1", 0.1), ("0.19", 0.1), ("1", 1.0), ("9.99", 5.0), ("1e9", 30.0), ("inf", 30.0)],
)
def test_deadlines_are_rounded_down_to_a_few(asked: str | None, expected: float) -> None:
    assert deadline_s(asked, 5.0) == expected
    assert expected in DEADLINES_S
