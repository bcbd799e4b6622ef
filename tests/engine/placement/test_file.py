"""Claim: a node's map survives in its folder, whole, and damage to any byte of it is found."""

from pathlib import Path

import pytest

from bezant.engine.placement.file import MAP_NAME, read_map, write_map
from bezant.engine.placement.maps import first_map, with_slots_moved
from bezant.protocol.errors import CorruptLog

FIRST = first_map({0: ["a:1"], 1: ["b:1"]})


def test_a_folder_has_no_map_at_first(tmp_path: Path) -> None:
    assert read_map(tmp_path) is None


def test_the_last_map_that_was_written_is_read(tmp_path: Path) -> None:
    write_map(tmp_path, FIRST)
    assert read_map(tmp_path) == FIRST
    later = with_slots_moved(FIRST, range(100), 1)
    write_map(tmp_path, later)
    assert read_map(tmp_path) == later
    assert [path.name for path in tmp_path.iterdir()] == [MAP_NAME]


def test_damage_anywhere_is_found(tmp_path: Path) -> None:
    write_map(tmp_path, FIRST)
    path = tmp_path / MAP_NAME
    whole = path.read_bytes()
    for offset in [*range(64), *range(64, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 1]) + whole[offset + 1 :])
        with pytest.raises(CorruptLog, match="slot map is damaged"):
            read_map(tmp_path)


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 1000])
def test_a_file_cut_short_is_found(tmp_path: Path, size: int) -> None:
    write_map(tmp_path, FIRST)
    path = tmp_path / MAP_NAME
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(CorruptLog, match="Remove it: the node asks for the map again"):
        read_map(tmp_path)
