"""Fixtures: the books under test, held by the kernel or by the model, row by row or in one entry."""

from collections.abc import Callable
from functools import partial
from typing import Final

import pytest

from bezant.engine.ledger.ledger import Ledger

from .model import Model
from .tables import Books, Subject

TABLES_SIZE_INITIAL: Final = 16
"""Small, because a ledger touches its memory when it starts, which takes long without compilation."""


@pytest.fixture(params=[partial(Ledger, ids_capacity_initial=TABLES_SIZE_INITIAL), Model], ids=["kernel", "model"])
def make_subject(request: pytest.FixtureRequest) -> Callable[..., Subject]:
    """Makes an implementation; every table also tests the model, so that the model can be believed elsewhere."""
    return request.param


@pytest.fixture(params=[False, True], ids=["together", "apart"])
def make_books(request: pytest.FixtureRequest, make_subject: Callable[..., Subject]) -> Callable[..., Books]:
    """Makes books with options of the ledger such as ``shard`` and ``accounts_max``."""

    def make(*, shard: int = 0, accounts_max: int = 64, holds_max: int = 64) -> Books:
        subject = make_subject(shard=shard, accounts_max=accounts_max, holds_max=holds_max)
        return Books(subject, apart=request.param, shard=shard)

    return make


@pytest.fixture
def books(make_books: Callable[..., Books]) -> Books:
    return make_books()
