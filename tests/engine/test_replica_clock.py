"""Claim: however the clock jumps, time in the history rises, deadlines keep their word, and nothing stands in the way.

Time is the greater of the clock and one nanosecond after the last event. So a clock that was set back lets time creep
on until it has caught up, and a clock that was set forward and back again has carried time along for good.
"""

from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import pytest

from bezant.engine.ledger.ledger import TIMESTAMP_NS_MAX
from bezant.engine.replica import Replica, ReplicaSettings, open_replica
from bezant.engine.verify import verify
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import StorageError
from bezant.protocol.kinds import CommandFlag, CommandKind
from bezant.protocol.records import Records

from .commands import join, opening_world, transfer
from .conftest import NOON_NS, Clock

MS_NS: Final = 1_000_000
HOUR_NS: Final = 3_600 * 10**9
YEAR_NS: Final = 365 * 24 * HOUR_NS
BACKWARDS: Final = {"a second": NOON_NS - 10**9, "30 years": NOON_NS - 30 * YEAR_NS, "1970": 1, "before 1970": -YEAR_NS}


@pytest.fixture
def settings(small: ReplicaSettings) -> ReplicaSettings:
    """Segments with room for all that an entry may let expire."""
    return msgspec.structs.replace(small, segment_size=512 << 10)


def hold(timeout_ms: int) -> Records:
    return transfer("world", "ann", 5, kind=int(CommandKind.HOLD), timeout_ms=timeout_ms)


def capture(made: Records) -> Records:
    reference = {"reference_head": int(made["id_head"][0]), "reference_tail": int(made["id_tail"][0])}
    return transfer("world", "ann", 0, kind=int(CommandKind.CAPTURE), **reference)


def execute(replica: Replica, *commands: Records) -> list[Code]:
    executed = replica.execute(join(*commands))
    replica.write_group()
    return [Code(int(code)) for code in executed.results["code"]]


def check_history(path: Path, replica: Replica) -> Records:
    """Close the replica; every event is later than the one before it, and the history verifies. Returns the events."""
    events = replica.log.read_events(np.arange(1, replica.ledger.next_sequence))
    assert np.all(np.diff(events["timestamp_ns"]) > 0)
    digest = replica.ledger.digest()
    replica.close()
    assert verify(path).state_digest == digest
    return events


@pytest.mark.parametrize("back_ns", BACKWARDS.values(), ids=BACKWARDS)
def test_a_clock_that_is_set_back(tmp_path: Path, settings: ReplicaSettings, clock: Clock, back_ns: int) -> None:
    """While it runs and across a restart; holds fall due when their time has come, and not before."""
    replica = open_replica(tmp_path, settings=settings, clock_ns=clock)
    first, second = hold(60_000), hold(60_000)
    execute(replica, opening_world("ann"), first, second)
    clock.now_ns = back_ns
    for _ in range(2):
        before_ns = replica.ledger.last_timestamp_ns
        assert execute(replica, transfer("world", "ann")) == [Code.COMMITTED]
        assert replica.ledger.last_timestamp_ns == before_ns + 1
        assert replica.ledger.hold_count == 2
        replica.close()
        replica = open_replica(tmp_path, settings=settings, clock_ns=clock)
    assert execute(replica, capture(first)) == [Code.COMMITTED]
    clock.now_ns = NOON_NS + 59_000 * MS_NS
    assert execute(replica, transfer("world", "ann")) == [Code.COMMITTED]
    assert replica.ledger.hold_count == 1
    clock.now_ns = NOON_NS + 61_000 * MS_NS
    assert execute(replica, capture(second)) == [Code.HOLD_EXPIRED]
    assert replica.ledger.hold_count == 0
    events = check_history(tmp_path, replica)
    assert events["kind"].tolist().count(CommandKind.EXPIRE) == 1


def test_a_hold_that_is_made_while_the_clock_is_behind(tmp_path: Path, settings: ReplicaSettings, clock: Clock) -> None:
    """Its time counts from that of its own event, which is not what the clock says."""
    replica = open_replica(tmp_path, settings=settings, clock_ns=clock)
    execute(replica, opening_world("ann"))
    clock.now_ns -= HOUR_NS
    execute(replica, hold(1000))
    assert replica.ledger.next_deadline_ns == replica.ledger.last_timestamp_ns + 1000 * MS_NS > NOON_NS
    clock.now_ns += 1000 * MS_NS
    execute(replica, transfer("world", "ann"))
    assert replica.ledger.hold_count == 1
    clock.now_ns = NOON_NS + 1001 * MS_NS
    execute(replica, transfer("world", "ann"))
    assert replica.ledger.hold_count == 0
    check_history(tmp_path, replica)


def test_a_clock_that_was_far_ahead_for_a_moment(tmp_path: Path, settings: ReplicaSettings, clock: Clock) -> None:
    """What fell due by then has expired for good, new holds can still be captured, and no import can come any more
    but from later than that moment."""
    replica = open_replica(tmp_path, settings=settings, clock_ns=clock)
    old = hold(60_000)
    execute(replica, opening_world("ann"), old)
    clock.now_ns = ahead_ns = NOON_NS + 50 * YEAR_NS
    assert execute(replica, transfer("world", "ann")) == [Code.COMMITTED]
    assert replica.ledger.hold_count == 0
    clock.now_ns = NOON_NS + HOUR_NS
    new = hold(60_000)
    row = transfer("world", "ann", flags=int(CommandFlag.IMPORTED), client_timestamp_ns=NOON_NS + 1)
    assert execute(replica, new, row, capture(old)) == [
        Code.COMMITTED,
        Code.IMPORTED_TIMESTAMP_NOT_RISING,
        Code.HOLD_EXPIRED,
    ]
    assert ahead_ns < replica.ledger.last_timestamp_ns < ahead_ns + 100
    replica.close()
    replica = open_replica(tmp_path, settings=settings, clock_ns=clock)
    assert execute(replica, capture(new)) == [Code.COMMITTED]
    check_history(tmp_path, replica)


@pytest.mark.parametrize("beyond_ns", [TIMESTAMP_NS_MAX + 1, TIMESTAMP_NS_MAX + 50 * YEAR_NS])
def test_a_clock_beyond_2160_is_refused_with_a_reason(
    tmp_path: Path, settings: ReplicaSettings, clock: Clock, beyond_ns: int
) -> None:
    """Nothing is written at such a time, so all is well when the clock is right again."""
    replica = open_replica(tmp_path, settings=settings, clock_ns=clock)
    execute(replica, opening_world("ann"))
    state = replica.ledger.digest(), replica.log.last_index
    clock.now_ns = beyond_ns
    with pytest.raises(StorageError, match="beyond the year 2160: see to the clock"):
        replica.execute(transfer("world", "ann"))
    assert (replica.ledger.digest(), replica.log.last_index) == state
    replica.close()
    clock.now_ns = NOON_NS + 1
    replica = open_replica(tmp_path, settings=settings, clock_ns=clock)
    assert execute(replica, transfer("world", "ann")) == [Code.COMMITTED]
    check_history(tmp_path, replica)


def test_nothing_is_registered_or_created_beyond_2160(tmp_path: Path, settings: ReplicaSettings, clock: Clock) -> None:
    """An entry at such a time could have none behind it, ever."""
    replica = open_replica(tmp_path / "data", settings=settings, clock_ns=clock)
    clock.now_ns = TIMESTAMP_NS_MAX + 1
    for register in (
        lambda: replica.register_currency("POINTS", 0),
        lambda: open_replica(tmp_path / "new", clock_ns=clock),
    ):
        with pytest.raises(StorageError, match="see to the clock"):
            register()
    assert "POINTS" not in replica.ledger.currencies
    clock.now_ns = NOON_NS + 1
    replica.register_currency("POINTS", 0)
    assert execute(replica, opening_world("ann")) == [Code.COMMITTED] * 2
    check_history(tmp_path / "data", replica)
    open_replica(tmp_path / "new", settings=settings, clock_ns=clock).close()


def test_the_last_moment_that_there_is(tmp_path: Path, settings: ReplicaSettings, clock: Clock) -> None:
    """The greatest time, and the longest hold that is made then."""
    replica = open_replica(tmp_path, settings=settings, clock_ns=clock)
    execute(replica, opening_world("ann"))
    clock.now_ns = TIMESTAMP_NS_MAX
    assert execute(replica, hold(3_153_600_000_000)) == [Code.COMMITTED]
    assert replica.ledger.next_deadline_ns == TIMESTAMP_NS_MAX + 3_153_600_000_000 * MS_NS
    with pytest.raises(StorageError, match="beyond the year 2160"):
        replica.execute(transfer("world", "ann"))
    check_history(tmp_path, replica)
