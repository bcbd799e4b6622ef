"""Commands for the machine: from small pools, so that repeats, conflicts and refusals are frequent.

What is drawn is a recipe, which becomes a command only when it is sent: until then it is not known what was sent before
it and what the time is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from hypothesis import strategies as st

from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.kinds import TIMEOUT_MS_MAX, CommandFlag, CommandKind

from .model_records import NO_ID, Command
from .model_rules import TRIES
from .tables import (
    MAX,
    MIN,
    account,
    cancel,
    capture,
    capture_open,
    close,
    confirm,
    forbid,
    freeze,
    hold,
    id_of,
    open_account,
    open_transit,
    plan,
    release,
    set_limit,
    transfer,
    transfer_available,
    try_credit,
    try_debit,
    try_part,
    unfreeze,
    word,
)

CURRENCIES: Final = {"EUR": 2, "JPY": 0}
CURRENCIES_LATER: Final = {"LATE1": 18, "LATE2": 3}
NAMES: Final = ("world", "{t}ann", "{t}bob", "{t}world", "{u}eve", "x" * 48)
TRANSITS: Final = ("transit:{t}:1", "transit:0:2")
"""Transit accounts, one of them in the slot of most wallets."""
LIMITS: Final = (MAX, 0, 100, MAX, MAX - 1, 0)  # with which they are opened
ENTRY_GROUPS_MAX: Final = 6
ENTRY_COMMANDS_MAX: Final = 20
NEW_IDS_FIRST: Final = 2**32
DEADLINE_NS_MAX: Final = 10**18
"""Later deadlines are not waited for: behind a hundred years a ledger has no time left."""
HOLDS_REMEMBERED_MAX: Final = 200
"""Commands among which a hold is looked for."""
Drawn = TypeVar("Drawn")

IDS_WITH_EQUAL_WORDS: Final = tuple(head + tail for head in (b"1" * 8, bytes(8)) for tail in (b"2" * 8, b"\xff" * 8))


@dataclass(frozen=True)
class Recipe:
    """How to make a command: a new one, or one sent before; some fields of it changed; perhaps imported, or, of a leg,
    with the time of what it follows from."""

    base: Command | int  # a command, or how many commands ago it was sent
    changes: dict[str, bytes | int] = field(default_factory=dict)
    imported: tuple[str, int] | None = None  # nanoseconds after "last" event or "entry"
    of_hold: int | None = None  # it names the hold that was made so many holds ago
    is_sound: bool = False  # its id is a new one, whatever was drawn

    def make(self, sent: Sequence[Command], last_timestamp_ns: int, entry_timestamp_ns: int) -> Command:
        command = self.base
        if self.is_sound and isinstance(command, Command):
            command = replace(command, id=id_of(NEW_IDS_FIRST + len(sent)))
        if isinstance(command, int):
            command = sent[-1 - command % len(sent)] if sent else open_account("world", MAX, id=id_of(1))
        if self.of_hold is not None:
            command = naming_hold(command, sent, self.of_hold)
        command = replace(command, **self.changes)
        if self.imported is None:
            return command
        origin, offset_ns = self.imported
        timestamp_ns = (last_timestamp_ns if origin == "last" else entry_timestamp_ns) + offset_ns
        if command.kind > CommandKind.TRY_DEBIT:
            return replace(command, client_timestamp_ns=timestamp_ns)
        return replace(command, flags=int(CommandFlag.IMPORTED), client_timestamp_ns=timestamp_ns)


def naming_hold(command: Command, sent: Sequence[Command], ago: int) -> Command:
    """A capture or release of a hold, or the end of a try, that was asked for before."""
    if command.kind in (CommandKind.CONFIRM, CommandKind.CANCEL):
        return naming_try(command, sent, ago)
    holds = [one for one in sent[-HOLDS_REMEMBERED_MAX:] if one.kind == CommandKind.HOLD]
    if not holds:
        return command
    named = holds[-1 - ago % len(holds)]
    credit = named.credit if command.kind == CommandKind.CAPTURE else NO_ID
    return replace(command, debit=named.debit, credit=credit, reference=named.id)


def naming_try(command: Command, sent: Sequence[Command], ago: int) -> Command:
    """The end of a try that was asked for before."""
    tries = [one for one in sent[-HOLDS_REMEMBERED_MAX:] if one.kind in TRIES]
    if not tries:
        return command
    named = tries[-1 - ago % len(tries)]
    credit = named.credit if named.kind == CommandKind.TRY_CREDIT else named.reference
    flags = command.flags | CommandFlag.PART if named.kind == CommandKind.TRY_PART else command.flags
    return replace(command, debit=named.debit, credit=credit, reference=named.id, flags=flags)


@dataclass(frozen=True)
class Group:
    """Recipes of commands that follow one another, each with a preset code; as a chain, or one by one."""

    recipes: list[tuple[Recipe, int]]
    is_chain: bool

    def link(self, commands: Sequence[Command]) -> list[Command]:
        """The commands that were made, linked if this is a chain, even those of a kind that cannot be."""
        if not self.is_chain or not commands:
            return list(commands)
        *firsts, last = commands
        linked = [replace(one, flags=one.flags | CommandFlag.LINKED) for one in firsts]
        return [*linked, replace(last, flags=last.flags & ~CommandFlag.LINKED)]


@dataclass(frozen=True)
class Gap:
    """When the next entry comes: nanoseconds after the last event, or after the next deadline if a hold has one."""

    since_event_ns: int
    since_deadline_ns: int | None = None

    def timestamp_ns(self, last_timestamp_ns: int, next_deadline_ns: int) -> int:
        if self.since_deadline_ns is None or not 0 < next_deadline_ns < DEADLINE_NS_MAX:
            return last_timestamp_ns + self.since_event_ns
        return max(last_timestamp_ns + 1, next_deadline_ns + self.since_deadline_ns)


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
transits = st.sampled_from([*TRANSITS, *TRANSITS, "transit:{t}:1/JPY"])
accounts = weighted((18, wallets), (1, transits), (1, st.sampled_from([account("nobody"), bytes(16), b"\xff" * 16])))
amounts = weighted(
    (8, st.integers(1, 150)),
    (3, st.sampled_from([1, 2**32, 2**62, MAX // 2, MAX - 1, MAX])),
    (1, st.sampled_from([0, -1, MIN])),
)
limits = st.sampled_from([0, 0, 0, 5, 100, 100, 2**62, MAX - 1, MAX, MAX, -1])
imports = st.tuples(st.sampled_from(["last", "last", "last", "entry"]), st.integers(-2, 12))

# Short ones, which fall due while the machine runs, and the longest.
timeouts = st.sampled_from([0, 0, 1, 1, 2, 3, TIMEOUT_MS_MAX])
captured_amounts = weighted((4, ZERO), (4, st.integers(1, 40)), (1, amounts))

new_commands = weighted(
    (4, st.builds(open_account, wallets, limits, id=ids)),
    (10, st.builds(transfer, accounts, accounts, amounts, id=ids)),
    (4, st.builds(transfer_available, accounts, accounts, amounts, id=ids)),
    (3, st.builds(set_limit, accounts, limits, id=ids, code=st.integers(0, 1))),
    (9, st.builds(hold, accounts, accounts, amounts, timeouts, id=ids)),
    (1, st.builds(freeze, accounts, id=ids)),
    (3, st.builds(unfreeze, accounts, id=ids)),
    (1, st.builds(close, wallets, id=ids)),
    (1, st.builds(forbid, accounts, ids)),
    (1, st.builds(open_transit, transits, id=ids)),
    (4, st.builds(try_debit, accounts, accounts, amounts, weighted((9, transits), (1, accounts)), id=ids)),
    (4, st.builds(try_credit, weighted((9, transits), (1, accounts)), accounts, amounts, id=ids)),
    (3, st.builds(try_part, accounts, accounts, amounts, weighted((9, transits), (1, accounts)), id=ids)),
    (1, st.builds(plan, accounts, accounts, accounts, amounts, id=ids)),
)
settled = st.sampled_from([0, 0, int(CommandFlag.SETTLED), int(CommandFlag.PART)])
reasons = st.sampled_from([0, 100, int(Code.CREDIT_ACCOUNT_FROZEN), 2**16 + 100, 2**24 - 1])
uses_of_holds = weighted(
    (6, st.builds(capture, accounts, accounts, ids, captured_amounts, id=ids)),
    (5, st.builds(capture_open, accounts, accounts, ids, captured_amounts, id=ids)),
    (4, st.builds(release, accounts, ids, id=ids)),
    (4, st.builds(confirm, accounts, weighted((1, accounts), (1, transits)), ids, id=ids)),
    (4, st.builds(cancel, accounts, transits, ids, id=ids, flags=settled, timeout_ms=reasons)),
    (2, st.builds(cancel, transits, accounts, ids, id=ids)),
)
# Nothing is wrong with these, and the state refuses few of them.
pairs = st.sampled_from([(debit, credit) for debit in NAMES for credit in NAMES if debit != credit])
small_amounts = st.integers(1, 40)
sound_commands = weighted(
    (3, st.builds(lambda pair, amount: transfer(*pair, amount), pairs, small_amounts)),
    (1, st.builds(lambda pair, amount: transfer_available(*pair, amount), pairs, small_amounts)),
    (4, st.builds(lambda pair, amount, timeout_ms: hold(*pair, amount, timeout_ms), pairs, small_amounts, timeouts)),
    (1, st.builds(set_limit, st.sampled_from(NAMES), st.sampled_from([100, 1_000, MAX]))),
    (1, st.builds(unfreeze, st.sampled_from(NAMES))),
    (1, st.builds(open_account, wallets)),
)
sound_tries = weighted(
    (1, st.builds(lambda pair, amount, transit: try_debit(*pair, amount, transit), pairs, small_amounts, transits)),
    (1, st.builds(try_credit, st.sampled_from(TRANSITS), st.sampled_from(NAMES), small_amounts)),
    (1, st.builds(lambda pair, amount, transit: try_part(*pair, amount, transit), pairs, small_amounts, transits)),
    (1, st.builds(lambda pair, amount: plan(pair[0], *pair, amount), pairs, small_amounts)),
)
sound_uses_of_holds = weighted(
    (1, st.builds(capture, wallets, accounts, ids, st.integers(0, 10))),
    (2, st.builds(capture_open, wallets, accounts, ids, st.integers(0, 10))),
    (1, st.builds(release, wallets, ids)),
)
sound_ends = weighted(
    (3, st.builds(confirm, wallets, transits, ids)),
    (2, st.builds(cancel, wallets, transits, ids, flags=settled, timeout_ms=reasons)),
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
    flags=weighted((6, ZERO), (1, st.integers(0, 64)), (1, st.integers(-(2**15), 2**15 - 1))),
    kind=weighted(
        (9, st.integers(1, 12)),
        (3, st.integers(32, 37)),
        (1, st.integers(0, 40)),
        (1, st.integers(-(2**15), 2**15 - 1)),
    ),
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
    "flags": st.integers(0, 64),
    "kind": weighted((3, st.integers(0, 12)), (1, st.integers(32, 37))),
    "reserved": words,
}
changes = st.one_of(*(st.fixed_dictionaries({name: values}) for name, values in CHANGES.items()))
ago = weighted((1, st.integers(0, 5)), (1, st.integers(0, 10_000)))
holds_ago = weighted((2, st.integers(0, 2)), (1, st.integers(0, 10_000)))
recipes = weighted(
    (12, st.builds(Recipe, new_commands)),
    (6, st.builds(Recipe, uses_of_holds, of_hold=holds_ago)),
    (1, st.builds(Recipe, uses_of_holds)),
    (1, st.builds(Recipe, uses_of_holds, changes, of_hold=holds_ago)),
    (2, st.builds(Recipe, new_commands, imported=imports)),
    (1, st.builds(Recipe, uses_of_holds, imported=imports, of_hold=holds_ago)),
    (2, st.builds(Recipe, new_commands, changes)),
    (2, st.builds(Recipe, ago)),
    (2, st.builds(Recipe, ago, changes)),
    (1, st.builds(Recipe, ago, imported=imports)),
    (1, st.builds(Recipe, raw_commands)),
)
sound_recipes = weighted(
    (2, st.builds(Recipe, sound_commands, is_sound=st.just(True))),
    (1, st.builds(Recipe, sound_uses_of_holds, of_hold=holds_ago, is_sound=st.just(True))),
)
# No chain can have a leg.
sound_alone = weighted(
    (3, sound_recipes),
    (1, st.builds(Recipe, sound_tries, is_sound=st.just(True))),
    (1, st.builds(Recipe, sound_ends, of_hold=holds_ago, is_sound=st.just(True))),
)

# A command may come with a code that was set before the ledger saw it.
presets = st.sampled_from([0] * 63 + [Code.DEADLINE_PASSED])


@st.composite
def groups(draw: st.DrawFn) -> Group:
    """Single commands mostly, or a chain, mostly a sound one; a function, for a short description in a failure."""
    is_chain = draw(st.sampled_from([False, False, True]))
    is_sound = draw(st.sampled_from([False, True, True] if is_chain else [False, False, True]))
    count = draw(st.integers(2, 6) if is_chain else st.integers(1, 5))
    members = st.tuples(sound_recipes if is_chain else sound_alone, ZERO) if is_sound else st.tuples(recipes, presets)
    return Group(draw(st.lists(members, min_size=count, max_size=count)), is_chain)


@st.composite
def entries(draw: st.DrawFn) -> list[Group]:
    """The commands of one entry."""
    count = draw(st.integers(0, ENTRY_GROUPS_MAX))
    return draw(st.lists(groups(), min_size=count, max_size=count))


@st.composite
def raw_batches(draw: st.DrawFn) -> list[Command]:
    """One entry of arbitrary records."""
    count = draw(st.integers(0, ENTRY_COMMANDS_MAX))
    return draw(st.lists(raw_commands, min_size=count, max_size=count))


gaps = weighted(
    (3, st.builds(Gap, st.integers(1, 30))),
    (1, st.builds(Gap, st.integers(900_000, 3_100_000))),
    (2, st.builds(Gap, st.integers(1, 30), since_deadline_ns=st.sampled_from([-1, 0, 0, 0, 1]))),
)
shards = st.sampled_from([0, 0, 1, 2047, 2048, 4095])
