"""`bezant config`: checks a file of settings, and explains every setting that there is."""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from bezant.cli.output import write_at_once
from bezant.cli.setting import Setting, settings_of
from bezant.cli.settings import TABLES, Access, Table

_WIDTH: Final = 110
_INTRODUCTION: Final = (
    "Settings of Bezant, for --config FILE. Each command reads the table of its name; options go before the file.",
    "What is commented out shows the default, or an example where there is none. Paths are as seen from this file.",
    "No setting is a secret: files have those. `bezant config check FILE` finds mistakes before a process does.",
)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the arguments of `bezant config`."""
    parser = subparsers.add_parser(
        "config", description="Check a file of settings for `--config`, or explain all settings there are."
    )
    actions = parser.add_subparsers(dest="action", metavar="check|explain", required=True)
    check = actions.add_parser(
        "check",
        description="Say everything that is wrong in a file, with its line. Exit status: 0 nothing, 1 something, 2 the"
        " file cannot be read. Files that it names must be there, and certificates and tokens be some.",
    )
    check.add_argument("file", metavar="FILE", type=Path)
    explain = actions.add_parser("explain", description="Print a file of settings with all there are, explained.")
    explain.add_argument("tables", metavar="TABLE", nargs="*", help=f"{', '.join(TABLES)} (default: all of them)")
    explain.add_argument("--markdown", action="store_true", help="print a page of reference instead")


def run(arguments: argparse.Namespace) -> int:
    """Check or explain."""
    if arguments.action == "check":
        return _check(arguments.file)
    from bezant.protocol.errors import UsageError

    for name in arguments.tables:
        if name not in TABLES:
            raise UsageError(f"there is no table {name}: they are {', '.join(TABLES)}")
    chosen = {name: kind for name, kind in TABLES.items() if name in arguments.tables or not arguments.tables}
    write_at_once("\n".join(_page(chosen) if arguments.markdown else _template(chosen)))
    return 0


def _check(file: Path) -> int:
    from bezant.cli.config_file import Problem, read_config

    found = read_config(file)
    problems = found.problems
    if not problems:
        for name, values in found.tables.items():
            problems += [Problem(0, name, words) for words in _wrong_outside(TABLES[name], values)]
    for problem in problems:
        write_at_once(problem.told(file))
    if not problems:
        write_at_once(f"{file}: good, for {', '.join(f'bezant {name}' for name in found.tables) or 'nothing'}")
    return 1 if problems else 0


def _wrong_outside(kind: type[Table], values: dict[str, Any]) -> list[str]:
    """What a process would find wrong in files that are named, before it has begun."""
    missing = [
        f"{key}: there is no file {values[key]}"
        for key, setting in settings_of(kind).items()
        if setting.metavar == "FILE" and key in values and not Path(values[key]).is_file()
    ]
    if missing or not issubclass(kind, Access):
        return missing
    from bezant.cli.access import security_of
    from bezant.protocol.errors import UsageError

    required = [key for key, setting in settings_of(kind).items() if setting.is_required]
    try:
        security_of(kind(**{**dict.fromkeys(required, ""), **values})).check(in_group=False)
    except UsageError as error:
        return [str(error)]
    return []


def _template(tables: dict[str, type[Table]]) -> Iterator[str]:
    """A file of settings, line by line."""
    for line in _INTRODUCTION:
        yield f"# {line}"
    for name, kind in tables.items():
        yield ""
        yield f"# {_summary(kind)}"
        yield f"[{name}]"
        for setting in settings_of(kind).values():
            yield ""
            yield from _wrapped(f"{_capital(setting.words)}.")
            yield from _wrapped(f"{_capital(_facts(setting))}.")
            yield f"{'' if setting.is_required else '#'}{setting.key} = {_toml(_example(setting))}"


def _page(tables: dict[str, type[Table]]) -> Iterator[str]:
    """A page of reference in Markdown, line by line."""
    yield "# Settings"
    yield ""
    yield "Made by `bezant config explain --markdown` from what the program itself goes by; a test keeps it so."
    yield ""
    yield (
        "`bezant serve --config FILE` reads the table `[serve]` of a TOML file, and so do the other commands here"
        " theirs. Options of the command line go before the file; the environment has no part in it. Paths are as seen"
        " from the folder of the file. A key that is not here is an error. `bezant config check FILE` tells all that is"
        " wrong in a file, and `bezant config explain` prints one with all of this as comments."
    )
    for name, kind in tables.items():
        yield ""
        yield f"## `[{name}]`"
        yield ""
        yield _summary(kind)
        yield ""
        yield "| key | option | values | default | |"
        yield "| --- | --- | --- | --- | --- |"
        for setting in settings_of(kind).values():
            default = "has to be given" if setting.is_required else setting.default_words or _switch_default(setting)
            cells = (f"`{setting.key}`", f"`{_option(setting)}`", _values(setting), default, _capital(setting.words))
            yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _facts(setting: Setting) -> str:
    default = setting.default_words or _switch_default(setting)
    told = "has to be given" if setting.is_required else f"default: {default}" if default else ""
    return "; ".join(part for part in (_values(setting), told, f"option: {_option(setting)}") if part)


def _values(setting: Setting) -> str:
    return f"a list of {setting.range_words}" if setting.is_list else setting.range_words


def _option(setting: Setting) -> str:
    if setting.is_positional:
        return f"an argument {setting.metavar}"
    return setting.flag if setting.is_switch else f"{setting.flag} {setting.metavar}"


def _switch_default(setting: Setting) -> str:
    return str(setting.default).lower() if setting.is_switch else ""


def _summary(kind: type[Table]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]


def _example(setting: Setting) -> Any:
    if "example" in setting.extra:
        return setting.extra["example"]
    if setting.metavar == "FILE":
        return f"{setting.key.replace('_', '-')}.pem"
    return setting.default


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(_toml(item) for item in value)}]"
    return f'"{value}"' if isinstance(value, str) else str(value)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _wrapped(words: str) -> Iterator[str]:
    import textwrap

    for line in textwrap.wrap(words, _WIDTH, break_on_hyphens=False, break_long_words=False):
        yield f"# {line}"
