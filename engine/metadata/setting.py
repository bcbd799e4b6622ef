"""The leader's part: what is asked, checked, and made an entry of."""

from bezant.engine.metadata.applying import has_subject
from bezant.engine.replica import Replica
from bezant.protocol.errors import StorageError, UsageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.metadata import (
    METADATA_SUBJECTS_MAX,
    SetMetadata,
    blob_content,
    check_content,
    check_subject,
    encode_blob,
)
from bezant.protocol.records import ENTRIES_METADATA


def set_metadata(replica: Replica, asked: SetMetadata, salt: bytes) -> int:
    """Set or erase metadata; returns the version that the subject has then, which must not be told before the log is
    committed: 0 if there was nothing to erase. `salt`: SALT_SIZE random bytes.

    What the subject has already is not set again. Raises `RemoteProtocolError`, `UsageError`, `StorageError`.
    """
    check_subject(asked.subject_kind, asked.subject)
    if asked.content:
        check_content(asked.content)
    if asked.log_id and asked.log_id != replica.log.public_id:
        raise UsageError(f"the position is one of log {asked.log_id}, and this is log {replica.log.public_id}")
    replica.check_ready(ENTRIES_METADATA)
    ledger = replica.ledger
    if not has_subject(ledger, replica.shard, asked.subject_kind, asked.subject):
        raise UsageError("there is no such account or event that could have metadata")
    known = ledger.metadata.index_of(asked.subject_kind, asked.subject)
    if known and asked.content and blob_content(_body_of(replica, known)) == asked.content:
        return known
    if not known:
        if not asked.content:
            return 0
        if len(ledger.metadata) >= METADATA_SUBJECTS_MAX:
            raise UsageError(f"{METADATA_SUBJECTS_MAX} accounts and events have metadata, and no more can: erase some")
    body = encode_blob(asked.subject_kind, asked.subject, known, asked.content, salt)
    if not replica.log.has_room(len(body)):
        raise StorageError("the disk is at its free-space floor; no metadata can be set or erased now")
    return replica.append_blob(body)


def _body_of(replica: Replica, index: int) -> bytes:
    entry = replica.log.read_entry(index)
    if entry.header.kind != EntryKind.BLOB:
        raise UsageError(f"entry {index} has no metadata")
    return bytes(entry.body)
