"""Claim: what is left of a failing seed still fails, and needs all of what is left."""

from .shrink import shrink


def test_what_is_not_needed_is_left_out() -> None:
    asked: list[tuple[frozenset[str], int]] = []

    def fails(without: frozenset[str], trouble_us: int) -> bool:
        asked.append((without, trouble_us))
        return "power" not in without and trouble_us > 1_000_000

    without, trouble_us = shrink(["loss", "power", "clog"], 4_000_000, fails)
    assert without == {"loss", "clog"}
    assert fails(without, trouble_us)
    assert not fails(without, int(trouble_us * 0.7))
    assert len(asked) < 12


def test_nothing_is_left_of_what_always_fails() -> None:
    assert shrink(["loss", "power"], 4_000_000, lambda *_: True)[0] == {"loss", "power"}
