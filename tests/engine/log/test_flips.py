"""Claim: no bit of a data folder can change unnoticed: the folder is refused, or what is recovered is the same.

A small history of a real ledger at rest, and one bit after the other turned over: in every seventh byte of what is used
of each file of the log, bit positions in rotation, more thinly in the zeros behind, and every single bit where most
depends on it. What is recovered is the same if the chain hash is, which covers every byte of every entry; the ledger is
built from it for every tenth.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.log.log import open_log
from bezant.engine.log.segment import segment_name
from bezant.engine.log.storage import Directory
from bezant.engine.replay import replay_entry
from bezant.engine.replica import IDS_MEMORY_BYTES_MIN, ReplicaSettings, open_replica
from bezant.protocol.errors import CorruptLog, UnsupportedFormat
from bezant.protocol.records import CONTROL_PAGE_SIZE, ENTRY_HEADER_SIZE

from ..commands import join, opening_world, transfer, transfers
from .crashes import FORGOTTEN
from .logs import SEGMENT_SIZE, places_in
from .memory_disk import MemoryDisk

STEP: Final = 7
"""Prime, so that the steps fall on every field of every record in turn."""
ACCOUNTS_MAX: Final = 64
HOLDS_MAX: Final = 64
"""So few that all of them may expire in one entry and it still fits in a segment."""
SEGMENTS: Final = 3
"""Two with entries, and an empty one."""
CONTROL_FIELDS_END: Final = 76
SEGMENT_FIELDS_END: Final = 48

STEP_IN_ZEROS: Final = 13 * STEP
LEDGER_EVERY: Final = 10
"""How many folders are recovered for one whose ledger is built."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a log whose history fills a segment and goes on in the next, in twelve groups."""
    data = tmp_path_factory.mktemp("data")
    settings = ReplicaSettings(
        segment_size=SEGMENT_SIZE,
        free_space_floor=0,
        accounts_max=ACCOUNTS_MAX,
        holds_max=HOLDS_MAX,
        ids_memory_bytes=IDS_MEMORY_BYTES_MIN,
    )
    replica = open_replica(data, settings=settings)
    replica.execute(opening_world("ann", "bob"))
    replica.write_group()
    for count in (1, 3, 120, 1, 120, 90, 2, 1):
        replica.execute(transfers("world", "ann", count, 5))
        replica.write_group()
    replica.register_currency("POINTS", 0)
    replica.execute(join(transfer("ann", "bob", 3), transfer("ann", "bob", 2**62)))
    replica.execute(transfer("ann", "bob"))
    replica.write_group()
    replica.close()
    folder = data / "shard-0000"
    for path in folder.glob("segment-*"):
        if path.name > segment_name(SEGMENTS):  # how many are ready for later is a matter of chance
            path.unlink()
    return folder


class Recovered(NamedTuple):
    """What a folder gave; the digest of its ledger is left out ("") unless it was asked for."""

    chain_hash: bytes
    entries: int
    state_digest: str
    torn_bytes: int


def recover(directory: Directory, *, writable: bool = False, with_ledger: bool = True) -> Recovered:
    log = open_log(directory, segment_size=SEGMENT_SIZE, free_space_floor=0, writable=writable)
    try:
        if not with_ledger:
            for _ in log.open():
                pass
            return Recovered(log.chain_hash, log.last_index, "", log.recovery.torn_bytes)
        ledger = Ledger(accounts_max=ACCOUNTS_MAX, ids_capacity_initial=1024, fetch_events=log.read_events)
        for entry in log.open():
            replay_entry(ledger, entry)
        return Recovered(log.chain_hash, log.last_index, ledger.digest(), log.recovery.torn_bytes)
    finally:
        log.close()


class Flipped:
    """A file in which one bit is turned over while the block runs."""

    def __init__(self, path: Path, offset: int, bit: int) -> None:
        self._path = path
        self._offset = offset
        self._bit = bit

    def __enter__(self) -> None:
        self._turn()

    def __exit__(self, *_: object) -> None:
        self._turn()

    def _turn(self) -> None:
        with self._path.open("r+b", buffering=0) as file:
            file.seek(self._offset)
            byte = file.read(1)[0]
            file.seek(self._offset)
            file.write(bytes([byte ^ 1 << self._bit]))


class Flip(NamedTuple):
    """A bit that is turned over."""

    file: str
    offset: int
    bit: int


def try_flips(folder: Path, flips: Iterable[Flip]) -> dict[str, list[Flip]]:
    """Turn bits over, one at a time; by what became of it: "refused", "same", or what must not be: "changed"."""
    whole = recover(Directory(folder))
    outcomes: dict[str, list[Flip]] = {"refused": [], "same": [], "changed": []}
    for number, flip in enumerate(flips):
        with_ledger = number % LEDGER_EVERY == 0
        with Flipped(folder / flip.file, flip.offset, flip.bit):
            try:
                found = recover(Directory(folder), with_ledger=with_ledger)
                same = found.chain_hash == whole.chain_hash and found.entries == whole.entries
                same &= found.state_digest == whole.state_digest or not with_ledger
                outcome = "same" if same else "changed"
            except (CorruptLog, UnsupportedFormat):
                outcome = "refused"
        outcomes[outcome].append(flip)
    return outcomes


def used_end(path: Path) -> int:
    """Offset behind the last byte of a file that is not zero."""
    return len(path.read_bytes().rstrip(b"\0"))


def test_one_bit_in_every_seventh_byte(folder: Path) -> None:
    flips = []
    for path in [folder / "control", *sorted(folder.glob("segment-*"))]:
        end, size = used_end(path), path.stat().st_size
        offsets = [*range(0, end, STEP), *range(end, size, STEP_IN_ZEROS)]
        flips += [Flip(path.name, offset, number % 8) for number, offset in enumerate(offsets)]
    outcomes = try_flips(folder, flips)
    assert outcomes["changed"] == []
    segments = [flip for flip in outcomes["same"] if flip.file.startswith("segment-")]
    # Of a segment, only the zeros behind the end of the log and in the next one do not matter.
    last = segment_name(2)
    assert all(flip.file > last or (flip.file == last and flip.offset >= used_end(folder / last)) for flip in segments)
    assert {flip.file for flip in outcomes["refused"]} == {segment_name(number) for number in (1, 2, 3)}


def test_every_bit_of_the_last_header_and_of_the_page_that_vouches_for_it(folder: Path) -> None:
    last = places_in(folder, 2)[-1]
    header = [
        Flip(segment_name(2), last.start + offset, bit) for offset in range(ENTRY_HEADER_SIZE) for bit in range(8)
    ]
    assert try_flips(folder, header) == {"refused": header, "same": [], "changed": []}
    pages = [
        Flip("control", page + offset, bit)
        for page in (0, CONTROL_PAGE_SIZE)
        for offset in range(CONTROL_FIELDS_END)
        for bit in range(0, 8, 3)
    ]
    assert try_flips(folder, pages) == {"refused": [], "same": pages, "changed": []}


def test_every_bit_of_a_segment_s_header(folder: Path) -> None:
    flips = [Flip(segment_name(1), offset, bit) for offset in range(SEGMENT_FIELDS_END) for bit in range(8)]
    assert try_flips(folder, flips) == {"refused": flips, "same": [], "changed": []}


def test_a_node_that_opens_a_flipped_folder_to_write_is_no_worse_off(folder: Path) -> None:
    """It sets aside what is nobody's, zeroes it, and has the same state; and then the folder is whole again."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    whole = recover(Directory(folder))
    torn = 0
    for name in ("control", segment_name(1), segment_name(2), segment_name(3)):
        for number, offset in enumerate(range(5, len(files[name]), 1009)):
            disk = MemoryDisk()
            for other, data in files.items():
                disk.create_file(other, len(data), data)
            disk.current[name][offset] ^= 1 << number % 8
            try:
                found = recover(disk, writable=True)
            except (CorruptLog, UnsupportedFormat):
                continue
            torn += found.torn_bytes > 0
            assert found._replace(torn_bytes=0) == whole
            assert recover(disk, writable=True) == whole
    assert torn > 0


def test_with_the_control_page_forgotten_only_the_last_group_is_in_doubt(folder: Path) -> None:
    """What a power cut leaves at worst. Rot in the last group then passes for a torn tail, and never for anything else:
    what is recovered are the entries before the one that was hit."""
    control = (folder / "control").read_bytes()
    (folder / "control").write_bytes(FORGOTTEN)
    try:
        whole = recover(Directory(folder))
        places = [(segment, place) for segment in (1, 2) for place in places_in(folder, segment)]
        first_in_doubt = int(places[-1][1].header["durable_before"]) + 1
        for segment, place in places:
            index = int(place.header["index"])
            for offset in range(place.start, place.end, 1 + (place.end - place.start) // 40):
                with Flipped(folder / segment_name(segment), offset, offset % 8):
                    if index < first_in_doubt:
                        with pytest.raises(CorruptLog):
                            recover(Directory(folder), with_ledger=False)
                        continue
                    found = recover(Directory(folder), with_ledger=False)
                    assert found.entries == index - 1
                    assert found.torn_bytes > 0
        assert whole.entries - first_in_doubt == 2
        assert recover(Directory(folder)) == whole
    finally:
        (folder / "control").write_bytes(control)
