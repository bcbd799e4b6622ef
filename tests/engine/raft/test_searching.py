"""Claim: where logs part is found as a search entry by entry would find it."""

import random
from itertools import groupby

from bezant.engine.raft.searching import first_difference, last_index_of_term, term_in, term_runs
from bezant.protocol.raft_messages import Append, TermRun

from .peers import memory_log


def some_terms(chance: random.Random) -> list[int]:
    return sorted(chance.choices(range(1, 6), k=chance.randrange(12)))


def runs_of(terms: list[int], first_index: int) -> tuple[TermRun, ...]:
    runs, index = [], first_index
    for term, group in groupby(terms):
        runs.append(TermRun(index, term))
        index += len(list(group))
    return tuple(runs)


def test_the_last_entry_that_is_not_of_a_later_term() -> None:
    chance = random.Random(1)
    for _ in range(2_000):
        terms = some_terms(chance)
        index, term, floor = chance.randrange(len(terms) + 3), chance.randrange(7), chance.randrange(3)
        fitting = [at for at in range(1, min(index, len(terms)) + 1) if terms[at - 1] <= term]
        expected = max([floor, *fitting])
        assert last_index_of_term(memory_log(terms), floor, index, term) == expected


def test_runs_tell_every_term() -> None:
    chance = random.Random(2)
    for _ in range(1_000):
        terms = some_terms(chance)
        for first in range(1, len(terms) + 1):
            last = chance.randrange(first, len(terms) + 1)
            assert term_runs(memory_log(terms), first, last, 100) == runs_of(terms[first - 1 : last], first)
            assert term_runs(memory_log(terms), first, last, 2) == runs_of(terms[first - 1 : last], first)[:2]


def test_the_first_difference_of_two_logs() -> None:
    """Logs that have the same term at an index are the same before it, so they agree up to a point and not beyond."""
    chance = random.Random(3)
    for _ in range(3_000):
        ours = some_terms(chance)
        common = chance.randrange(len(ours) + 1)
        later = [term for term in some_terms(chance) if not common or term >= ours[common - 1]]
        theirs = ours[:common] + later
        same = 0
        while same < min(len(ours), len(theirs)) and ours[same] == theirs[same]:
            same += 1
        if any(mine == other for mine, other in zip(ours[same:], theirs[same:], strict=False)):
            continue
        prev = chance.randrange(same + 1)
        last = chance.randrange(prev, len(theirs) + 1)
        found = first_difference(memory_log(ours), prev, runs_of(theirs[prev:last], prev + 1), last)
        assert found == min(max(same, prev), last) + 1


def test_the_term_at_an_index_of_a_message() -> None:
    message = Append(1, 2, 9, 5, 2, (TermRun(6, 2), TermRun(8, 4)), 9, 0, 1)
    assert [term_in(message, index) for index in range(5, 10)] == [2, 2, 2, 4, 4]
