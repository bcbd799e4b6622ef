"""Metadata of accounts and events: what is asked and answered, and how it lies in an entry of kind BLOB.

The body of such an entry has two parts. Its head says whose metadata it is and has a salted digest of it; checksum and
chain hash of the entry cover the head alone. What follows is kept beside the history, not in it: a state of one byte,
the salt, and the content. To erase is to set the state, and then to overwrite the rest: the history stays as it was.

    0 subject_kind int32 · 4 content_size int32 · 8 subject, 16 bytes · 24 previous_index int64 · 32 digest, 32 bytes
    64 state, 1 byte · 65 salt, 16 bytes · 81 content, content_size bytes

An entry with content_size 0 ends with its head: it erases what the subject had. ``METADATA.md`` has the promises.
"""

import struct
from enum import IntEnum, unique
from typing import Final, NamedTuple

import blake3
import msgspec
from typing_extensions import Buffer

from bezant.protocol.errors import RemoteProtocolError, UsageError

METADATA_SIZE_MAX: Final = 1024
"""Bytes of the metadata of one subject, as JSON in UTF-8."""
METADATA_SUBJECTS_MAX: Final = 1 << 20
"""Subjects of one shard that have metadata at a time."""
SALT_SIZE: Final = 16
SUBJECT_SIZE: Final = 16
BLOB_STATE_INTACT: Final = 1
BLOB_STATE_ERASED: Final = 0xFF
"""Also the value of every erased byte. No write that was cut short leaves it: such leaves zeros, and JSON has none."""

_HEAD: Final = struct.Struct("<ii16sq32s")
BLOB_HEAD_SIZE: Final = _HEAD.size
BLOB_STATE_AT: Final = BLOB_HEAD_SIZE
_SALT_AT: Final = BLOB_STATE_AT + 1
_CONTENT_AT: Final = _SALT_AT + SALT_SIZE
_NO_DIGEST: Final = bytes(32)
_DIGEST_CONTEXT: Final = "bezant: metadata of a subject"
_POSITION: Final = struct.Struct("<q8x")

if BLOB_HEAD_SIZE != 64 or _POSITION.size != SUBJECT_SIZE:
    raise AssertionError("the layout of a blob is not the one that is described")


@unique
class SubjectKind(IntEnum):
    """What has metadata."""

    ACCOUNT = 1
    EVENT = 2


class SetMetadata(msgspec.Struct, frozen=True):
    """Has the leader set the metadata of an account or an event, or erase it, with an empty ``content``.

    ``subject``: 16 bytes, the id of the account, or the position of the event (int64) and zeros. ``log_id``: the log
    that the position is of, as in `Welcome`; "" if that is not known.
    """

    subject_kind: int
    subject: bytes
    content: bytes = b""
    log_id: str = ""


class MetadataSet(msgspec.Struct, frozen=True):
    """The reply: ``version`` is higher for whatever is set later; 0 if there was nothing to erase."""

    version: int


class GetMetadata(msgspec.Struct, frozen=True):
    """Asks a reader for the metadata of a subject, once it has come to version ``wait_for``."""

    subject_kind: int
    subject: bytes
    wait_for: int = 0
    log_id: str = ""


class Metadata(msgspec.Struct, frozen=True):
    """The reply: the content and its version; both empty if there is none, or none any more."""

    version: int = 0
    content: bytes = b""


class Blob(NamedTuple):
    """The head of a blob. ``previous_index``: the entry that it supersedes, 0 if none."""

    subject_kind: int
    content_size: int
    subject: bytes
    previous_index: int
    digest: bytes

    @property
    def is_erasure(self) -> bool:
        """Whether the subject has no metadata from here on."""
        return self.content_size == 0


def subject_of_position(position: int) -> bytes:
    """The subject that an event is, by its position."""
    return _POSITION.pack(position)


def position_of_subject(subject: bytes) -> int:
    """The position of an event that is a subject. Raises `RemoteProtocolError` if it is none."""
    position = int(_POSITION.unpack(subject)[0])
    if subject_of_position(position) != subject:
        raise RemoteProtocolError("an event that has metadata is named by its position, and eight bytes of zeros")
    return position


def check_subject(subject_kind: int, subject: bytes) -> None:
    """Raise `RemoteProtocolError` unless this names something that can have metadata."""
    if subject_kind not in (SubjectKind.ACCOUNT, SubjectKind.EVENT):
        raise RemoteProtocolError(f"nothing that has metadata is of kind {subject_kind}")
    if len(subject) != SUBJECT_SIZE:
        raise RemoteProtocolError(f"a subject has {SUBJECT_SIZE} bytes, not {len(subject)}")
    if subject_kind == SubjectKind.EVENT:
        position_of_subject(subject)


def check_content(content: bytes) -> None:
    """Raise `UsageError` unless content is a JSON object, in UTF-8, of METADATA_SIZE_MAX bytes at most."""
    if not 0 < len(content) <= METADATA_SIZE_MAX:
        raise UsageError(f"metadata of {len(content)} bytes: it has 1 to {METADATA_SIZE_MAX}, as JSON in UTF-8")
    try:
        decoded = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"metadata is a JSON object in UTF-8: {error}") from error
    if not isinstance(decoded, dict):
        raise UsageError("metadata is a JSON object, and no other JSON")


def encode_blob(subject_kind: int, subject: bytes, previous_index: int, content: bytes, salt: bytes) -> bytes:
    """The body of an entry that sets metadata, or erases it (without content; the salt then does not matter)."""
    if not content:
        return _HEAD.pack(subject_kind, 0, subject, previous_index, _NO_DIGEST)
    if len(salt) != SALT_SIZE:
        raise UsageError(f"a salt has {SALT_SIZE} bytes, not {len(salt)}")
    digest = _digest_of(subject_kind, subject, salt, content)
    head = _HEAD.pack(subject_kind, len(content), subject, previous_index, digest)
    return b"".join((head, bytes((BLOB_STATE_INTACT,)), salt, content))


def decode_blob(body: Buffer) -> Blob:
    """The head of a blob. Raises `RemoteProtocolError` for what cannot be one; what it says may still make no sense."""
    view = memoryview(body)
    if not _has_right_size(view):
        raise RemoteProtocolError(f"{len(view)} bytes are not metadata of a subject")
    blob = Blob(*_HEAD.unpack_from(view))
    check_subject(blob.subject_kind, blob.subject)
    return blob


def blob_head(body: Buffer) -> memoryview:
    """The part of a blob that is in the history for ever."""
    return memoryview(body)[:BLOB_HEAD_SIZE]


def blob_is_whole(body: Buffer) -> bool:
    """Whether what follows the head of a blob is what it must be: what the digest is of, or erased.

    The head itself is for the checksum of its entry. Another process may be erasing it meanwhile, the state first: so
    that is looked at again when the digest is wrong.
    """
    view = memoryview(body)
    if not _has_right_size(view):
        return False
    return len(view) == BLOB_HEAD_SIZE or blob_is_erased(view) or _has_digest(view) or blob_is_erased(view)


def blob_is_erased(body: Buffer) -> bool:
    """Whether what a blob had is erased; the bytes of it may be just being overwritten."""
    return memoryview(body)[BLOB_STATE_AT] == BLOB_STATE_ERASED


def blob_content(body: bytes) -> bytes | None:
    """The content of a blob that is whole (a copy, which nobody changes meanwhile); None if it is erased.

    Raises `RemoteProtocolError` if it is neither.
    """
    if not _has_right_size(memoryview(body)):
        raise RemoteProtocolError(f"{len(body)} bytes are not metadata of a subject")
    if len(body) == BLOB_HEAD_SIZE or blob_is_erased(body):
        return None
    if not _has_digest(memoryview(body)):
        raise RemoteProtocolError("metadata that is neither what its digest is of, nor erased")
    return body[_CONTENT_AT:]


def _has_right_size(view: memoryview) -> bool:
    if len(view) < BLOB_HEAD_SIZE:
        return False
    head = Blob(*_HEAD.unpack_from(view))
    if head.is_erasure:
        return len(view) == BLOB_HEAD_SIZE and head.digest == _NO_DIGEST
    return 0 < head.content_size <= METADATA_SIZE_MAX and len(view) == _CONTENT_AT + head.content_size


def _has_digest(view: memoryview) -> bool:
    head = Blob(*_HEAD.unpack_from(view))
    salt, content = bytes(view[_SALT_AT:_CONTENT_AT]), bytes(view[_CONTENT_AT:])
    is_intact = view[BLOB_STATE_AT] == BLOB_STATE_INTACT
    return is_intact and _digest_of(head.subject_kind, head.subject, salt, content) == head.digest


def _digest_of(subject_kind: int, subject: bytes, salt: bytes, content: bytes) -> bytes:
    """BLAKE3, keyed for this use alone, of the salt, whose metadata it is, and the content."""
    hashed = b"".join((salt, subject_kind.to_bytes(4, "little"), subject, content))
    return blake3.blake3(hashed, derive_key_context=_DIGEST_CONTEXT).digest()
