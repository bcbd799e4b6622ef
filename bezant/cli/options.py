"""The options of a command, made from its table of settings; and the table again, from the options and a file.

What the command line says goes before what the file says, setting by setting.
"""

import argparse
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from bezant.cli.config_file import KEY_IN_WORDS, table_of
from bezant.cli.setting import Setting, settings_of
from bezant.cli.settings import TABLES, Table
from bezant.protocol.errors import UsageError

CONFIG_OPTION: Final = "--config"

_Kind = TypeVar("_Kind", bound=Table)


def add_options(parser: argparse.ArgumentParser, kind: type[Table]) -> None:
    """Add `--config` and an option for each setting. None of them is given unless it is typed."""
    name = next(name for name, table in TABLES.items() if table is kind)
    parser.add_argument(
        CONFIG_OPTION,
        metavar="FILE",
        type=Path,
        help=f"a file whose table [{name}] has the settings; options go before it. See bezant config explain {name}",
    )
    groups: dict[str, argparse._ArgumentGroup] = {}
    for setting in settings_of(kind).values():
        title = setting.extra.get("group")
        if title is not None and title not in groups:
            groups[title] = parser.add_argument_group(title)
        _add_option(parser if title is None else groups[title], setting)
    # What is wrong together is known when the file has been read, and is a wrong command line as well.
    parser.set_defaults(refuse_usage=parser.error)


def _add_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup, setting: Setting) -> None:
    default = setting.default_words
    words = setting.extra.get("off", setting.words) + (f" (default: {default})" if default else "")
    words = words.replace("%", "%%")
    if setting.is_positional:
        parser.add_argument(setting.key, metavar=setting.metavar, nargs="?", type=_reader_of(setting), help=words)
    elif setting.is_switch:
        parser.add_argument(
            setting.flag, dest=setting.key, action="store_const", const=setting.default is not True, help=words
        )
    else:
        parser.add_argument(
            setting.flag,
            dest=setting.key,
            metavar=setting.metavar,
            action="append" if setting.is_list else "store",
            type=_reader_of(setting),
            help=words,
        )


def _reader_of(setting: Setting) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return setting.read_one(text, is_word=True)
        except UsageError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def settings_given(arguments: argparse.Namespace, kind: type[Table]) -> dict[str, Any]:
    """What the options and the file say, by key. Raises `UsageError` for a file that cannot be used."""
    name = next(name for name, table in TABLES.items() if table is kind)
    values = table_of(arguments.config, name) if arguments.config is not None else {}
    return values | {
        key: getattr(arguments, key) for key in settings_of(kind) if getattr(arguments, key, None) is not None
    }


def read_settings(arguments: argparse.Namespace, kind: type[_Kind]) -> _Kind:
    """The settings of a command. Ends the process with 2 if something has to be given, or does not go together."""
    values = settings_given(arguments, kind)
    settings = settings_of(kind)
    missing = [_name_of(setting) for key, setting in settings.items() if setting.is_required and key not in values]
    if missing:
        arguments.refuse_usage(f"the following arguments are required: {', '.join(missing)}")
    try:
        table = msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise UsageError(str(error)) from error
    if problems := table.problems():
        arguments.refuse_usage("; ".join(_with_options(problem, settings) for problem in problems))
    return table


def words_of(values: dict[str, Any], kind: type[Table], *, without: Collection[str] = ()) -> list[str]:
    """Settings as words of a command line, for a process that is to have the same."""
    words = []
    for key, setting in settings_of(kind).items():
        if key not in values or key in without or values[key] == setting.default:
            continue
        if setting.is_switch:
            words.append(setting.flag)
        else:
            items = values[key] if setting.is_list else [values[key]]
            words += [f"{setting.flag}={item}" for item in items]
    return words


def _name_of(setting: Setting) -> str:
    return setting.metavar if setting.is_positional else setting.flag


def _with_options(problem: str, settings: dict[str, Setting]) -> str:
    """A problem in the words of the command line."""
    return KEY_IN_WORDS.sub(lambda found: settings[found[1]].flag, problem)
