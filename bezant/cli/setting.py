"""A setting: one field of a struct in `bezant.cli.settings`, and all that is told of it anywhere.

The type of the field gives range and unit, its description what it is for, its default the default. The option of the
command line, the key of the file, the template and the page of reference are all made from that.
"""

import argparse
import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from bezant.protocol.errors import UsageError

TOLD_MAX: Final = 1e9
"""Limits above that only keep numbers from being absurd, and are not told."""
NO_DEFAULT: Final = msgspec.NODEFAULT
_METAVARS: Final = {"_mib": "MIB", "_bytes": "BYTES", "_ms": "MILLISECONDS", "_s": "SECONDS", "_port": "PORT"}


class Setting(NamedTuple):
    """A setting of a table. `words` is what the description of its field says."""

    key: str
    words: str
    value_type: Any
    """As msgspec takes it; of a list, that of its items."""
    default: Any
    """`NO_DEFAULT` if it has to be given; empty if it is made when the process starts, as `words` then tell."""
    extra: Mapping[str, Any]
    is_list: bool

    @property
    def flag(self) -> str:
        """The option of the command line; of a switch that is on by default the option that turns it off."""
        dashed = self.key.replace("_", "-")
        return str(self.extra.get("flag") or (f"--no-{dashed}" if self.default is True else f"--{dashed}"))

    @property
    def is_switch(self) -> bool:
        """Whether it is on or off, so that the option takes no value."""
        return self.value_type is bool or get_args(self.value_type)[:1] == (bool,)

    @property
    def is_positional(self) -> bool:
        """Whether it is an argument of its own on the command line, without an option."""
        return bool(self.extra.get("positional"))

    @property
    def is_required(self) -> bool:
        """Whether it has to be given."""
        return self.default is NO_DEFAULT

    @property
    def is_path(self) -> bool:
        """Whether it names a file or a folder: in a file of settings as seen from the folder of that."""
        return bool(self.extra.get("is_path"))

    @property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        return _plain(self.value_type) is str

    @property
    def metavar(self) -> str:
        """What stands for the value where the option is explained."""
        unit = next((told for ending, told in _METAVARS.items() if self.key.endswith(ending)), "N")
        return str(self.extra.get("metavar", unit))

    @property
    def range_words(self) -> str:
        """What values there can be."""
        if self.is_switch:
            return "true or false"
        if self.is_text:
            return self.metavar
        kind = "a whole number" if _plain(self.value_type) is int else "a number"
        limits = {name: limit for meta in _metas(self.value_type) for name, limit in _limits(meta).items()}
        lower = f"above {_number(limits['gt'])}" if "gt" in limits else f"from {_number(limits['ge'])}"
        upper = limits.get("le", math.inf)
        return f"{kind} {lower} {f'to {_number(upper)}' if upper < TOLD_MAX else 'on'}"

    @property
    def default_words(self) -> str:
        """The default as people read it; "" if there is none, or `words` tell it."""
        if self.default is NO_DEFAULT or self.is_switch or self.default in ("", 0, []):
            return ""
        return self.default if isinstance(self.default, str) else _number(self.default)

    def read(self, value: object, *, is_word: bool = False) -> Any:
        """A value of the command line (`is_word`) or of a file. Raises `UsageError`, without the name of the setting.

        A list may be given as its only item.
        """
        if self.is_list and not isinstance(value, list):
            return [self.read_one(value, is_word=is_word)]
        if self.is_list and isinstance(value, list):
            return [self.read_one(item, is_word=is_word) for item in value]
        return self.read_one(value, is_word=is_word)

    def read_one(self, value: object, *, is_word: bool = False) -> Any:
        """The same for an item of a list, or for what is none."""
        try:
            found = msgspec.convert(value, self.value_type, strict=not is_word)
        except msgspec.ValidationError as error:
            shown = repr(value) if is_word or not isinstance(value, str) else f'"{value}"'
            raise UsageError(f"it is {self.range_words}, not {shown}") from error
        check = self.extra.get("check")
        try:
            return found if check is None else check(found)
        except argparse.ArgumentTypeError as error:
            raise UsageError(str(error)) from error


def settings_of(table: type[msgspec.Struct]) -> dict[str, Setting]:
    """The settings of a table by their keys, in the order in which they are told."""
    hints = get_type_hints(table, include_extras=True)
    found = {}
    for field in msgspec.structs.fields(table):
        hint = hints[field.name]
        extra = {name: value for meta in _metas(hint) for name, value in (meta.extra or {}).items()}
        words = next((meta.description for meta in reversed(_metas(hint)) if meta.description), "")
        value_type, is_list = hint, False
        if get_origin(_plain(hint)) is list:
            (value_type,) = get_args(_plain(hint))
            is_list = True
            extra = {name: value for meta in _metas(value_type) for name, value in (meta.extra or {}).items()} | extra
        default = [] if field.default_factory is list else field.default
        found[field.name] = Setting(field.name, words, value_type, default, extra, is_list)
    # What a table has from another one, such as access, is told behind its own.
    return dict(sorted(found.items(), key=lambda item: "group" in item[1].extra))


def _number(number: float) -> str:
    return f"{number:,}".removesuffix(".0")


def _plain(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _metas(hint: Any) -> list[msgspec.Meta]:
    return [meta for meta in getattr(hint, "__metadata__", ()) if isinstance(meta, msgspec.Meta)]


def _limits(meta: msgspec.Meta) -> dict[str, float]:
    limits = {"ge": meta.ge, "gt": meta.gt, "le": meta.le}
    return {name: limit for name, limit in limits.items() if limit is not None}
