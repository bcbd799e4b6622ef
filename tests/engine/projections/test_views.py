"""Claim: who asks by an older view looks at no row that was not there then, though the index has its account by now."""

import numpy as np

from bezant.engine.projections.kernels import find_accounts
from bezant.engine.projections.layout import ACCOUNT_HEAD, ACCOUNT_OPENED, ACCOUNT_WORDS
from bezant.engine.projections.tables import Tables


def test_an_account_that_came_when_the_rows_had_grown_is_not_looked_for_behind_the_old_ones() -> None:
    tables = Tables((3, 5))
    rows = np.zeros((2, ACCOUNT_WORDS), np.int64)
    rows[:, ACCOUNT_HEAD], rows[:, ACCOUNT_OPENED] = (11, 12), (1, 2)
    tables.restore_accounts([rows.tobytes()], len(rows))
    now = tables.arrays
    ids, numbers = np.array([(11, 0), (12, 0)], np.int64), np.empty(2, np.int64)
    find_accounts(now, ids, numbers)
    assert numbers.tolist() == [0, 1]
    find_accounts(now._replace(accounts=now.accounts[:1]), ids, numbers)
    assert numbers.tolist() == [0, -1]
