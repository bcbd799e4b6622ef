"""Claim: what clients are told of transfers to other shards is what was decided, with what the other shard answered."""

import numpy as np
import pytest

from bezant.net.server.flight_kernels import has_repeats, write_outcomes
from bezant.protocol.codes import ResultCode
from bezant.protocol.kinds import ResultFlag
from bezant.protocol.records import RESULT, RESULT_SIZE, Records, Words

COMMITTED = int(ResultCode.COMMITTED)
ANSWERS = [COMMITTED, COMMITTED, COMMITTED, 7, 99, 100, 199, 200]


def outcomes_of(decided: Records, codes: Words) -> Records:
    """The model."""
    told = decided.copy()
    told["flags"] = 0
    told["code"] = np.where((codes >= 100) & (codes < 200), int(ResultCode.SHARD_UNREACHABLE), codes)
    told["effective_amount"][codes != COMMITTED] = 0
    told["credit_balance"] = told["credit_held"] = 0
    return told


@pytest.mark.parametrize("count", [0, 1, 300])
def test_outcomes_are_written_as_the_model_has_them(count: int) -> None:
    chance = np.random.default_rng(count)
    decided = np.frombuffer(bytearray(chance.bytes(count * RESULT_SIZE)), RESULT)
    decided["code"] = COMMITTED
    codes = chance.choice(np.array(ANSWERS), count)
    rows = np.sort(chance.permutation(count + 20)[:count])
    results = np.frombuffer(bytearray(chance.bytes((count + 20) * RESULT_SIZE)), RESULT)
    expected = results.copy()
    expected[rows] = outcomes_of(decided, codes)
    assert write_outcomes(decided, codes, rows, results) == -1
    assert results.tobytes() == expected.tobytes()


@pytest.mark.parametrize(("code", "row"), [(int(ResultCode.HOLD_CAPTURED), 1), (COMMITTED, 3), (COMMITTED, -1)])
def test_nothing_is_written_of_what_was_not_decided_or_that_nobody_waits_for(code: int, row: int) -> None:
    decided, results = np.zeros(3, RESULT), np.zeros(3, RESULT)
    decided["position"] = [10, 11, 12]
    decided["code"][1] = code
    assert write_outcomes(decided, np.zeros(3, np.int64), np.array([0, row, 2]), results) == 1
    assert results["position"].tolist() == [10, 0, 0]


def test_one_repeat_among_others_is_seen() -> None:
    results = np.zeros(5, RESULT)
    assert not has_repeats(results)
    assert not has_repeats(results[:0])
    results["flags"][3] = int(ResultFlag.REPEATED)
    assert has_repeats(results)
