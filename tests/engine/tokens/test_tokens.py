"""Claim: tokens are a part of the history, the same on every member, after a restart, in a checkpoint and when the
history is verified; nobody is locked out; and nothing is done before every voter knows such entries."""

from pathlib import Path

import msgspec
import pytest

from bezant.engine.checkpoints.checkpointer import Checkpointer, restore_ledger
from bezant.engine.checkpoints.folder import CheckpointFolder
from bezant.engine.log.log import open_log
from bezant.engine.replica import Replica, ReplicaSettings, open_replica, shard_directory
from bezant.engine.tokens import table
from bezant.engine.tokens.acts import ACT_TEXT_SIZE_MAX, write_act
from bezant.engine.tokens.audit import read_acts
from bezant.engine.tokens.changing import change_tokens, list_tokens
from bezant.engine.verify import verify
from bezant.net.access.guard import Guard
from bezant.protocol.access import Scope, Token, TokenChange, digest_of
from bezant.protocol.errors import UsageError
from bezant.protocol.messages import decode_control_entry
from bezant.protocol.records import ENTRIES_FORGOTTEN, ENTRIES_TOKENS

from ..commands import opening_world, transfers
from ..conftest import Clock
from ..group import MemberGroup


def token(number: int, *scopes: Scope, **fields: object) -> Token:
    text = f"bezant_{number:012d}_{'s' * 43}"
    made = Token(f"{number:012d}", digest_of(text), list(scopes) or [Scope.ADMIN])
    return msgspec.structs.replace(made, **fields)


def created(replica: Replica, one: Token, *, has_other: bool = False) -> None:
    change_tokens(replica, TokenChange(one), has_other=has_other)


def revoked(replica: Replica, token_id: str, *, has_other: bool = False) -> None:
    change_tokens(replica, TokenChange(revoked=token_id), has_other=has_other)


@pytest.fixture
def replica(tmp_path: Path, small: ReplicaSettings, clock: Clock) -> Replica:
    replica = open_replica(tmp_path, settings=small, clock_ns=clock)
    replica.execute(opening_world("ann"))
    return replica


def test_a_token_is_there_when_it_was_made_and_counts_no_more_when_it_was_revoked(
    replica: Replica, tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    before = replica.ledger.digest()
    created(replica, token(1))
    made_ns = replica.log.last_timestamp_ns
    created(replica, token(2, Scope.READ, prefixes=["shop:"], note="the shop"))
    revoked(replica, token(2).token_id)
    assert [(known.created_ns, known.revoked_ns) for known in replica.ledger.tokens.records] == [
        (made_ns, 0),
        (made_ns + 1, made_ns + 2),
    ]
    assert replica.ledger.digest() != before
    assert {known.digest for known in list_tokens(replica).tokens} == {b""}
    records, digest, last_index = replica.ledger.tokens.records, replica.ledger.digest(), replica.log.last_index
    replica.write_group()
    replica.close()
    again = open_replica(tmp_path, settings=small, clock_ns=clock)
    assert (again.ledger.tokens.records, again.ledger.digest()) == (records, digest)
    again.close()
    assert verify(tmp_path).entries == last_index


def test_a_checkpoint_has_them(replica: Replica, tmp_path: Path, small: ReplicaSettings, clock: Clock) -> None:
    created(replica, token(1))
    replica.execute(transfers("world", "ann", 5))
    replica.write_group()
    records, digest = replica.ledger.tokens.records, replica.ledger.digest()
    replica.close()
    folder = CheckpointFolder(shard_directory(tmp_path, 0))
    restored = restore_ledger(folder, small.ledger_settings, None, shard=0, filter_bytes_max=1 << 20)
    log = open_log(shard_directory(tmp_path, 0), shard=0, segment_size=small.segment_size, free_space_floor=0)
    checkpointer = Checkpointer(restored, log, folder, shard=0, filter_bytes_max=1 << 20, free_space_floor=0)
    for entry in log.walk():
        checkpointer.take_in(entry)
    manifest = checkpointer.write()
    log.close()
    assert (manifest.tokens, manifest.state_digest) == (records, digest)
    again = open_replica(tmp_path, settings=small, clock_ns=clock)
    assert (again.start_index, again.ledger.tokens.records) == (manifest.point.index, records)
    again.close()


def test_what_is_done_already_is_done_again_and_leaves_no_entry(replica: Replica) -> None:
    created(replica, token(1))
    created(replica, token(2))
    revoked(replica, token(2).token_id)
    last_index = replica.log.last_index
    created(replica, token(1))
    revoked(replica, token(2).token_id)
    assert replica.log.last_index == last_index


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (TokenChange(), "creates one or revokes one"),
        (TokenChange(token(3), "x"), "creates one or revokes one"),
        (TokenChange(revoked="nobody"), "no token"),
        (TokenChange(token(1, Scope.READ)), "another token"),
        (TokenChange(token(2)), "another token"),  # revoked: it does not come back
        (TokenChange(token(3, created_ns=1)), "the log says"),
        (TokenChange(token(3, scopes=[])), "scopes"),
    ],
)
def test_what_cannot_be_is_refused_and_leaves_nothing(replica: Replica, change: TokenChange, why: str) -> None:
    created(replica, token(1))
    created(replica, token(2))
    revoked(replica, token(2).token_id)
    last_index, records = replica.log.last_index, replica.ledger.tokens.records
    with pytest.raises(UsageError, match=why):
        change_tokens(replica, change, has_other=False)
    assert (replica.log.last_index, replica.ledger.tokens.records) == (last_index, records)


def test_nobody_is_locked_out(replica: Replica) -> None:
    with pytest.raises(UsageError, match="the first token has the scope admin"):
        created(replica, token(1, Scope.READ))
    created(replica, token(1))
    with pytest.raises(UsageError, match="the last token with the scope admin"):
        revoked(replica, token(1).token_id)
    created(replica, token(2, Scope.TRANSFER))
    with pytest.raises(UsageError, match="the last token with the scope admin"):
        revoked(replica, token(1).token_id)
    created(replica, token(3))
    revoked(replica, token(1).token_id)
    revoked(replica, token(3).token_id, has_other=True)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ledger has no more tokens than this."""
    monkeypatch.setattr(table, "TOKENS_MAX", 3)
    return 3


def test_a_ledger_has_so_many_that_count(replica: Replica, few: int) -> None:
    for number in range(few):
        created(replica, token(number))
    last_index = replica.log.last_index
    with pytest.raises(UsageError, match="tokens at most"):
        created(replica, token(few))
    assert replica.log.last_index == last_index


def test_those_that_were_revoked_make_room_and_never_come_back(
    replica: Replica, few: int, tmp_path: Path, small: ReplicaSettings, clock: Clock
) -> None:
    created(replica, token(0))
    for number in range(1, 30):  # more than are known at a time, ten times over
        created(replica, token(number))
        revoked(replica, token(number).token_id)
    known = replica.ledger.tokens.records
    assert [one.token_id for one in known] == [token(number).token_id for number in (0, 28, 29)]
    assert len(replica.ledger.tokens.forgotten) == 8 * 27

    def check(there: Replica) -> None:
        guard = Guard(there.ledger.tokens)
        for number in range(1, 30):
            text = f"bezant_{number:012d}_{'s' * 43}"
            assert guard.admit(text) is None
            assert not guard.counts(token(number).principal)
            last_index = there.log.last_index
            with pytest.raises(UsageError, match="there was"):
                created(there, token(number))
            assert there.log.last_index == last_index
        assert guard.admit(f"bezant_{0:012d}_{'s' * 43}") is not None

    check(replica)
    digest, last_index = replica.ledger.digest(), replica.log.last_index
    replica.write_group()
    replica.close()
    again = open_replica(tmp_path, settings=small, clock_ns=clock)
    assert (again.ledger.tokens.records, again.ledger.digest()) == (known, digest)
    check(again)
    again.close()
    assert verify(tmp_path).entries == last_index
    folder = CheckpointFolder(shard_directory(tmp_path, 0))
    restored = restore_ledger(folder, small.ledger_settings, None, shard=0, filter_bytes_max=1 << 20)
    log = open_log(shard_directory(tmp_path, 0), shard=0, segment_size=small.segment_size, free_space_floor=0)
    checkpointer = Checkpointer(restored, log, folder, shard=0, filter_bytes_max=1 << 20, free_space_floor=0)
    for entry in log.walk():
        checkpointer.take_in(entry)
    checkpointer.write()
    log.close()
    by_checkpoint = open_replica(tmp_path, settings=small, clock_ns=clock)
    assert (by_checkpoint.start_index, by_checkpoint.ledger.digest()) == (last_index, digest)
    check(by_checkpoint)
    by_checkpoint.log.commit_index = last_index  # as the member of a group of one says
    by_checkpoint.close()
    lines = [line for line in read_acts(tmp_path, 0) if line.operation == "TOKENS_FORGOTTEN"]
    assert [line.what for line in lines] == [token(number).token_id for number in range(1, 28)]


def test_none_is_forgotten_before_every_voter_knows_that(replica: Replica, few: int) -> None:
    for number in range(few):
        created(replica, token(number))
    revoked(replica, token(2).token_id)
    asked: list[int] = []

    def unready(version: int) -> str:
        asked.append(version)
        return "node 2 is of a version that does not know this" if version == ENTRIES_FORGOTTEN else ""

    replica.find_unready = unready
    with pytest.raises(UsageError, match="node 2"):
        created(replica, token(few))
    assert asked == [ENTRIES_FORGOTTEN]
    assert len(replica.ledger.tokens.records) == few


def test_who_counts_is_forgotten_by_no_entry(replica: Replica, few: int) -> None:
    for number in range(few):
        created(replica, token(number))
    tokens = replica.ledger.tokens
    for wrong in (TokenChange(token(7), forgotten=[token(1).token_id]), TokenChange(token(7), forgotten=["nobody"])):
        with pytest.raises(UsageError, match="only tokens that were revoked"):
            tokens.apply(wrong, 1)
    revoked(replica, token(1).token_id)
    twice = TokenChange(token(7), forgotten=[token(1).token_id] * 2)
    with pytest.raises(UsageError, match="only tokens that were revoked"):
        tokens.apply(twice, 1)
    with pytest.raises(UsageError, match="to make room"):
        tokens.apply(TokenChange(revoked=token(2).token_id, forgotten=[token(1).token_id]), 1)


def test_who_asked_is_told_at_once(replica: Replica) -> None:
    told: list[int] = []
    replica.ledger.tokens.on_changed = lambda: told.append(len(replica.ledger.tokens))
    created(replica, token(1))
    created(replica, token(2))
    revoked(replica, token(2).token_id)
    assert told == [1, 2, 2]


def test_every_member_has_them(led: MemberGroup) -> None:
    leader = led.members[1]
    created(leader.replica, token(1))
    write_act(leader.replica, token(1).token_id, "CHANGE_MEMBERS", "remove node 3")
    leader.note_appended()
    led.run(10)
    records = leader.replica.ledger.tokens.records
    assert len(records) == 1
    assert all(member.replica.ledger.tokens.records == records for member in led.members.values())
    assert len({member.replica.ledger.digest() for member in led.members.values()}) == 1


def test_nothing_is_written_that_a_voter_does_not_know(replica: Replica) -> None:
    asked: list[int] = []

    def unready(version: int) -> str:
        asked.append(version)
        return "node 2 is of a version that does not know this"

    replica.find_unready = unready
    last_index = replica.log.last_index
    with pytest.raises(UsageError, match="node 2"):
        created(replica, token(1))
    with pytest.raises(UsageError, match="node 2"):
        write_act(replica, "cluster", "CHANGE_MEMBERS", "remove node 3")
    assert (asked, replica.log.last_index) == ([ENTRIES_TOKENS, ENTRIES_TOKENS], last_index)


@pytest.mark.parametrize("text", ["\x1b[2K", "\r", "\x9b31m", "\u202e", "\x00"])
def test_no_act_has_what_moves_the_cursor_of_a_terminal(replica: Replica, text: str) -> None:
    write_act(replica, "cluster", "CHANGE_MEMBERS", f"remove{text}", text * ACT_TEXT_SIZE_MAX)
    act = decode_control_entry(replica.log.read_entry(replica.log.last_index).body).act
    assert act is not None
    assert (act.what + act.outcome).isprintable()
    assert act.what == "remove" + text.encode("unicode_escape").decode()
    assert len(act.outcome) == ACT_TEXT_SIZE_MAX


def test_acts_change_nothing_and_can_be_read_again(replica: Replica, tmp_path: Path) -> None:
    created(replica, token(1, note="the operator"))
    write_act(replica, token(1).token_id, "CHANGE_MEMBERS", "remove node 3")
    asked_ns = replica.log.last_timestamp_ns
    write_act(replica, token(1).token_id, "CHANGE_MEMBERS", "x" * 9_999, "there is no node 3")
    revoked(replica, token(1).token_id, has_other=True)
    replica.write_group()
    last_index = replica.log.commit_index = replica.log.last_index  # as the member of a group of one says
    replica.close()
    lines = list(read_acts(tmp_path, 0))
    assert [(line.token_id, line.operation) for line in lines] == [
        ("", "LOG_CREATED"),
        ("", "TOKEN_CREATED"),
        (token(1).token_id, "CHANGE_MEMBERS"),
        (token(1).token_id, "CHANGE_MEMBERS"),
        ("", "TOKEN_REVOKED"),
    ]
    assert (lines[2].timestamp_ns, lines[2].what, lines[2].outcome) == (asked_ns, "remove node 3", "")
    assert (lines[3].what, lines[3].outcome) == ("x" * ACT_TEXT_SIZE_MAX, "there is no node 3")
    assert "the operator" in lines[1].what
    assert [line.index for line in lines] == sorted(line.index for line in lines)
    assert [line.index for line in read_acts(tmp_path, lines[2].index)] == [lines[3].index, lines[4].index]
    assert verify(tmp_path).entries == last_index
