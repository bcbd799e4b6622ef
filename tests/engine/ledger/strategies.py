"""Commands for the machine: from small pools, so that repeats, conflicts and refusals are frequent.

What is drawn is a recipe, which becomes a command only when it is sent: until then it is not known what was sent before
it and what the time is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from hypothesis import strategies as st

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import CommandFlag

from .model_records import Command
from .tables import MAX, MIN, account, id_of, open_account, set_limit, transfer, word

CURRENCIES: Final = {"EUR": 2, "JPY": 0}
CURRENCIES_LATER: Final = {"LATE1": 18, "LATE2": 3}
NAMES: Final = ("world", "{t}ann", "{t}bob", "{t}world", "{u}eve", "x" * 48)
LIMITS: Final = (MAX, 0, 100, MAX, MAX - 1, 0)  # with which they are opened
ENTRY_COMMANDS_MAX: Final = 20
Drawn = TypeVar("Drawn")

IDS_WITH_EQUAL_WORDS: Final = tuple(head + tail for head in (b"1" * 8, bytes(8)) for tail in (b"2" * 8, b"\xff" * 8))


@dataclass(frozen=True)
class Recipe:
    """How to make a command: a new one, or one sent before; some fields of it changed; perhaps imported."""

    base: Command | int  # a command, or how many commands ago it was sent
    changes: dict[str, bytes | int] = field(default_factory=dict)
    imported: tuple[str, int] | None = None  # nanoseconds after "last" event or "entry"

    def make(self, sent: Sequence[Command], last_timestamp_ns: int, entry_timestamp_ns: int) -> Command:
        command = self.base
        if isinstance(command, int):
            command = sent[-1 - command % len(sent)] if sent else open_account("world", MAX, id=id_of(1))
        command = replace(command, **self.changes)
        if self.imported is None:
            return command
        origin, offset_ns = self.imported
        timestamp_ns = (last_timestamp_ns if origin == "last" else entry_timestamp_ns) + offset_ns
        return replace(command, flags=int(CommandFlag.IMPORTED), client_timestamp_ns=timestamp_ns)


@st.composite
def weighted(draw: st.DrawFn, *choices: tuple[int, st.SearchStrategy[Drawn]]) -> Drawn:
    """Draw from one of several strategies, each taken as often as its weight says."""
    lot = draw(st.integers(0, sum(weight for weight, _ in choices) - 1))
    for weight, strategy in choices:
        if lot < weight:
            return draw(strategy)
        lot -= weight
    raise AssertionError("a lot is below the sum of the weights")


ZEROS: Final = st.just(bytes(16))
ZERO: Final = st.just(0)
words = st.one_of(
    st.sampled_from([0, 1, -1, 2, 255, 256, 2**31, 2**32, MAX, MAX - 1, MIN, MIN + 1]), st.integers(MIN, MAX)
)
any_bytes = st.one_of(ZEROS, st.just(b"\xff" * 16), st.binary(min_size=16, max_size=16))
codes = st.integers(-(2**31), 2**31 - 1)
ids = weighted(
    (1, st.sampled_from(IDS_WITH_EQUAL_WORDS)),
    (2, st.builds(id_of, st.integers(0, 9))),
    (6, st.builds(id_of, st.integers(10, 2**16))),
)
# Mostly funded and of one currency, so that transfers mostly go through.
wallets = weighted(
    (9, st.sampled_from(NAMES)),
    (1, st.sampled_from([f"{name}/{code}" for name in NAMES[:4] for code in ("JPY", *CURRENCIES_LATER, "NEVER")])),
)
accounts = weighted((19, wallets), (1, st.sampled_from([account("nobody"), bytes(16), b"\xff" * 16])))
amounts = weighted(
    (8, st.integers(1, 150)),
    (3, st.sampled_from([1, 2**32, 2**62, MAX // 2, MAX - 1, MAX])),
    (1, st.sampled_from([0, -1, MIN])),
)
limits = st.sampled_from([0, 0, 0, 5, 100, 100, 2**62, MAX - 1, MAX, MAX, -1])
imports = st.tuples(st.sampled_from(["last", "last", "last", "entry"]), st.integers(-2, 12))

new_commands = weighted(
    (2, st.builds(open_account, wallets, limits, id=ids)),
    (6, st.builds(transfer, accounts, accounts, amounts, id=ids)),
    (2, st.builds(set_limit, accounts, limits, id=ids, code=st.integers(0, 1))),
)
raw_commands = st.builds(
    Command,
    id=weighted((4, ids), (1, any_bytes)),
    debit=weighted((4, wallets.map(account)), (1, any_bytes)),
    credit=weighted((4, wallets.map(account)), (1, any_bytes)),
    reference=weighted((6, ZEROS), (1, any_bytes)),
    user_data=any_bytes,
    amount=words,
    client_timestamp_ns=weighted((6, ZERO), (1, words)),
    currency=weighted((6, ZERO), (1, st.just(word(b"EUR"))), (1, words)),
    timeout_ms=weighted((6, ZERO), (1, words)),
    code=codes,
    flags=weighted((6, ZERO), (1, st.integers(0, 8)), (1, st.integers(-(2**15), 2**15 - 1))),
    kind=weighted((12, st.sampled_from([1, 2, 3])), (1, st.integers(0, 40)), (1, st.integers(-(2**15), 2**15 - 1))),
    reserved=weighted((6, ZERO), (1, words)),
)
CHANGES: Final[dict[str, st.SearchStrategy[bytes] | st.SearchStrategy[int]]] = {
    "id": weighted((4, ids), (1, any_bytes)),
    "debit": weighted((4, wallets.map(account)), (1, any_bytes)),
    "credit": weighted((4, wallets.map(account)), (1, any_bytes)),
    "reference": any_bytes,
    "user_data": any_bytes,
    "amount": weighted((1, amounts), (1, words)),
    "client_timestamp_ns": words,
    "currency": weighted((1, st.just(word(b"JPY"))), (1, words)),
    "timeout_ms": words,
    "code": codes,
    "flags": st.integers(0, 8),
    "kind": st.integers(0, 12),
    "reserved": words,
}
changes = st.one_of(*(st.fixed_dictionaries({name: values}) for name, values in CHANGES.items()))
ago = weighted((1, st.integers(0, 5)), (1, st.integers(0, 10_000)))
recipes = weighted(
    (10, st.builds(Recipe, new_commands)),
    (2, st.builds(Recipe, new_commands, imported=imports)),
    (2, st.builds(Recipe, new_commands, changes)),
    (2, st.builds(Recipe, ago)),
    (2, st.builds(Recipe, ago, changes)),
    (1, st.builds(Recipe, ago, imported=imports)),
    (1, st.builds(Recipe, raw_commands)),
)
# A command may come with a code that was set before the ledger saw it.
presets = st.sampled_from([0] * 31 + [Code.DEADLINE_PASSED])


@st.composite
def entries(draw: st.DrawFn) -> list[tuple[Recipe, int]]:
    """The commands of one entry; a function, so that its description stays short in a failure."""
    count = draw(st.integers(0, ENTRY_COMMANDS_MAX))
    return draw(st.lists(st.tuples(recipes, presets), min_size=count, max_size=count))


@st.composite
def raw_batches(draw: st.DrawFn) -> list[Command]:
    """One entry of arbitrary records."""
    count = draw(st.integers(0, ENTRY_COMMANDS_MAX))
    return draw(st.lists(raw_commands, min_size=count, max_size=count))


gaps_ns = st.integers(1, 30)
shards = st.sampled_from([0, 0, 1, 2047, 2048, 4095])
