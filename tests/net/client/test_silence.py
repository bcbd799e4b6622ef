"""Claim: a node is suspected after half a second in which nothing arrives, ever less often, until something does."""

import pytest

from bezant.net.client.silence import SUSPECT_S, SUSPECT_S_MAX, TICK_S, UNDECIDED_S, Silence


def suspected_s(silence: Silence, oldest: int = 1, received: int = 1, duration_s: float = 10.0) -> list[float]:
    """Seconds after the first tick at which the node is suspected, while nothing changes."""
    ticks = range(round(duration_s / TICK_S) + 1)
    return [round(tick * TICK_S, 3) for tick in ticks if silence.on_tick(oldest, received)]


def test_suspicion_comes_less_and_less_often() -> None:
    assert suspected_s(Silence(), duration_s=8.0) == [0.5, 1.5, 3.5, 5.5, 7.5]
    assert (SUSPECT_S, SUSPECT_S_MAX) == (0.5, 2.0)


def test_an_arrival_resets_it() -> None:
    silence = Silence()
    assert suspected_s(silence, duration_s=2.0) == [0.5, 1.5]
    assert suspected_s(silence, received=2, duration_s=2.0) == [0.5, 1.5]


@pytest.mark.parametrize("changes", ["oldest", "received"])
def test_a_node_that_answers_is_never_suspected(changes: str) -> None:
    silence = Silence()
    for number in range(100):
        for _ in range(5):  # the first of them sees the change
            assert not silence.on_tick(number if changes == "oldest" else 1, number if changes == "received" else 1)


def test_another_connection_is_given_its_time_and_no_absolution() -> None:
    silence = Silence()
    assert suspected_s(silence, duration_s=0.5) == [0.5]
    silence.on_connected(7)
    assert suspected_s(silence, received=7, duration_s=2.0) == [1.0]


def test_those_who_have_no_leader_yet_are_asked_again_soon() -> None:
    silence = Silence()
    assert suspected_s(silence, duration_s=0.5) == [0.5]
    silence.on_undecided()
    assert not silence.on_tick(1, 1)
    assert silence.on_tick(1, 1)
    assert pytest.approx(2 * TICK_S) == UNDECIDED_S
