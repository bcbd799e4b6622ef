"""Keys whose hashes are equal: compared by what they are, wherever the events lie that they collide with.

A good hash of 63 bits gives no such keys, so a poor one takes its place, which only the uncompiled kernel allows.
"""

from random import Random

import numba
import pytest

from bezant.engine.ledger import lookups

from .model_records import Command
from .pair import Pair
from .tables import MAX, capture, capture_open, hold, id_of, open_account, release, transfer
from .writer import write_history

pytestmark = pytest.mark.skipif(not numba.config.DISABLE_JIT, reason="a compiled kernel keeps the hash it has")


def poor_hash(bits: int) -> object:
    """A hash of so few bits that most keys collide with others."""

    def mix_words(head: int, tail: int, extra: int, salt_1: int, salt_2: int) -> int:
        return (int(head) * 31 + int(tail) * 7 + int(extra) + int(salt_1) + int(salt_2) >> 3) & (1 << bits) - 1

    return mix_words


@pytest.mark.parametrize("bits", [0, 2, 5])
@pytest.mark.parametrize("fetches", [True, False])
def test_equal_hashes(monkeypatch: pytest.MonkeyPatch, bits: int, fetches: bool) -> None:
    monkeypatch.setattr(lookups, "mix_words", poor_hash(bits))
    chance = Random(bits)
    pair = Pair(ids_capacity_initial=16, fetches=fetches)
    pair.register_currency("EUR", 2)
    names = [f"wallet-{number}" for number in range(20)]
    commands = [open_account(name, MAX) for name in names]
    for number in range(70):
        debit, credit = chance.sample(names, 2)
        commands.append(transfer(debit, credit, chance.randint(1, 1_000), id=id_of(number)))
    start = 0
    while start < len(commands):
        end = start + chance.randint(1, 12)
        repeated: list[Command] = chance.choices(commands[:end], k=4)
        entry = [*commands[start:end], *repeated]
        chance.shuffle(entry)
        pair.execute(entry, pair.model.last_timestamp_ns + 1)
        start = end
    pair.execute(commands, pair.model.last_timestamp_ns + 1)
    pair.compare_accounts()


@pytest.mark.parametrize("bits", [0, 3])
@pytest.mark.parametrize("fetches", [True, False])
def test_histories_of_every_kind_with_equal_hashes(monkeypatch: pytest.MonkeyPatch, bits: int, fetches: bool) -> None:
    """Holds of one id in several slots, fates written beside the right id, accounts taken back: all in one bucket."""
    monkeypatch.setattr(lookups, "mix_words", poor_hash(bits))
    pair, _ = write_history(bits, entries_count=15, fetches=fetches)
    pair.replay()


def test_holds_of_one_id_in_several_slots_with_equal_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookups, "mix_words", poor_hash(0))
    pair = Pair()
    pair.register_currency("EUR", 2)
    names = [f"wallet-{number}" for number in range(6)]
    pair.execute([*(open_account(name, MAX) for name in names), open_account("ann")], 1_000)
    pair.execute([hold(name, "ann", 10 + number, id=id_of(1)) for number, name in enumerate(names)], 2_000)
    pair.execute(
        [release(names[1], id_of(1)), capture(names[4], "ann", id_of(1)), capture_open(names[5], "ann", id_of(1), 1)],
        3_000,
    )
    pair.execute([capture(name, "ann", id_of(1)) for name in reversed(names)], 4_000)
    pair.execute([release(name, id_of(1)) for name in names], 5_000)
    pair.compare_accounts()
