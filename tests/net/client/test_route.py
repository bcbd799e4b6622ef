"""Claim: a search tries every known address once a round, a named leader first, and what is known is bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bezant.net.client.route import ADDRESS_SIZE_MAX, GIVEN_COUNT_MAX, LEARNED_COUNT_MAX, Route, parse_addresses
from bezant.protocol.errors import UsageError

ADDRESSES = [f"node-{number}:{7000 + number}" for number in range(6)]
NO_ADDRESSES = ["", "node", ":1", "node:0", "node:99999", "::1:2", "a" * ADDRESS_SIZE_MAX + ":1"]


def tried(route: Route) -> list[str]:
    """What is left of a round, tried without success."""
    addresses = []
    while (address := route.next()) is not None:
        addresses.append(address)
        assert len(addresses) <= GIVEN_COUNT_MAX + LEARNED_COUNT_MAX
    return addresses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a:1", ["a:1"]),
        ("a:1,b:2", ["a:1", "b:2"]),
        (" b:2 , a:1,b:2", ["b:2", "a:1"]),
        ("[::1]:5,h:6", ["[::1]:5", "h:6"]),
    ],
)
def test_addresses_are_split(text: str, expected: list[str]) -> None:
    assert parse_addresses(text) == expected


@pytest.mark.parametrize("text", ["", ",", "a:1,", "a:1,,b:2", "a:1;b:2", "a:1 b:2"])
def test_what_is_no_list_of_addresses_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="an address is written like"):
        parse_addresses(text)


def test_no_more_addresses_can_be_given_than_that() -> None:
    many = [f"a:{port}" for port in range(1, GIVEN_COUNT_MAX + 2)]
    assert parse_addresses(",".join(many[1:])) == many[1:]
    with pytest.raises(UsageError, match="up to 32 addresses"):
        parse_addresses(",".join(many))


def test_the_first_round_goes_through_what_was_given_and_the_next_begins_behind_the_last() -> None:
    route = Route(["a:1", "b:1", "c:1"])
    assert tried(route) == ["a:1", "b:1", "c:1"]
    route.start_round()
    assert (route.next(), route.next()) == ("a:1", "b:1")
    route.start_search()
    assert tried(route) == ["c:1", "a:1", "b:1"]


def test_a_leader_that_is_lost_is_tried_last() -> None:
    route = Route(["a:1", "b:1", "c:1"])
    route.next()
    route.on_welcome("a:1", "a:1", [])
    route.start_search()
    assert tried(route) == ["b:1", "c:1", "a:1"]


def test_who_is_named_comes_first_but_once_a_round() -> None:
    route = Route(["a:1", "b:1"])
    assert route.next() == "a:1"
    route.on_welcome("a:1", "x:1", [])
    assert route.next() == "x:1"
    route.on_welcome("x:1", "a:1", [])
    assert tried(route) == ["b:1"]


def test_a_dead_leader_that_is_named_again_comes_last() -> None:
    route = Route(["a:1", "b:1", "c:1"])
    assert route.next() == "a:1"
    route.on_unreached("a:1")
    assert route.next() == "b:1"
    route.on_welcome("b:1", "a:1", [])
    assert tried(route) == ["c:1"]
    route.on_welcome("c:1", "a:1", [])
    route.start_round()
    assert tried(route) == ["b:1", "c:1", "a:1"]
    route.start_search()
    route.on_named("c:1")
    assert tried(route)[0] == "c:1"


def test_who_refuses_us_is_passed_over_until_a_node_names_it() -> None:
    route = Route(["a:1", "b:1"])
    tried(route)
    route.on_refused("a:1")
    route.start_round()
    assert tried(route) == ["b:1"]
    assert not route.is_hopeless
    route.on_welcome("b:1", "a:1", [])
    route.start_round()
    assert tried(route)[0] == "a:1"
    route.on_refused("a:1")
    route.on_refused("b:1")
    assert route.is_hopeless
    route.start_round()
    assert tried(route) == []


def test_others_are_asked_in_turn() -> None:
    route = Route(["a:1", "b:1", "c:1"])
    route.next()
    assert [route.others()[0] for _ in range(4)] == ["b:1", "c:1", "b:1", "c:1"]
    assert Route(["a:1"]).others() == []


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_cannot_be_dialled_is_not_learned(text: str) -> None:
    route = Route(["a:1"])
    route.on_welcome("a:1", text, [text, "b:1"])
    assert route.known == ["a:1", "b:1"]


@given(st.lists(st.lists(st.integers(1, 200), max_size=100), max_size=5))
def test_the_newest_of_what_is_announced_is_kept_within_a_bound(announced: list[list[int]]) -> None:
    route = Route(["a:1"])
    for ports in announced:
        members = [f"m:{port}" for port in ports]
        route.on_welcome("a:1", "a:1", members)
        assert len(route.known) <= 1 + LEARNED_COUNT_MAX
        assert set(route.known) >= {"a:1", *members[:LEARNED_COUNT_MAX]} or len(members) > LEARNED_COUNT_MAX
    assert route.has_several == (len(route.known) > 1)
    tried(route)
    route.start_round()
    assert sorted(tried(route)) == sorted(route.known)


class Search(RuleBasedStateMachine):
    """Whatever nodes say in whatever order, compared with what a round is said to be."""

    @initialize(given=st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=4, unique=True))
    def begin(self, given: list[str]) -> None:
        self.given = given
        self.route = Route(given)
        self.untried = set(given)
        self.tried: set[str] = set()
        self.unreached: set[str] = set()
        self.refused: set[str] = set()
        self.named = ""

    @rule()
    def try_next(self) -> None:
        address = self.route.next()
        if address is None:
            assert self.untried == set()
            return
        assert address in self.untried
        if self.named in self.untried - self.unreached:
            assert address == self.named
        self.untried.remove(address)
        self.tried.add(address)

    @rule(is_new_search=st.booleans())
    def start(self, is_new_search: bool) -> None:
        if is_new_search:
            self.route.start_search()
            self.unreached.clear()
            self.named = ""
        else:
            self.route.start_round()
        self.untried = set(self.route.known) - self.refused
        self.tried.clear()

    @precondition(lambda self: self.tried)
    @rule(data=st.data(), leader=st.sampled_from(["", *ADDRESSES]), members=st.lists(st.sampled_from(ADDRESSES)))
    def is_welcomed(self, data: st.DataObject, leader: str, members: list[str]) -> None:
        address = data.draw(st.sampled_from(sorted(self.tried)))
        known = set(self.route.known)
        self.route.on_welcome(address, leader, members)
        self.untried |= set(self.route.known) - known
        self.unreached.discard(address)
        self.refused -= {address, leader}
        self.named = leader

    @precondition(lambda self: self.tried)
    @rule(data=st.data(), refuses=st.booleans())
    def is_not_welcomed(self, data: st.DataObject, refuses: bool) -> None:
        address = data.draw(st.sampled_from(sorted(self.tried)))
        if refuses:
            self.route.on_refused(address)
            self.refused.add(address)
        else:
            self.route.on_unreached(address)
            self.unreached.add(address)

    @invariant()
    def what_is_known_adds_up(self) -> None:
        if hasattr(self, "route"):
            assert set(self.route.known) >= set(self.given)
            assert len(self.route.known) == len(set(self.route.known))
            assert self.route.is_hopeless == (set(self.route.known) <= self.refused)
            assert self.route.has_several == (len(self.route.known) > 1)


TestSearch = Search.TestCase
