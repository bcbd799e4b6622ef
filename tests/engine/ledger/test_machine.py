"""The compiled kernel against the model: whatever commands come, in whatever entries, both say and keep the same."""

from typing import Final

import numba
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.records import RULES_VERSION

from . import strategies as drawn
from .pair import Pair
from .tables import MAX, id_of, open_account, open_transit, transfer

# Without compilation the kernel is slower by a factor of about a hundred, and the same tests run with fewer examples.
IS_COMPILED: Final = not numba.config.DISABLE_JIT
SETTINGS: Final = settings(
    deadline=None,
    print_blob=True,
    max_examples=80 if IS_COMPILED else 20,
    stateful_step_count=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def send(pair: Pair, groups: list[drawn.Group], gap: drawn.Gap) -> None:
    """Execute one entry of recipes; later ones may repeat the earlier ones of the same entry."""
    last_timestamp_ns = pair.model.last_timestamp_ns
    timestamp_ns = gap.timestamp_ns(last_timestamp_ns, pair.model.next_deadline_ns)
    commands, presets = list(pair.sent), []
    for group in groups:
        start = len(commands)
        for recipe, preset in group.recipes:
            commands.append(recipe.make(commands, last_timestamp_ns, timestamp_ns))
            presets.append(preset)
        commands[start:] = group.link(commands[start:])
    pair.execute(commands[len(pair.sent) :], timestamp_ns, presets)


def fund(pair: Pair) -> None:
    """Open accounts with every sort of limit, and pay some of them."""
    opened = [open_account(name, limit) for name, limit in zip(drawn.NAMES, drawn.LIMITS, strict=True)]
    paid = [transfer("world", name, 200) for name in drawn.NAMES[1:4]]
    transits = [open_transit(name) for name in drawn.TRANSITS]
    pair.execute([*opened, *transits, *paid], 1_000)


class LedgerMachine(RuleBasedStateMachine):
    """Entries and registrations in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    @initialize(
        shard=drawn.shards,
        accounts_max=st.sampled_from([64, 64, 64, 64, 64, 8, 3]),
        fetches=st.booleans(),
        holds_max=st.sampled_from([64, 64, 64, 5, 1]),
        is_funded=st.sampled_from([True, True, True, False]),
        rules_version=st.sampled_from([1, *[RULES_VERSION] * 3]),
    )
    def start(
        self, *, shard: int, accounts_max: int, fetches: bool, holds_max: int, is_funded: bool, rules_version: int
    ) -> None:
        self.pair = Pair(
            shard=shard,
            accounts_max=accounts_max,
            holds_max=holds_max,
            fetches=fetches,
            rules_version=rules_version,
        )
        for code, decimals in drawn.CURRENCIES.items():
            self.pair.register_currency(code, decimals)
        if is_funded:
            fund(self.pair)

    @rule(groups=drawn.entries(), gap=drawn.gaps)
    def execute(self, groups: list[drawn.Group], gap: drawn.Gap) -> None:
        send(self.pair, groups, gap)

    @precondition(lambda self: self.pair.sent)
    @rule(start=st.integers(0, 10_000), count=st.integers(1, drawn.ENTRY_COMMANDS_MAX), gap=drawn.gaps)
    def execute_again(self, start: int, count: int, gap: drawn.Gap) -> None:
        """A client that lost its answers sends a stretch of commands once more, some of them long past.

        The stretch may begin or end within a chain.
        """
        model = self.pair.model
        start %= len(self.pair.sent)
        timestamp_ns = gap.timestamp_ns(model.last_timestamp_ns, model.next_deadline_ns)
        self.pair.execute(self.pair.sent[start : start + count], timestamp_ns)

    @precondition(lambda self: self.pair.model.state.unsettled)
    @rule(places=st.lists(st.integers(0, 100), min_size=1, max_size=4))
    def settle(self, places: list[int]) -> None:
        """The other shards were told of some decisions; of one that there never was, too."""
        unsettled = self.pair.model.state.unsettled
        self.pair.settle([unsettled[place % len(unsettled)][0] for place in places] + [10**9])

    @rule(code=st.sampled_from(list(drawn.CURRENCIES_LATER)))
    def register(self, code: str) -> None:
        self.pair.register_currency(code, drawn.CURRENCIES_LATER[code])

    @invariant()
    def accounts_are_the_same(self) -> None:
        self.pair.compare_accounts()

    def teardown(self) -> None:
        self.pair.replay()


TestLedgerMachine = LedgerMachine.TestCase
TestLedgerMachine.settings = SETTINGS


@settings(SETTINGS, max_examples=80 if IS_COMPILED else 20)
@given(batches=st.lists(st.tuples(drawn.entries(), drawn.gaps), max_size=4), shard=drawn.shards, fetches=st.booleans())
def test_batches(batches: list[tuple[list[drawn.Group], drawn.Gap]], shard: int, fetches: bool) -> None:
    pair = Pair(shard=shard, fetches=fetches, rules_version=RULES_VERSION)
    for code, decimals in drawn.CURRENCIES.items():
        pair.register_currency(code, decimals)
    fund(pair)
    for groups, gap in batches:
        send(pair, groups, gap)
        pair.compare_accounts()
    pair.replay()


@settings(SETTINGS, max_examples=80 if IS_COMPILED else 20)
@given(commands=drawn.raw_batches())
def test_raw_commands(commands: list[drawn.Command]) -> None:
    pair = Pair(rules_version=RULES_VERSION)
    pair.register_currency("EUR", 2)
    fund(pair)
    pair.execute(commands, 2_000)
    pair.execute(commands, 3_000)
    pair.compare_accounts()
    pair.replay()


def test_a_first_use_and_its_repeats_in_one_entry_and_in_later_ones() -> None:
    """The first within an entry comes from the entry itself, the first of an earlier one through `fetch_events`."""
    pair = Pair()
    pair.register_currency("EUR", 2)
    opens = [open_account("world", MAX), open_account("ann")]
    paid = transfer("world", "ann", 5, id=id_of(1))
    refused = transfer("ann", "world", 6, id=id_of(2))
    first = pair.execute([*opens, paid, paid, refused, refused], 1_000)
    assert first == [Code.COMMITTED] * 4 + [Code.INSUFFICIENT_FUNDS] * 2
    assert pair.fetched == []
    other = transfer("world", "ann", 7, id=id_of(3))
    later = pair.execute([other, paid, refused, other, paid, transfer("world", "ann", 6, id=id_of(1))], 2_000)
    assert later == [0, 0, Code.INSUFFICIENT_FUNDS, 0, 0, Code.ID_CONFLICT]
    assert set(pair.fetched) == {3, 4}
    pair.compare_accounts()
    pair.replay()
