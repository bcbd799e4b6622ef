"""The history that the tests of recovery start from, written once."""

import pytest

from .crashes import GROUPS, History, write_history


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> History:
    return write_history(tmp_path_factory.mktemp("history"), *GROUPS)
