"""What was administered, read out of a log: acts with who asked, and the entries that changed what is not money.

The whole log is walked and verified on the way, so that what is told is what was written. The node of the folder may
run meanwhile.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bezant.engine.following import open_follower
from bezant.engine.log.entry import Entry
from bezant.engine.node_file import shard_of_folder
from bezant.engine.replay import read_configuration
from bezant.engine.replica import shard_directory
from bezant.protocol.access import Token
from bezant.protocol.errors import CorruptLog, RemoteProtocolError, StorageError
from bezant.protocol.kinds import EntryKind
from bezant.protocol.messages import Configuration, ControlEntry, decode_control_entry


class AuditLine(NamedTuple):
    """One thing that was asked for, or that came of it. `token_id` is "" where the entry says what came to be: who
    asked for that stands in the line before, if whoever it was had a token."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    term: int
    timestamp_ns: int
    token_id: str
    operation: str
    what: str
    outcome: str = ""


def read_acts(data_directory: Path, after_index: int = 0) -> Iterator[AuditLine]:
    """What was administered behind an entry (0: ever), as far as it is committed. Raises `StorageError`, its kinds."""
    shard = shard_of_folder(data_directory)
    follower = open_follower(shard_directory(data_directory, shard), shard)
    if follower is None:
        raise StorageError(f"there is no ledger at {data_directory}")
    try:
        follower.begin()
        while entries := follower.take():
            for entry in entries:
                if entry.header.index > after_index:
                    yield from _lines_of(entry)
    finally:
        follower.close()


def _lines_of(entry: Entry) -> Iterator[AuditLine]:
    header = entry.header
    if header.kind == EntryKind.CONFIGURATION:
        told = [("MEMBERS_CHANGED", "", _configuration_text(read_configuration(entry)), "")]
    elif header.kind == EntryKind.CONTROL:
        try:
            told = list(_told(decode_control_entry(entry.body)))
        except RemoteProtocolError as error:
            raise CorruptLog(f"control entry {header.index} cannot be read: {error}") from error
    else:
        return
    for operation, token_id, what, outcome in told:
        yield AuditLine(header.index, header.term, header.timestamp_ns, token_id, operation, what, outcome)


def _told(control: ControlEntry) -> Iterator[tuple[str, str, str, str]]:
    """Operation, token id, what and outcome of all that a control entry says."""
    if control.act is not None:
        yield control.act.operation, control.act.token_id, control.act.what, control.act.outcome
    if control.token is not None and control.token.created is not None:
        yield "TOKEN_CREATED", "", token_summary(control.token.created), ""
    if control.token is not None and control.token.revoked:
        yield "TOKEN_REVOKED", "", control.token.revoked, ""
    if control.token is not None and control.token.forgotten:
        yield "TOKENS_FORGOTTEN", "", ", ".join(control.token.forgotten), ""
    if control.created_by:
        yield "LOG_CREATED", "", control.created_by, ""
    elif control.currencies:
        added = ", ".join(f"{known.code} with {known.decimals} decimals" for known in control.currencies)
        yield "CURRENCY_REGISTERED", "", added, ""
    if control.rules_version and not control.created_by:
        yield "RULES_SWITCHED", "", f"to {control.rules_version}", ""
    if control.slot_map is not None:
        shards = ", ".join(str(place.shard) for place in control.slot_map.shards)
        yield "MAP_REPLACED", "", f"version {control.slot_map.version}: shards {shards}", ""
    if control.move is not None:
        yield "SLOTS_MOVED", "", repr(control.move)[:_MOVE_TEXT_MAX], ""


_MOVE_TEXT_MAX = 200


def token_summary(token: Token) -> str:
    """A token in words, without its digest."""
    limited = f", limited to {', '.join(f'{prefix}*' for prefix in token.prefixes)}" if token.prefixes else ""
    note = f": {token.note}" if token.note else ""
    return f"{token.token_id} ({', '.join(token.scopes)}{limited}){note}"


def _configuration_text(configuration: Configuration | None) -> str:
    if configuration is None:
        return ""
    joint = f", leaving {configuration.voters_outgoing}" if configuration.voters_outgoing else ""
    learning = f", learners {configuration.learners}" if configuration.learners else ""
    return f"voters {configuration.voters}{joint}{learning}"
