"""Claim: a client gets its share and no more, and nothing is remembered of clients without end."""

import pytest

from bezant.net.gateway import admission as admission_module
from bezant.net.gateway.admission import Admission
from bezant.net.gateway.problems import ProblemRaised
from bezant.net.gateway.settings import CLIENTS_TRACKED_MAX


def admission(count_max: int = 100, client_count_max: int = 10, rate: float = 10.0, burst: int = 5) -> Admission:
    return Admission(count_max=count_max, client_count_max=client_count_max, rate=rate, burst=burst)


def refused(admitting: Admission, name: str, now_s: float) -> str:
    with pytest.raises(ProblemRaised) as raised:
        admitting.enter(name, now_s)
    return raised.value.problem.code


def test_a_burst_is_let_in_and_then_as_many_as_the_rate_has() -> None:
    admitting = admission()
    for _ in range(5):
        admitting.enter("a", 100.0)
        admitting.leave("a")
    assert refused(admitting, "a", 100.0) == "TOO_MANY_REQUESTS"
    admitting.enter("b", 100.0)
    for tenth in range(1, 20):
        admitting.enter("a", 100.0 + tenth / 10 + 0.001)
        admitting.leave("a")
        assert refused(admitting, "a", 100.0 + tenth / 10 + 0.001) == "TOO_MANY_REQUESTS"


def test_a_pause_fills_no_more_than_a_burst() -> None:
    admitting = admission()
    for _ in range(5):
        admitting.enter("a", 0.0)
        admitting.leave("a")
    for _ in range(5):
        admitting.enter("a", 1000.0)
        admitting.leave("a")
    assert refused(admitting, "a", 1000.0) == "TOO_MANY_REQUESTS"


def test_requests_under_way_are_bounded_for_each_and_for_all() -> None:
    admitting = admission(count_max=5, client_count_max=3, burst=100)
    for _ in range(3):
        admitting.enter("a", 0.0)
    assert refused(admitting, "a", 0.0) == "TOO_MANY_REQUESTS"
    admitting.enter("b", 0.0)
    admitting.enter("b", 0.0)
    assert refused(admitting, "b", 0.0) == "GATEWAY_OVERLOADED"
    admitting.leave("a")
    admitting.enter("b", 0.0)
    assert admitting.count == 5


def test_what_does_not_stay_is_not_counted_but_has_its_rate() -> None:
    admitting = admission(client_count_max=1)
    for _ in range(5):
        admitting.enter("a", 0.0, stays=False)
    assert admitting.count == 0
    assert refused(admitting, "a", 0.0) == "TOO_MANY_REQUESTS"


def test_clients_are_forgotten_but_not_those_with_requests_under_way() -> None:
    admitting = admission(count_max=10, burst=2)
    admitting.enter("stays", 0.0)
    for number in range(CLIENTS_TRACKED_MAX + 50):
        admitting.enter(f"client {number}", 0.0)
        admitting.leave(f"client {number}")
    assert len(admitting._clients) <= CLIENTS_TRACKED_MAX
    admitting.enter("stays", 0.0)
    assert refused(admitting, "stays", 0.0) == "TOO_MANY_REQUESTS"
    assert admitting.count == 2


def test_who_comes_when_all_others_have_something_under_way_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "CLIENTS_TRACKED_MAX", 2)
    admitting = admission(client_count_max=1)
    admitting.enter("a", 0.0)
    admitting.enter("b", 0.0)
    assert refused(admitting, "c", 0.0) == "GATEWAY_OVERLOADED"
    admitting.leave("a")
    admitting.enter("c", 0.0)
    assert refused(admitting, "c", 0.0) == "TOO_MANY_REQUESTS", "what it has under way is counted"
    admitting.leave("b")
    admitting.leave("c")
    assert admitting.count == 0


def test_who_was_heard_just_now_is_forgotten_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "CLIENTS_TRACKED_MAX", 2)
    admitting = admission(burst=2)
    for name in ("a", "b", "a", "c"):
        admitting.enter(name, 0.0)
        admitting.leave(name)
    assert refused(admitting, "a", 0.0) == "TOO_MANY_REQUESTS", "its bucket is not full again"
