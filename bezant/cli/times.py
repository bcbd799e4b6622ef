"""Moments on the command line: ``--at`` a time or ``--position``, and how a time is written and read."""

import argparse
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from bezant.protocol.records import POSITION_NONE

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NS_PER_S: Final = 10**9
_FRACTION: Final = re.compile(r"\.(\d{1,9})\d*")


def add_moment_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--at`` and ``--position``."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--at",
        metavar="TIME",
        type=time_ns,
        help="as it was at this time: 2025-03-31, 2025-03-31T12:00, with +02:00 or Z (UTC if nothing is said), or"
        " nanoseconds since 1970. A date alone is its end",
    )
    group.add_argument("--position", metavar="P", type=position, help="as it was behind the event with this position")


def moment_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `bezant.Wallet.history` is to be asked as of."""
    return {"at": arguments.at, "position": arguments.position}


def position(text: str) -> int:
    """Read a position, which is 0 or opaque; for argparse."""
    try:
        number = int(text)
    except ValueError:
        number = 2**63
    if not -(2**63) <= number < 2**63:
        raise argparse.ArgumentTypeError(f"a position is a number as the commands print it, not {text!r}")
    return number


def time_ns(text: str) -> int:
    """Read a time in nanoseconds; a date alone is the last nanosecond of that day (UTC). For argparse."""
    return _read(text, of_day=timedelta(days=1)) - (1 if _is_date(text) else 0)


def start_ns(text: str) -> int:
    """Read a time; a date alone is its beginning. For argparse."""
    return _read(text, of_day=timedelta(0))


def end_ns(text: str) -> int:
    """Read a time up to before which something is asked for; a date alone belongs to it whole. For argparse."""
    return _read(text, of_day=timedelta(days=1))


def _is_date(text: str) -> bool:
    return re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII) is not None


def _read(text: str, of_day: timedelta) -> int:
    if text.isascii() and text.isdigit() and len(text) > 8:
        if int(text) >= 1 << 63:
            raise argparse.ArgumentTypeError(f"times lie between 1970 and 2262; {text!r} does not")
        return int(text)
    fraction = _FRACTION.search(text)
    whole = text if fraction is None else text[: fraction.start()] + text[fraction.end() :]
    try:
        time = datetime.fromisoformat(whole)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"a time is written like 2025-03-31T12:00:00Z, not {text!r}") from error
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    if _is_date(text):
        time += of_day
    since = time - _EPOCH
    part_ns = 0 if fraction is None else int(fraction[1].ljust(9, "0"))
    found_ns = (since.days * 86_400 + since.seconds) * _NS_PER_S + part_ns
    if not 0 <= found_ns < 2**63:
        raise argparse.ArgumentTypeError(f"times lie between 1970 and 2262; {text!r} does not")
    return found_ns


def time_text(timestamp_ns: int) -> str:
    """A time as it is shown: UTC, in as many digits as it has, down to nanoseconds."""
    seconds, part_ns = divmod(timestamp_ns, _NS_PER_S)
    text = (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
    digits = f"{part_ns:09d}".rstrip("0")
    return f"{text}.{digits}Z" if digits else f"{text}Z"


def as_of_fields(as_of: Any) -> dict[str, Any]:
    """What an answer is as of, for ``--json``; without a time before all events. Over several shards: position 0."""
    nothing = as_of.position == POSITION_NONE and not as_of.timestamp_ns
    return {"position": as_of.position, "time": None if nothing else time_text(as_of.timestamp_ns)}


def as_of_text(as_of: Any) -> str:
    """The same in words."""
    if as_of.position == POSITION_NONE:
        return f"as of {time_text(as_of.timestamp_ns)}" if as_of.timestamp_ns else "as of before all events"
    return f"as of {time_text(as_of.timestamp_ns)}, position {as_of.position}"
