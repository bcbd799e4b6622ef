"""Every exception of Bezant is told as whose fault it is, what happened, and what to do next."""

import pytest

import bezant.protocol.errors as tree
from bezant.cli.errors import InputFileError, OutcomeNotKnown, describe, exit_status
from bezant.net.client.channel import OutcomeUnknown, unknown_results
from bezant.protocol.errors import BezantError, InvalidAmountOrName, RequestRefused, UsageError
from bezant.protocol.frames import FrameError


def _classes(root: type[BezantError]) -> list[type[BezantError]]:
    return [root, *(found for child in root.__subclasses__() for found in _classes(child))]


PROTOCOL_CLASSES = [kind for kind in _classes(BezantError) if kind.__module__ == tree.__name__]


@pytest.mark.parametrize("kind", PROTOCOL_CLASSES)
def test_every_class_has_words_of_its_own(kind: type[BezantError]) -> None:
    error = kind(7, "the story") if issubclass(kind, RequestRefused) else kind("the story")
    line = describe(error)
    fault, story = line.split(": ", 1)
    assert fault
    assert story.startswith("the story")
    assert "\n" not in line
    if kind is not BezantError:
        assert "; " in story, "a next step is missing"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (InvalidAmountOrName("x"), 1),
        (InputFileError("x"), 1),
        (OutcomeNotKnown("x", "y"), 1),
        (UsageError("x"), 2),
        (OutcomeUnknown("x", unknown_results(0), unknown_results(0)), 1),
    ],
)
def test_statuses(error: BezantError, status: int) -> None:
    assert exit_status(error) == status


def test_an_error_without_words_is_told_by_its_class() -> None:
    assert describe(BezantError()) == "failed: BezantError"


@pytest.mark.parametrize(
    ("code", "advice"), [(FrameError.OVERLOADED, "try again"), (FrameError.REQUEST_REFUSED, "correct the request")]
)
def test_who_is_refused_for_now_is_told_to_try_again(code: FrameError, advice: str) -> None:
    assert advice in describe(RequestRefused(int(code), "the story"))
