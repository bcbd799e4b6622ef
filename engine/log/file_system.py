"""Which file system a folder is on, and whether what is written to it survives a power cut."""

import os
import re
from pathlib import Path
from typing import Final

MEMORY_FILE_SYSTEMS: Final = frozenset({"tmpfs", "ramfs", "devtmpfs", "rootfs"})
_MOUNTINFO: Final = Path("/proc/self/mountinfo")
_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def file_system_type(directory: Path) -> str | None:
    """The type of the file system that holds a folder (``ext4``, ``tmpfs``), or None if the system does not say."""
    try:
        table = _MOUNTINFO.read_text()
    except OSError:
        return None
    return find_file_system(table, directory.resolve(), directory.stat().st_dev)


def find_file_system(table: str, directory: Path, device: int) -> str | None:
    """Look a folder up in the text of ``/proc/self/mountinfo`` (proc(5)).

    The last mount on the longest path above the folder holds it. File systems with several devices (btrfs) report
    another device number than their files, so the number decides only between mounts on the same path.
    """
    best: tuple[int, bool, int] | None = None
    found: str | None = None
    for line_number, line in enumerate(table.splitlines()):
        fields, separator, rest = line.partition(" - ")
        columns = fields.split(" ")
        if not separator or len(columns) < 5:
            continue
        mount_point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), columns[4]))
        if not directory.is_relative_to(mount_point):
            continue
        rank = (len(mount_point.parts), columns[2] == f"{os.major(device)}:{os.minor(device)}", line_number)
        if best is None or rank > best:
            best, found = rank, rest.split(" ")[0]
    return found


def is_memory(file_system: str | None) -> bool:
    """Whether a file system of this type forgets everything when the machine stops."""
    return file_system in MEMORY_FILE_SYSTEMS
