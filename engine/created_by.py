"""Which software wrote a file: a part of what it says of itself."""

from functools import cache
from importlib.metadata import version


@cache
def created_by() -> str:
    """The name and version of this software. The version is looked for in the installed packages, a millisecond."""
    return f"bezant {version('bezant')}"
