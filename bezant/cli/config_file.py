"""Reads a file of settings: TOML, a table a command. Whatever is wrong in it is told at once, with its line.

Paths in it are as seen from its folder. It has no secrets, only the names of files with them, and the environment has
no part in it.
"""

import difflib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from bezant.cli.setting import NO_DEFAULT, Setting, settings_of
from bezant.cli.settings import TABLES
from bezant.protocol.errors import UsageError

FILE_BYTES_MAX: Final = 1 << 20
KEY_IN_WORDS: Final = re.compile(r"`([a-z_]+)`")
"""A key where a table says what does not go together."""
_TABLE_LINE: Final = re.compile(r"\s*\[\s*\"?([^\]\"]+?)\"?\s*\]")
_KEY_LINE: Final = re.compile(r"\s*[\"']?([A-Za-z0-9_-]+)[\"']?\s*=")
_POSITION: Final = re.compile(r"(.*) \(at line (\d+), column \d+\)", re.DOTALL)


class Problem(NamedTuple):
    """Something wrong in a file; line 0 if it is of no line in particular."""

    line: int
    key: str
    words: str

    def told(self, file: Path) -> str:
        """As a line: where, what."""
        place = f"{file}:{self.line}" if self.line else str(file)
        return f"{place}: {self.key}: {self.words}" if self.key else f"{place}: {self.words}"


class ConfigFile(NamedTuple):
    """What a file says: values by key, of each table that it has; and what is wrong in it."""

    tables: dict[str, dict[str, Any]]
    problems: list[Problem]


def read_config(file: Path, *, together: bool = True) -> ConfigFile:
    """Read and check a whole file, also what each table says `together`. Raises `UsageError` if it cannot be read."""
    text = _text_of(file)
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        placed = _POSITION.fullmatch(str(error))
        line, words = (int(placed[2]), placed[1]) if placed else (0, str(error))
        return ConfigFile({}, [Problem(line, "", f"this is not TOML: {words}")])
    lines = _lines_of(text)
    tables: dict[str, dict[str, Any]] = {}
    problems: list[Problem] = []
    for name, content in found.items():
        kind = TABLES.get(name)
        if kind is None:
            problems.append(Problem(lines.get((name, ""), lines.get(("", name), 0)), name, _unknown(name, TABLES)))
        elif not isinstance(content, dict):
            problems.append(Problem(lines.get(("", name), 0), name, f"it is a table: [{name}]"))
        else:
            tables[name], wrong = _read_table(name, content, file.absolute().parent, lines)
            problems += wrong
            if together and not wrong:
                problems += _wrong_together(name, tables[name], lines)
    return ConfigFile(tables, sorted(problems))


def table_of(file: Path, name: str) -> dict[str, Any]:
    """What a file says to one command. Raises `UsageError` if anything in the file is wrong.

    What the table says together is not judged: the command line has a say in that.
    """
    found = read_config(file, together=False)
    if found.problems:
        more = f" (and {len(found.problems) - 1} more)" if len(found.problems) > 1 else ""
        raise UsageError(f"{found.problems[0].told(file)}{more}; see bezant config check {file}")
    if name not in found.tables:
        raise UsageError(f"{file} has no table [{name}]")
    return found.tables[name]


def _text_of(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise UsageError(f"{file} is larger than {FILE_BYTES_MAX} bytes")
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8") from error
    except OSError as error:
        raise UsageError(f"{file}: {error.strerror}") from error


def _read_table(
    name: str, content: Mapping[str, Any], folder: Path, lines: Mapping[tuple[str, str], int]
) -> tuple[dict[str, Any], list[Problem]]:
    settings = settings_of(TABLES[name])
    values: dict[str, Any] = {}
    problems = []
    for key, value in content.items():
        setting = settings.get(key)
        try:
            if setting is None:
                raise UsageError(_unknown(key, settings))
            values[key] = _placed(setting, setting.read(value), folder)
        except UsageError as error:
            problems.append(Problem(lines.get((name, key), 0), f"{name}.{key}", str(error)))
    return values, problems


def _placed(setting: Setting, value: Any, folder: Path) -> Any:
    """A path as seen from the folder of the file that says it."""
    if not setting.is_path:
        return value
    return [str(folder / item) for item in value] if setting.is_list else str(folder / value)


def _wrong_together(name: str, values: Mapping[str, Any], lines: Mapping[tuple[str, str], int]) -> list[Problem]:
    """What the values of a table do not say together; but what has to be given may be so on the command line."""
    kind = TABLES[name]
    required = [key for key, setting in settings_of(kind).items() if setting.default is NO_DEFAULT]
    table = kind(**{**dict.fromkeys(required, ""), **values})
    problems = []
    for words in table.problems():
        first = KEY_IN_WORDS.search(words)
        line = lines.get((name, first[1]), 0) if first else 0
        problems.append(Problem(line, name, KEY_IN_WORDS.sub(r"\1", words)))
    return problems


def _unknown(name: str, known: Mapping[str, object]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"there is no such setting; did you mean {near[0]}?" if near else "there is no such setting"


def _lines_of(text: str) -> dict[tuple[str, str], int]:
    """Lines of tables, and of their keys, as far as they are written plainly: a help, not a parser."""
    lines: dict[tuple[str, str], int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _TABLE_LINE.match(line):
            table = header[1]
            lines.setdefault((table, ""), number)
        elif key := _KEY_LINE.match(line):
            lines.setdefault((table, key[1]), number)
    return lines
