"""The compiled kernel against the model: whatever commands come, in whatever entries, both say and keep the same."""

from typing import Final

import numba
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bezant.protocol.codes import ResultCode as Code

from . import strategies as drawn
from .pair import Pair
from .tables import MAX, id_of, open_account, transfer

# Without compilation the kernel is slower by a factor of about a hundred, and the same tests run with fewer examples.
IS_COMPILED: Final = not numba.config.DISABLE_JIT
SETTINGS: Final = settings(
    deadline=None,
    print_blob=True,
    max_examples=80 if IS_COMPILED else 20,
    stateful_step_count=12,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)

Draws = list[tuple[drawn.Recipe, int]]


def send(pair: Pair, draws: Draws, gap_ns: int) -> None:
    """Execute one entry of recipes; later ones may repeat the earlier ones of the same entry."""
    last_timestamp_ns = pair.model.last_timestamp_ns
    timestamp_ns = last_timestamp_ns + gap_ns
    commands = list(pair.sent)
    for recipe, _ in draws:
        commands.append(recipe.make(commands, last_timestamp_ns, timestamp_ns))
    pair.execute(commands[len(pair.sent) :], timestamp_ns, [preset for _, preset in draws])


def fund(pair: Pair) -> None:
    """Open accounts with every sort of limit, and pay some of them."""
    opened = [open_account(name, limit) for name, limit in zip(drawn.NAMES, drawn.LIMITS, strict=True)]
    paid = [transfer("world", name, 200) for name in drawn.NAMES[1:4]]
    pair.execute([*opened, *paid], 1_000)


class LedgerMachine(RuleBasedStateMachine):
    """Entries and registrations in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair()

    @initialize(
        shard=drawn.shards,
        accounts_max=st.sampled_from([64, 64, 64, 64, 64, 8, 3]),
        fetches=st.booleans(),
        is_funded=st.sampled_from([True, True, True, False]),
    )
    def start(self, shard: int, accounts_max: int, fetches: bool, is_funded: bool) -> None:
        self.pair = Pair(shard=shard, accounts_max=accounts_max, fetches=fetches)
        for code, decimals in drawn.CURRENCIES.items():
            self.pair.register_currency(code, decimals)
        if is_funded:
            fund(self.pair)

    @rule(draws=drawn.entries(), gap_ns=drawn.gaps_ns)
    def execute(self, draws: Draws, gap_ns: int) -> None:
        send(self.pair, draws, gap_ns)

    @precondition(lambda self: self.pair.sent)
    @rule(start=st.integers(0, 10_000), count=st.integers(1, drawn.ENTRY_COMMANDS_MAX), gap_ns=drawn.gaps_ns)
    def execute_again(self, start: int, count: int, gap_ns: int) -> None:
        """A client that lost its answers sends a stretch of commands once more, some of them long past."""
        start %= len(self.pair.sent)
        self.pair.execute(self.pair.sent[start : start + count], self.pair.model.last_timestamp_ns + gap_ns)

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
@given(
    batches=st.lists(st.tuples(drawn.entries(), drawn.gaps_ns), max_size=4), shard=drawn.shards, fetches=st.booleans()
)
def test_batches(batches: list[tuple[Draws, int]], shard: int, fetches: bool) -> None:
    pair = Pair(shard=shard, fetches=fetches)
    for code, decimals in drawn.CURRENCIES.items():
        pair.register_currency(code, decimals)
    fund(pair)
    for draws, gap_ns in batches:
        send(pair, draws, gap_ns)
        pair.compare_accounts()
    pair.replay()


@settings(SETTINGS, max_examples=80 if IS_COMPILED else 20)
@given(commands=drawn.raw_batches())
def test_raw_commands(commands: list[drawn.Command]) -> None:
    pair = Pair()
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
