"""Metadata of accounts and events: set and erased at the leader, read from a reader. See ``METADATA.md``."""

from collections.abc import Mapping
from typing import Any

import msgspec

from bezant.net.client.commands import cached_account_id
from bezant.net.client.readers import ReaderChannel
from bezant.net.client.results import Event, Result
from bezant.net.client.sharding_readers import Readers
from bezant.protocol.errors import RemoteProtocolError, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.messages import decode_message, encode_message
from bezant.protocol.metadata import (
    GetMetadata,
    Metadata,
    MetadataSet,
    SetMetadata,
    SubjectKind,
    check_content,
    position_of_subject,
    subject_of_position,
)
from bezant.protocol.records import POSITION_NONE

Subject = tuple[str, str] | Result | Event | int
"""An account, by its name and currency; or an event, by what has its position, or by that."""


class MetadataClient:
    """See the module. Its methods are those of `Wallet`."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers
        self._versions: dict[str, int] = {}
        """The last that was set in each log."""

    async def set(self, subject: Subject, content: Mapping[str, Any], timeout_s: float) -> int:
        """Set it; returns its version."""
        return await self._set(subject, _encode(content), timeout_s)

    async def erase(self, subject: Subject, timeout_s: float) -> int:
        """Erase it; returns the version of that, 0 if there was none."""
        return await self._set(subject, b"", timeout_s)

    async def _set(self, subject: Subject, content: bytes, timeout_s: float) -> int:
        kind, encoded = _subject_of(subject)
        reader, log_id = await self._reader_of(kind, encoded)
        asked = encode_message(SetMetadata(kind, encoded, content, log_id))
        reply = await reader.channel.request(Operation.SET_METADATA, asked, timeout_s)
        version = decode_message(reply, MetadataSet).version
        self._versions[log_id] = max(self._versions.get(log_id, 0), version)
        return version

    async def _reader_of(self, kind: int, subject: bytes) -> tuple[ReaderChannel, str]:
        """The reader of the shard that a subject is in, and that shard's log."""
        if kind == SubjectKind.ACCOUNT:
            return await self._readers.reader_of(subject)
        return await self._readers.reader_at(position_of_subject(subject))

    async def get(self, subject: Subject, timeout_s: float) -> dict[str, Any] | None:
        """What was set last, also by this client; None if there is none."""
        kind, encoded = _subject_of(subject)
        reader, log_id = await self._reader_of(kind, encoded)
        asked = GetMetadata(kind, encoded, self._versions.get(log_id, 0), log_id)
        reply = await reader.request(Operation.GET_METADATA, encode_message(asked), timeout_s)
        found = decode_message(reply, Metadata)
        if not found.version:
            return None
        try:
            return msgspec.json.decode(found.content, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RemoteProtocolError(f"metadata that is no JSON object: {error}") from error


def _encode(content: Mapping[str, Any]) -> bytes:
    """Content as it travels. Raises `UsageError` for what is no JSON object, or too large."""
    try:
        encoded = msgspec.json.encode(dict(content))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise UsageError(f"metadata is a JSON object: {error}") from error
    check_content(encoded)
    return encoded


def _subject_of(subject: Subject) -> tuple[int, bytes]:
    """Kind and bytes of a subject. Raises `UsageError` for a command that left no event."""
    if isinstance(subject, tuple):
        return SubjectKind.ACCOUNT, cached_account_id(*subject)
    position = subject if isinstance(subject, int) else subject.position
    if position is None or position == POSITION_NONE or not -(1 << 63) <= position < 1 << 63:
        raise UsageError("an event is named by its position, of 64 bits and not 0; a command that left none has none")
    return SubjectKind.EVENT, subject_of_position(position)
