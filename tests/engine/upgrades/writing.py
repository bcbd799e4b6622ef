"""Writes the folder that a version leaves behind, with something of all that there is in a log: run it with the code of
that version, `python tests/engine/upgrades/writing.py FOLDER`, and keep what it prints beside the folder.

    for example: git worktree add OLD TAG; PYTHONPATH=OLD python tests/engine/upgrades/writing.py FOLDER
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bezant.engine.checkpoints.checkpointer import Checkpointer, restore_ledger
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.log.log import open_log
from bezant.engine.metadata.setting import set_metadata
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, Replica, ReplicaSettings, open_replica, shard_directory
from bezant.engine.tokens.acts import write_act
from bezant.engine.tokens.changing import change_tokens
from bezant.protocol.access import Scope, Token, TokenChange, digest_of
from bezant.protocol.kinds import CommandKind
from bezant.protocol.metadata import SALT_SIZE, SetMetadata, SubjectKind
from bezant.protocol.names import account_id, currency_word
from bezant.protocol.records import COMMAND, Records, id_words

SMALL = ReplicaSettings(
    segment_size=64 << 10,
    free_space_floor=0,
    accounts_max=1024,
    holds_max=200,
    ids_memory_bytes=IDS_MEMORY_BYTES_MIN,
)
START_NS = 1_800_000_000_000_000_000
NAMES = ("world", "ann", "bob")


def command(kind: CommandKind, number: int, debit: str, credit: str = "", amount: int = 0, **fields: Any) -> Records:
    """One command, with its number for an id."""
    made = np.zeros(1, COMMAND)
    made["id_head"], made["id_tail"] = 7, number
    made["debit_head"], made["debit_tail"] = id_words(account_id(debit, "EUR"))
    if credit:
        made["credit_head"], made["credit_tail"] = id_words(account_id(credit, "EUR"))
    made["kind"], made["amount"] = int(kind), amount
    for name, value in fields.items():
        made[name] = value
    return made


def write(folder: Path) -> dict[str, Any]:
    """Write it; returns what the version that has written it says of it."""
    replica = open_replica(folder, settings=SMALL, clock_ns=lambda: START_NS)
    replica.register_currency("EUR", 2)
    execute(replica, *(opening(number, name) for number, name in enumerate(NAMES)))
    for number in range(100, 500, 100):
        transfers = range(number, number + 100)
        execute(replica, *(command(CommandKind.TRANSFER, one, "world", "ann", one) for one in transfers))
    execute(replica, command(CommandKind.HOLD, 600, "ann", "bob", 50, timeout_ms=86_400_000))
    execute(replica, command(CommandKind.HOLD, 601, "ann", "bob", 60))
    for number, secret in enumerate(("s", "t")):
        text = f"bezant_{number:012d}_{secret * 43}"
        scopes = [Scope.ADMIN] if number == 0 else [Scope.READ]
        change_tokens(replica, TokenChange(Token(f"{number:012d}", digest_of(text), scopes)), has_other=False)
    change_tokens(replica, TokenChange(revoked="000000000001"), has_other=False)
    write_act(replica, "000000000000", "CHANGE_MEMBERS", "remove node 3", "there is none")
    ann = account_id("ann", "EUR")
    for content in (b'{"name": "Ann"}', b'{"name": "Anne"}'):
        set_metadata(replica, SetMetadata(SubjectKind.ACCOUNT, ann, content), bytes(range(SALT_SIZE)))
    replica.write_group()
    close(replica)
    checkpoint(folder)
    replica = open_replica(folder, settings=SMALL, clock_ns=lambda: START_NS)
    execute(replica, command(CommandKind.TRANSFER, 700, "ann", "bob", 5))
    replica.write_group()
    told = {
        "digest": replica.ledger.digest(),
        "entries": replica.log.last_index,
        "balances": [int(replica.ledger.lookup_accounts(ids_of(name))["balance"][0]) for name in NAMES],
        "start_index": replica.start_index,
    }
    close(replica)
    return told


def execute(replica: Replica, *commands: Records) -> None:
    """Execute them, all of which must be done."""
    results = replica.execute(np.concatenate(commands)).results
    if results["code"].any():
        raise SystemExit(f"not done: {results['code']}")


def opening(number: int, name: str) -> Records:
    """An OPEN, which has the name in the place of what others have for ids."""
    limit = 1 << 40 if name == "world" else 0
    made = command(CommandKind.OPEN, number, name, amount=limit, currency=currency_word("EUR"))
    raw = bytearray(made.tobytes())
    raw[32:80] = name.encode().ljust(48, b"\0")
    return np.frombuffer(bytes(raw), COMMAND)


def ids_of(name: str) -> Any:
    """Its id, of shape (1, 2)."""
    return np.array([id_words(account_id(name, "EUR"))], np.int64)


def close(replica: Replica) -> None:
    """As the member of a group of one does."""
    replica.log.commit_index = replica.log.last_index
    replica.close()


def checkpoint(folder: Path) -> None:
    """Have a checkpoint behind all that there is."""
    checkpoints = CheckpointFolder(shard_directory(folder, 0))
    ledger = restore_ledger(checkpoints, SMALL.ledger_settings, None, shard=0, filter_bytes_max=1 << 20)
    log = open_log(shard_directory(folder, 0), shard=0, segment_size=SMALL.segment_size, free_space_floor=0)
    checkpointer = Checkpointer(ledger, log, checkpoints, shard=0, filter_bytes_max=1 << 20, free_space_floor=0)
    for entry in log.walk():
        checkpointer.take_in(entry)
    checkpointer.write()
    log.close()


if __name__ == "__main__":
    print(json.dumps(write(Path(sys.argv[1]))))
