"""Claim: what an earlier version has written this one reads, means the same by it, and goes on with."""

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from bezant.engine.metadata.setting import set_metadata
from bezant.engine.replica import Replica, open_replica, shard_directory
from bezant.engine.tokens import table
from bezant.engine.tokens.audit import read_acts
from bezant.engine.tokens.changing import change_tokens
from bezant.engine.verify import verify
from bezant.protocol.access import Scope, Token, TokenChange
from bezant.protocol.kinds import CommandKind
from bezant.protocol.metadata import SALT_SIZE, SetMetadata, SubjectKind
from bezant.protocol.names import account_id

from .writing import NAMES, SMALL, START_NS, close, command, execute, ids_of, write

HERE = Path(__file__).parent
WRITTEN = sorted(HERE.glob("*.json"))


class Before(NamedTuple):
    """A folder as an earlier version has left it, and what that has said of it."""

    folder: Path
    told: dict[str, Any]


@pytest.fixture(params=WRITTEN, ids=lambda path: path.stem)
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Before:
    told: Path = request.param
    with tarfile.open(told.with_suffix(".tar.xz")) as archive:
        archive.extractall(tmp_path / "books", filter="data")
    return Before(tmp_path / "books", json.loads(told.read_text(encoding="utf-8")))


def state(replica: Replica) -> dict[str, Any]:
    return {
        "digest": replica.ledger.digest(),
        "entries": replica.log.last_index,
        "balances": [int(replica.ledger.lookup_accounts(ids_of(name))["balance"][0]) for name in NAMES],
        "start_index": replica.start_index,
    }


def opened(folder: Path) -> Replica:
    return open_replica(folder, settings=SMALL, clock_ns=lambda: START_NS)


def test_there_is_one_of_an_earlier_version() -> None:
    assert WRITTEN


def test_it_is_read_from_its_checkpoint_and_from_its_log_alone(before: Before) -> None:
    assert verify(before.folder).entries == before.told["entries"]
    replica = opened(before.folder)
    assert state(replica) == before.told
    close(replica)
    shutil.rmtree(shard_directory(before.folder, 0).path / "checkpoints")
    replica = opened(before.folder)
    assert state(replica) == before.told | {"start_index": 0}
    close(replica)


def test_this_version_would_have_come_to_the_same(before: Before, tmp_path: Path) -> None:
    assert write(tmp_path / "now") == before.told


def test_it_is_gone_on_with(before: Before, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = opened(before.folder)
    again = replica.execute(command(CommandKind.TRANSFER, 700, "ann", "bob", 5)).results
    assert (again["code"][0], replica.log.last_index) == (0, before.told["entries"]), "an id is used once, for ever"
    execute(replica, command(CommandKind.TRANSFER, 800, "ann", "bob", 1))
    capture = command(CommandKind.CAPTURE, 801, "ann", "bob", 60)
    capture["reference_head"], capture["reference_tail"] = 7, 601
    execute(replica, capture)
    ann = SetMetadata(SubjectKind.ACCOUNT, account_id("ann", "EUR"))
    assert set_metadata(replica, ann, bytes(SALT_SIZE)) == replica.log.last_index
    monkeypatch.setattr(table, "TOKENS_MAX", 2)  # what the earlier version had no entry for
    change_tokens(replica, TokenChange(Token("2" * 12, bytes(32), [Scope.READ])), has_other=False)
    assert [token.token_id for token in replica.ledger.tokens.records] == ["0" * 12, "2" * 12]
    replica.write_group()
    told = state(replica)
    assert np.subtract(told["balances"], before.told["balances"]).tolist() == [0, -61, 61]
    close(replica)
    replica = opened(before.folder)
    assert state(replica) | {"start_index": 0} == told | {"start_index": 0}
    close(replica)
    assert verify(before.folder).entries == told["entries"]
    operations = [line.operation for line in read_acts(before.folder)]
    assert operations.count("TOKEN_CREATED") == 3
    assert {"LOG_CREATED", "TOKEN_REVOKED", "CHANGE_MEMBERS", "TOKENS_FORGOTTEN"} <= set(operations)
