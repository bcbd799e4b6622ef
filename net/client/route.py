"""Which node of a group to try next, without sockets or clocks.

A *search* begins when the channel has no leader any more and ends with an answer that only a leader gives. It goes in
*rounds*: within one, every known address is tried once, the leader that somebody named first; between rounds the
channel waits. So nodes that name each other, or one that is dead, cost one attempt a round and no more.

- The given addresses are known for ever, and up to LEARNED_COUNT_MAX that nodes announced, the newest.
- An address that was not reached comes last in the rounds that follow, even if it is named: followers name a dead
  leader until they miss it.
- An address that refused us is passed over, until a node that keeps our log names it as its leader.
"""

from typing import Final

from bezant.net.client.link import parse_address
from bezant.protocol.errors import UsageError

GIVEN_COUNT_MAX: Final = 32
"""Addresses that a caller may give."""
LEARNED_COUNT_MAX: Final = 32
"""Addresses that are known besides, because nodes announced them."""
ADDRESS_SIZE_MAX: Final = 262
"""Characters of an address that a node announces: a host name of 253, two brackets, a colon and a port would fit."""


def parse_addresses(text: str) -> list[str]:
    """Split "host:port,host:port", without repeats. Raises `UsageError`."""
    addresses = list(dict.fromkeys(address.strip() for address in text.split(",")))
    if len(addresses) > GIVEN_COUNT_MAX:
        raise UsageError(f"up to {GIVEN_COUNT_MAX} addresses can be given, not {len(addresses)}")
    for address in addresses:
        parse_address(address)
    return addresses


class Route:
    """See the module."""

    def __init__(self, addresses: list[str]) -> None:
        self._given = tuple(addresses)
        self._learned: dict[str, None] = {}  # the newest last
        self._leader = ""  # as last named; empty if nobody is
        self._current = self._given[-1]  # the address tried last: a round begins behind it
        self._untried = list(self._given)  # in this round
        self._unreached: set[str] = set()  # in this search
        self._refused: set[str] = set()
        self._is_answered = False  # by anybody in this round
        self._asked_count = -1
        self.has_several = len(self._given) > 1
        """Whether more than one address is known. Read for every request, so no property."""

    @property
    def known(self) -> list[str]:
        """All known addresses, without repeats."""
        return [*self._given, *self._learned]

    @property
    def is_answered(self) -> bool:
        """Whether any node of the group has answered in this round."""
        return self._is_answered

    @property
    def is_hopeless(self) -> bool:
        """Whether every known address refused us."""
        return self._refused.issuperset(self.known)

    def next(self) -> str | None:
        """Return the address to try now, or None if the round is over."""
        if not self._untried:
            return None
        is_worth_it = self._leader in self._untried and self._leader not in self._unreached
        address = self._leader if is_worth_it else self._untried[0]
        self._untried.remove(address)
        self._current = address
        return address

    def others(self) -> list[str]:
        """All known addresses but the current one, from a different one on at each call: whom to ask about it."""
        others = self._behind_current()
        self._asked_count += 1
        first = self._asked_count % len(others) if others else 0
        return others[first:] + others[:first]

    def start_search(self) -> None:
        """Begin anew: the leader is gone or is none."""
        self._leader = ""
        self._unreached.clear()
        self.start_round()

    def start_round(self) -> None:
        """Make every address untried, the current one last, and what was not reached behind it."""
        order = [*self._behind_current(), self._current]
        known = set(self.known)
        self._untried = [address for address in order if address in known and address not in self._refused]
        self._untried.sort(key=lambda address: address in self._unreached)
        self._is_answered = False

    # What came of an attempt.

    def on_welcome(self, address: str, leader: str, members: list[str]) -> None:
        """The node at `address` greeted us and said this; unless it names itself, it does not lead."""
        self._is_answered = True
        self._unreached.discard(address)
        self._refused.discard(address)
        for member in members[: LEARNED_COUNT_MAX + GIVEN_COUNT_MAX]:
            self._learn(member)
        self.on_named(leader)

    def on_named(self, leader: str) -> None:
        """Somebody named `leader`, empty if they know none."""
        self._leader = leader if self._learn(leader) else ""
        self._refused.discard(self._leader)

    def on_unreached(self, address: str) -> None:
        """Nobody answered at `address`."""
        self._unreached.add(address)

    def on_refused(self, address: str) -> None:
        """Who answered at `address` is no node for us."""
        self._refused.add(address)

    def _behind_current(self) -> list[str]:
        known = self.known
        behind = known.index(self._current) + 1 if self._current in known else 0
        return [address for address in known[behind:] + known[:behind] if address != self._current]

    def _learn(self, address: str) -> bool:
        """Know an address that a node announced; returns whether it is one. The oldest make room."""
        if address in self._given:
            return True
        if address in self._learned:
            del self._learned[address]
        elif not _is_address(address):
            return False
        else:
            self._untried.append(address)
        self._learned[address] = None
        self.has_several = True
        if len(self._learned) > LEARNED_COUNT_MAX:
            self._forget(next(iter(self._learned)))
        return True

    def _forget(self, address: str) -> None:
        del self._learned[address]
        self._unreached.discard(address)
        self._refused.discard(address)
        if address in self._untried:
            self._untried.remove(address)


def _is_address(text: str) -> bool:
    """Whether an announced address can be dialled; a node may announce none, and we need not know why."""
    if len(text) > ADDRESS_SIZE_MAX:
        return False
    try:
        parse_address(text)
    except UsageError:
        return False
    return True
