"""Claim: the exceptions are the tree that the module shows, so that a caller can catch by whose fault it was."""

import re

import pytest

from bezant.protocol import errors
from bezant.protocol.errors import BezantError, InvalidAmountOrName, RequestRefused

CLASSES = {name: value for name, value in vars(errors).items() if isinstance(value, type)}


def drawn_tree() -> dict[str, str | None]:
    """Child -> parent as the docstring of the module draws it."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│├└─ ]*)([A-Z]\w+)(?:  |$)", line)
        if match is None:
            continue
        depth = len(match[1]) // 4
        path[depth:] = [match[2]]
        parents[match[2]] = path[depth - 1] if depth else None
    return parents


def test_the_drawn_tree_is_the_tree() -> None:
    built = {name: value.__bases__[0].__name__ for name, value in CLASSES.items() if value is not BezantError}
    assert drawn_tree() == {"BezantError": None, **built}


@pytest.mark.parametrize("name", CLASSES)
def test_every_exception_is_ours_and_says_what_it_is(name: str) -> None:
    assert issubclass(CLASSES[name], BezantError)
    assert CLASSES[name].__doc__


def test_a_bad_amount_or_name_is_a_value_error_too() -> None:
    assert issubclass(InvalidAmountOrName, ValueError)


def test_a_refused_request_carries_its_code() -> None:
    error = RequestRefused(7, "no")
    assert (error.code, str(error)) == (7, "no")
