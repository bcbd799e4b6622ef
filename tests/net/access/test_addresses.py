"""Claim: who has one address counts as one, however many they can choose from, and in whatever form it is written."""

import pytest

from bezant.net.access.addresses import place_of, place_of_peer


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_the_place_of_an_address(address: str, place: str) -> None:
    assert place_of(address) == place
    assert place_of_peer((address, 1, 0, 0)) == place


def test_a_socket_may_have_no_name() -> None:
    assert [place_of_peer(name) for name in (None, "", ())] == [""] * 3
