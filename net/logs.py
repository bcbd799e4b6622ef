"""How every process of ours writes what it has to say: to its standard error, one line a record, and never a secret.

As text, as people read it, from warnings on; or as JSON, from informational records on: an object a line with ``time``
(UTC), ``level``, ``process``, ``event``, ``message``, what else is known of the process (``shard``, ``node``) and what
the record is about. A record says that with ``extra=about("reader_ended", status=1)``; the event of one that does not
is the place in the source that it comes from. Child processes write as their parents do.

Tokens, private keys and secrets of webhooks are struck out of whatever is written, also out of tracebacks.
"""

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any, Final, TextIO

from bezant.protocol.access import TOKEN_PREFIX
from bezant.protocol.errors import UsageError

TEXT: Final = "text"
JSON: Final = "json"
FORMATS: Final = (TEXT, JSON)
FORMAT_VARIABLE: Final = "BEZANT_LOG_FORMAT"
"""Where a process tells its children which format it writes."""
RECORD_SIZE_MAX: Final = 16 << 10
"""Characters of a message or of a traceback; the rest is left out."""
STRUCK: Final = "***"
_CONTROLS: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_SECRETS: Final = re.compile(
    rf"(?P<token>{re.escape(TOKEN_PREFIX)}[0-9a-z]{{12}}_)[0-9A-Za-z_-]{{16,}}"
    r"|(?P<webhook>\bwhsec_)[0-9A-Za-z+/=_-]+"
    r"|(?P<bearer>(?i:\bbearer) +)[^\s\"',;]+"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.S,
)
_OWN_PREFIX: Final = "bezant: "
_ABOUT: Final = "bezant_about"


def about(event: str, **fields: Any) -> dict[str, Any]:
    """The ``extra`` of a record: what happened, in snake_case, and what it is about."""
    return {_ABOUT: (event, fields)}


def begin_logs(log_format: str, process: str, **fields: Any) -> None:
    """Have this process, and its children, write in a format; `fields` are those of every record.

    A parent's format goes before TEXT, which is what is asked for by saying nothing. Raises `UsageError`.
    """
    chosen = os.environ.get(FORMAT_VARIABLE, TEXT) if log_format == TEXT else log_format
    if chosen not in FORMATS:
        raise UsageError(f"logs are written as {' or '.join(FORMATS)}, not as {chosen!r}")
    os.environ[FORMAT_VARIABLE] = chosen
    handler = _Handler()
    handler.setFormatter(JsonFormatter({"process": process} | fields) if chosen == JSON else TextFormatter())
    root = logging.getLogger()
    for other in [known for known in root.handlers if isinstance(known, _Handler)]:
        root.removeHandler(other)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger("bezant").setLevel(logging.INFO if chosen == JSON else logging.WARNING)


def add_fields(**fields: Any) -> None:
    """Have every record from now on say this of the process as well, if records have fields."""
    formatter = _json_formatter()
    if formatter is not None:
        formatter.common.update(fields)


def writes_json() -> bool:
    """Whether this process writes JSON."""
    return _json_formatter() is not None


def write_error(words: str) -> None:
    """Write why the process ends."""
    logging.getLogger("bezant").error("%s", words, extra=about("failed"))


def _json_formatter() -> "JsonFormatter | None":
    formatters = [known.formatter for known in logging.getLogger().handlers if isinstance(known, _Handler)]
    return next((one for one in formatters if isinstance(one, JsonFormatter)), None)


def struck_out(text: str) -> str:
    """A text without secrets, and not too long."""
    without = _SECRETS.sub(lambda found: next((kept for kept in found.groups() if kept), "") + STRUCK, text)
    return without if len(without) <= RECORD_SIZE_MAX else without[:RECORD_SIZE_MAX] + "..."


class TextFormatter(logging.Formatter):
    """The message, and a traceback if there is one.

    Control characters of a message are written out: a path that somebody asks for must not look like a line of ours.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - so the library calls it
        """One message, on one line."""
        return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], struck_out(super().formatMessage(record)))

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        return struck_out(super().format(record))


class JsonFormatter(logging.Formatter):
    """An object on one line."""

    def __init__(self, common: dict[str, Any]) -> None:
        super().__init__()
        self.common = common

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        event, fields = getattr(record, _ABOUT, None) or (f"{record.module}.{record.funcName.strip('_')}", {})
        told = {
            "time": f"{datetime.fromtimestamp(record.created, UTC):%Y-%m-%dT%H:%M:%S.%f}Z",
            "level": record.levelname.lower(),
            **self.common,
            "event": event,
            "message": struck_out(record.getMessage().removeprefix(_OWN_PREFIX)),
        }
        if record.exc_info:
            told["traceback"] = struck_out(self.formatException(record.exc_info))
        for name, value in fields.items():
            told.setdefault(name, _without_secrets(value))
        return json.dumps(told, ensure_ascii=False)


def _without_secrets(value: Any) -> Any:
    """A value as JSON has it, all of whose texts are struck out."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {struck_out(str(key)): _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_without_secrets(item) for item in value]
    return struck_out(str(value))


class _Handler(logging.StreamHandler[TextIO]):
    """To what is the standard error at the time."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        """Where it goes."""
        return sys.stderr

    @stream.setter
    def stream(self, _stream: TextIO) -> None:
        raise UsageError("logs go to the standard error")
