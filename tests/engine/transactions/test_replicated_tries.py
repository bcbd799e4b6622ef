"""Claim: open tries, and decisions that other shards may not know, outlive a restart, a checkpoint and a replay."""

from pathlib import Path

import numpy as np
import pytest

from bezant.engine.checkpoints.file import read_checkpoint, write_checkpoint
from bezant.engine.ledger.ledger import Ledger
from bezant.engine.log.log import open_log
from bezant.engine.replica import SETTLED_MAX, Replica, ReplicaSettings, open_replica, shard_directory
from bezant.engine.verify import verify
from bezant.protocol.codes import ResultCode as Code
from bezant.protocol.errors import LedgerError
from bezant.protocol.kinds import LEG_SHIFT, CommandFlag, CommandKind
from bezant.protocol.records import RULES_VERSION, Records

from ..ledger.model_records import encode_commands
from ..ledger.tables import (
    MAX,
    cancel,
    confirm,
    id_of,
    open_account,
    open_transit,
    plan,
    transfer,
    try_credit,
    try_debit,
    try_part,
)

T = "transit:0:1"


def run(replica: Replica, *commands: object) -> Records:
    return replica.execute(encode_commands(commands)).results["code"]


@pytest.fixture
def replica(tmp_path: Path, small: ReplicaSettings) -> Replica:
    """Three tries: one open, one confirmed, one cancelled; and a CANCEL that came before its try."""
    opened = open_replica(tmp_path, settings=small)
    run(opened, open_account("world", MAX), open_account("ann"), open_transit(T), transfer("world", "ann", 100))
    run(opened, *(try_debit("ann", "far", 10 + number, T, id=id_of(number)) for number in (1, 2, 3)))
    run(opened, confirm("ann", T, id_of(1)), cancel("ann", T, id_of(2)), cancel("ann", T, id_of(9)))
    assert opened.ledger.open_tries().tolist() == [7]
    assert opened.ledger.unsettled().tolist() == [(5, 8, 1), (6, 9, 0)]
    return opened


def test_a_restart_and_a_verification_find_them(replica: Replica, tmp_path: Path, small: ReplicaSettings) -> None:
    index = replica.log.last_index
    assert replica.settle(np.array([5], np.int64)) == index + 1
    replica.write_group()
    digest = replica.ledger.digest()
    replica.close()
    assert verify(tmp_path).events == 10
    again = open_replica(tmp_path, settings=small)
    assert (again.ledger.digest(), again.ledger.unsettled().tolist()) == (digest, [(6, 9, 0)])
    assert run(again, try_debit("ann", "far", 1, T, id=id_of(9))).tolist() == [Code.ID_FORBIDDEN]
    assert run(again, confirm("ann", T, id_of(3)), confirm("ann", T, id_of(2))).tolist() == [0, Code.HOLD_RELEASED]
    again.close()


def test_what_is_unsettled_takes_no_room_of_tries_that_others_decide() -> None:
    """A ledger whose table of holds is as full as it gets can be restored from its image."""
    ledger = Ledger(accounts_max=8, holds_max=3)
    ledger.register_currency("EUR", 2)
    ledger.switch_rules(RULES_VERSION)
    batches = [
        (open_account("world", MAX), open_account("ann"), open_transit(T), transfer("world", "ann", 100)),
        tuple(try_debit("ann", "far", 1, T, id=id_of(number)) for number in (1, 2, 3)),
        tuple(confirm("ann", T, id_of(number)) for number in (1, 2, 3)),
        tuple(try_credit(T, "ann", 1, reference=id_of(8)) for _ in range(3)),
    ]
    for time_ns, batch in enumerate(batches, 1):
        codes = ledger.execute(encode_commands(batch), 1000 * time_ns).results["code"]
        assert np.isin(codes, (int(Code.COMMITTED), int(Code.UNDECIDED))).all()
    again = Ledger(accounts_max=8, holds_max=3, salts=ledger.salts)
    again.restore(ledger.image())
    assert again.digest() == ledger.digest()


def test_no_entry_settles_nothing_or_too_much(replica: Replica) -> None:
    index = replica.log.last_index
    assert replica.settle(np.zeros(0, np.int64)) == index
    with pytest.raises(LedgerError, match="tries are over"):
        replica.settle(np.zeros(SETTLED_MAX + 1, np.int64))
    assert replica.log.last_index == index
    replica.close()


def test_a_checkpoint_has_them(replica: Replica, tmp_path: Path) -> None:
    replica.write_group()
    replica.close()
    log = open_log(shard_directory(tmp_path, 0), writable=False)
    assert len(list(log.open())) == 4
    directory, ledger = shard_directory(tmp_path, 0), replica.ledger
    point = log.resume_point()
    assert point is not None
    write_checkpoint(
        directory,
        "a-checkpoint",
        ledger.image(),
        shard=0,
        point=point,
        salts=ledger.salts,
        runs=(),
        run_number_next=1,
        state_digest=ledger.digest(),
        configuration=None,
    )
    log.close()
    restored = Ledger(accounts_max=16, holds_max=16, ids_capacity_initial=16)
    restored.restore(read_checkpoint(directory, "a-checkpoint").image)
    assert restored.digest() == ledger.digest()
    assert restored.open_tries().tolist() == [7]
    assert restored.unsettled().tolist() == [(5, 8, 1), (6, 9, 0)]


def test_what_another_try_decides_outlives_it_all(tmp_path: Path, small: ReplicaSettings) -> None:
    """An open TRY_PART, one given up before it came, and a PLAN: after a restart, in an image, in a verification."""
    part = {"flags": int(CommandFlag.PART)}
    replica = open_replica(tmp_path, settings=small)
    replica.switch_rules(RULES_VERSION)
    run(replica, open_account("world", MAX), open_account("ann"), open_transit(T), transfer("world", "ann", 100))
    planned = plan("ann", "x", "bob", 5, id=id_of(1), timeout_ms=1 << LEG_SHIFT)
    begun = (try_part("ann", "far", 10, T, id=id_of(2)), planned, cancel("ann", T, id_of(3), **part))
    assert run(replica, *begun).tolist() == [0, 0, 0]
    replica.write_group()
    digest, image = replica.ledger.digest(), replica.ledger.image()
    assert image.tries["kind"].tolist() == [CommandKind.TRY_PART]
    assert len(replica.ledger.open_tries()) == len(replica.ledger.unsettled()) == 0
    restored = Ledger(fetch_events=replica.log.read_events)
    restored.restore(image)
    assert restored.digest() == digest
    replica.close()
    assert verify(tmp_path).events == 7
    again = open_replica(tmp_path, settings=small)
    assert again.ledger.digest() == digest
    late = (try_part("ann", "far", 1, T, id=id_of(3)), planned, confirm("ann", T, id_of(2), **part))
    assert run(again, *late).tolist() == [Code.ID_FORBIDDEN, 0, 0]
    again.ledger.check_invariants()
    again.close()
