"""Times and positions as they stand in addresses: what a question is as of, a range, and the cursor of a next page.

A cursor is opaque. It has what all pages are as of, and the time of the first event that the next one has: no two
events of a shard have the same.
"""

import base64
import binascii
import re
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeVar

import msgspec
from litestar.di import NamedDependency
from litestar.params import QueryParameter, SkipValidation

from bezant.net.client.history import AsOf, time_ns
from bezant.net.gateway.problems import GatewayProblem, ProblemRaised, refusal

_TIME: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})"
)
_POSITION: Final = re.compile(r"-?[0-9]{1,20}")
_CURSOR_SIZE_MAX: Final = 200
_NS_DIGITS: Final = 9
_Kind = TypeVar("_Kind", "Cursor", "HoldsCursor", "ListCursor")
_INT64: Final = range(-(1 << 63), 1 << 63)

TimeText = Annotated[
    str, msgspec.Meta(max_length=40, description="RFC 3339, with up to nine digits.", examples=["2026-05-01T12:00:00Z"])
]
PositionText = Annotated[
    str, msgspec.Meta(max_length=20, description="A position, as answers have it.", examples=["42"])
]


class Moment(msgspec.Struct, frozen=True):
    """What a question is as of, a time in nanoseconds or a position; neither is now.

    ``wait_for``: a position that must have been taken in first.
    """

    at: int | None = None
    position: int | None = None
    wait_for: int = 0

    @property
    def is_now(self) -> bool:
        """Whether nothing was said."""
        return self.at is None and self.position is None

    def arguments(self) -> dict[str, Any]:
        """The same, as arguments of the methods of `History`."""
        return {"at": self.at, "position": self.position, "wait_for": self.wait_for}


class Range(msgspec.Struct, frozen=True):
    """Which events, and in which order: from a time on, up to before another; and so many on a page."""

    start: int | None
    end: int | None
    reverse: bool
    limit: int
    cursor: str | None


class Cursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where the next page begins; see the module."""

    at: int | None
    position: int | None
    bound_ns: int
    reverse: bool


class HoldsCursor(msgspec.Struct, frozen=True, array_like=True, tag="holds", forbid_unknown_fields=True):
    """Where the next page of holds begins: as of this position, behind the hold made at the other."""

    position: int
    after: int


class ListCursor(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Where the next page of a list of all shards begins: in which of them, and behind how many."""

    part: int
    skip: int


def read_time(text: str) -> int:
    """Nanoseconds since 1970 of a time. Raises `ProblemRaised`."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise _wrong(f"a time is written like 2026-05-01T12:00:00.5Z, not {text!r}")
    try:
        moment = datetime.fromisoformat(match[1] + match[3]).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise _wrong(f"{text!r} is no time: {error}") from error
    whole_ns = time_ns(moment) or 0
    found = whole_ns + int((match[2] or ".0")[1:].ljust(_NS_DIGITS, "0"))
    if found not in _INT64:
        raise _wrong(f"{text!r} is too far away")
    return found


def read_position(text: str) -> int:
    """A position. Raises `ProblemRaised`."""
    if not _POSITION.fullmatch(text) or int(text) not in _INT64:
        raise _wrong(f"a position is what answers have as such, not {text!r}")
    return int(text)


def write_cursor(cursor: Cursor | HoldsCursor | ListCursor) -> str:
    """A cursor as it is told."""
    return base64.urlsafe_b64encode(msgspec.msgpack.encode(cursor)).rstrip(b"=").decode()


def read_cursor(text: str, kind: type[_Kind]) -> _Kind:
    """A cursor of this kind. Raises `ProblemRaised` for what is none."""
    try:
        padded = text + "=" * (-len(text) % 4)
        return msgspec.msgpack.decode(base64.b64decode(padded, b"-_", validate=True), type=kind)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise _wrong("that is no cursor: give the `next` of the page before, of the same question") from error


def next_cursor(as_of: AsOf | None, bound_ns: int, *, reverse: bool) -> str | None:
    """The cursor of a page that follows one as of this."""
    if as_of is None:
        return None
    at = None if as_of.position else as_of.timestamp_ns
    return write_cursor(Cursor(at, as_of.position or None, bound_ns, reverse))


def _wrong(told: str) -> ProblemRaised:
    return refusal(GatewayProblem.REQUEST_INVALID, told)


def make_moment(
    at: Annotated[TimeText | None, QueryParameter(required=False)] = None,
    position: Annotated[PositionText | None, QueryParameter(required=False)] = None,
    wait_for: Annotated[
        PositionText | None,
        QueryParameter(
            required=False, description="A position, as of a transfer, that the answer must take into account."
        ),
    ] = None,
) -> Moment:
    """What routes get as ``moment``."""
    if at is not None and position is not None:
        raise _wrong("a question is as of a time or of a position")
    return Moment(
        None if at is None else read_time(at),
        None if position is None else read_position(position),
        0 if wait_for is None else read_position(wait_for),
    )


AnyCursor = Annotated[
    str | None,
    QueryParameter(max_length=_CURSOR_SIZE_MAX, required=False, description="`next` of the page before."),
]


def make_range(
    start: Annotated[TimeText | None, QueryParameter(name="from", required=False)] = None,
    end: Annotated[TimeText | None, QueryParameter(name="to", required=False)] = None,
    reverse: Annotated[bool, QueryParameter(required=False, description="Newest first.")] = False,
    limit: Annotated[int, QueryParameter(ge=1, le=1000, required=False, description="Events on one page.")] = 100,
    cursor: AnyCursor = None,
) -> Range:
    """What routes get as ``pages``."""
    return Range(
        None if start is None else read_time(start), None if end is None else read_time(end), reverse, limit, cursor
    )


AnyMoment = NamedDependency[SkipValidation[Moment]]
AnyRange = NamedDependency[SkipValidation[Range]]
