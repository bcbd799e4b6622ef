"""Claim: entries and control pages are coded as the byte tables say, and what a newer version wrote is refused."""

import struct
from pathlib import Path
from typing import Final

import blake3
import numpy as np
import pytest
import xxhash

from bezant.engine.log.control import ControlFile, Watermark
from bezant.engine.log.entry import (
    BODY_SIZE_MAX,
    EntryHeader,
    body_is_whole,
    decode_header,
    encode_entry,
    entry_hash,
    hash_in_place,
    with_durable_before,
)
from bezant.engine.log.storage import Directory
from bezant.protocol.errors import CorruptLog, UnsupportedFormat
from bezant.protocol.kinds import EntryKind
from bezant.protocol.records import (
    CONTROL_MAGIC,
    CONTROL_PAGE_SIZE,
    ENTRY_HEADER,
    ENTRY_HEADER_SIZE,
    LOG_FORMAT_VERSION,
    RULES_VERSION,
    SEGMENT_HEADER_SIZE,
)

from .crashes import COUNT, FORGOTTEN, History, Remains
from .logs import Writer, contents, newest_page, open_entries, segment_path

BIG: Final = 2**62 + 12345
HEADER: Final = EntryHeader(
    header_checksum=0,
    durable_before=BIG - 1,
    body_checksum=0,
    previous_hash=bytes(range(32)),
    term=3,
    index=BIG,
    first_sequence=BIG + 1,
    timestamp_ns=-BIG,
    count=2**31 - 1,
    body_size=5,
    kind=int(EntryKind.PHASES),
    format_version=LOG_FORMAT_VERSION,
    rules_version=2**31 - 2,
    log_id=-(2**63),
    shard=4095,
)
BODY: Final = b"hello"


def as_bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


# --- Entries


def test_an_entry_is_coded_as_its_table_says() -> None:
    entry = encode_entry(HEADER, BODY)
    record = np.frombuffer(entry.encoded, ENTRY_HEADER)[0]
    assert len(entry.encoded) == ENTRY_HEADER_SIZE
    for field, value in HEADER._asdict().items():
        if field not in {"header_checksum", "body_checksum", "previous_hash"}:
            assert record[field] == value, field
    assert bytes(record["previous_hash"]) == HEADER.previous_hash
    assert record["body_checksum"] == xxhash.xxh3_64_intdigest(BODY)
    assert record["header_checksum"] == xxhash.xxh3_64_intdigest(entry.encoded[8:])
    assert not any(entry.encoded[116:])
    assert entry.header == decode_header(as_bytes(entry.encoded))
    assert entry.body is BODY


def test_the_hash_of_an_entry_covers_all_that_is_the_same_on_every_replica() -> None:
    """Which is all but the node's own watermark, and the checksum that covers it."""
    entry = encode_entry(HEADER, BODY)
    whole = entry_hash(entry.encoded, entry.body)
    assert whole == blake3.blake3(entry.encoded[16:] + BODY).digest()
    assert whole == hash_in_place(memoryview(entry.encoded + BODY))
    for offset in range(ENTRY_HEADER_SIZE):
        encoded = bytearray(entry.encoded)
        encoded[offset] ^= 1
        assert (entry_hash(bytes(encoded), BODY) == whole) == (offset < 16)
    other = with_durable_before(entry, 7)
    assert other.encoded != entry.encoded
    assert entry_hash(other.encoded, other.body) == whole


def test_checksums_that_are_handed_in_do_not_count() -> None:
    assert encode_entry(HEADER._replace(header_checksum=1, body_checksum=2), BODY) == encode_entry(HEADER, BODY)


def test_no_bit_of_a_header_can_change() -> None:
    whole = encode_entry(HEADER, BODY).encoded
    for bit in range(8 * ENTRY_HEADER_SIZE):
        encoded = bytearray(whole)
        encoded[bit // 8] ^= 1 << bit % 8
        assert decode_header(as_bytes(bytes(encoded))) is None, bit


@pytest.mark.parametrize("size", [0, 1, ENTRY_HEADER_SIZE - 1])
def test_half_a_header_is_none(size: int) -> None:
    assert decode_header(as_bytes(encode_entry(HEADER, BODY).encoded[:size])) is None


def test_what_lies_behind_a_header_does_not_matter_to_it() -> None:
    entry = encode_entry(HEADER, BODY)
    assert decode_header(as_bytes(entry.encoded + b"anything")) == entry.header


@pytest.mark.parametrize(
    "change", [{"body_size": -1}, {"body_size": BODY_SIZE_MAX + 1}, {"index": 0}, {"index": -1}], ids=str
)
def test_a_header_with_impossible_numbers_is_none_even_if_its_checksum_is_right(change: dict[str, int]) -> None:
    assert decode_header(as_bytes(encode_entry(HEADER._replace(**change), BODY).encoded)) is None


def test_zeros_are_no_header() -> None:
    assert decode_header(np.zeros(ENTRY_HEADER_SIZE, np.uint8)) is None


def test_a_body_is_whole_or_not() -> None:
    header = encode_entry(HEADER, BODY).header
    assert body_is_whole(header, memoryview(BODY))
    for other in (b"hellO", b"hell", b"hello\0", b""):
        assert not body_is_whole(header, memoryview(other))


def test_an_empty_body_is_whole() -> None:
    header = encode_entry(HEADER._replace(body_size=0), b"").header
    assert body_is_whole(header, memoryview(b""))


def test_a_newer_watermark_changes_nothing_else() -> None:
    entry = encode_entry(HEADER, BODY)
    again = with_durable_before(entry, 77)
    assert again.header.durable_before == 77
    assert again == encode_entry(HEADER._replace(durable_before=77), BODY)
    assert with_durable_before(again, HEADER.durable_before) == entry


# --- Control pages

WATERMARK: Final = Watermark(
    write_count=BIG,
    durable_index=1,
    durable_sequence=2,
    durable_segment=3,
    durable_offset=4,
    clean_stop=1,
    cutting=-5,
    commit_index=6,
)


def make_control(folder: Path, *, shard: int = 5, log_id: int = -6) -> ControlFile:
    directory = Directory(folder)
    ControlFile.create(directory)
    return ControlFile(directory, shard=shard, log_id=log_id, writable=True)


def test_a_control_page_is_coded_as_its_table_says(tmp_path: Path) -> None:
    control = make_control(tmp_path)
    control.write(WATERMARK)
    control.close()
    page = newest_page(tmp_path)
    data = (tmp_path / "control").read_bytes()[BIG % 2 * CONTROL_PAGE_SIZE :][:CONTROL_PAGE_SIZE]
    assert {name: int(page[name]) for name in WATERMARK._fields} == WATERMARK._asdict()
    assert (page["magic"], page["format_version"], page["shard"], page["log_id"]) == (CONTROL_MAGIC, 2, 5, -6)
    assert page["checksum"] == xxhash.xxh3_64_intdigest(data[8:])
    assert not any(data[88:])


def test_a_new_control_file_says_nothing(tmp_path: Path) -> None:
    control = make_control(tmp_path)
    assert control.read() == Watermark()
    assert not ControlFile.was_written(Directory(tmp_path))
    control.write(WATERMARK)
    assert ControlFile.was_written(Directory(tmp_path))
    control.close()


def test_pages_are_written_in_turn_and_the_newest_counts(tmp_path: Path) -> None:
    control = make_control(tmp_path)
    for count in range(1, 6):
        before = (tmp_path / "control").read_bytes()
        control.write(Watermark(count, durable_index=10 * count))
        assert control.read() == Watermark(count, durable_index=10 * count)
        after = (tmp_path / "control").read_bytes()
        kept = (count + 1) % 2 * CONTROL_PAGE_SIZE
        assert after[kept : kept + CONTROL_PAGE_SIZE] == before[kept : kept + CONTROL_PAGE_SIZE]
    control.sync()
    control.close()


def test_the_pages_of_another_log_or_shard_say_nothing(tmp_path: Path) -> None:
    control = make_control(tmp_path)
    control.write(WATERMARK)
    control.close()
    for shard, log_id in ((5, 6), (4, -6)):
        other = ControlFile(Directory(tmp_path), shard=shard, log_id=log_id, writable=False)
        assert other.read() == Watermark()
        other.close()


# --- What a newer version wrote


def sealed(page: bytes) -> bytes:
    """A page with the checksum that belongs to it."""
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(page[8:])) + page[8:]


def test_a_segment_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    """Whether or not its checksum is still where this version looks for it."""
    for seal in (sealed, bytes):
        folder = tmp_path / seal.__name__
        Writer(folder).close()
        path = segment_path(folder)
        data = bytearray(path.read_bytes())
        struct.pack_into("<i", data, 16, LOG_FORMAT_VERSION + 1)
        path.write_bytes(seal(bytes(data[:SEGMENT_HEADER_SIZE])) + data[SEGMENT_HEADER_SIZE:])
        check_unsupported(folder, "has format 3; this version of Bezant reads format 2: start the newer version")


def test_a_control_page_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    Writer(tmp_path).close()
    page = bytearray(newest_page(tmp_path).tobytes())
    struct.pack_into("<i", page, 16, LOG_FORMAT_VERSION + 1)
    (tmp_path / "control").write_bytes(sealed(bytes(page)) * 2)
    check_unsupported(tmp_path, "has format 3; this version of Bezant reads format 2: start the newer version")


EARLIER: Final = (
    "has format 1, made by an earlier development version of Bezant; .* export the history with the version"
)


def test_a_log_of_the_format_before_is_refused_in_words(tmp_path: Path) -> None:
    Writer(tmp_path).close()
    path = segment_path(tmp_path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<i", data, 16, 1)
    path.write_bytes(sealed(bytes(data[:SEGMENT_HEADER_SIZE])) + data[SEGMENT_HEADER_SIZE:])
    check_unsupported(tmp_path, EARLIER)
    damaged = struct.pack("<i", 1)
    path.write_bytes(sealed(bytes(data[:SEGMENT_HEADER_SIZE]))[:16] + damaged + b"x" + bytes(len(data) - 21))
    with pytest.raises(CorruptLog, match="the header of the segment is damaged"):
        open_entries(tmp_path)


def test_a_control_page_of_the_format_before_is_refused_in_words(tmp_path: Path) -> None:
    Writer(tmp_path).close()
    page = bytearray(newest_page(tmp_path).tobytes())
    struct.pack_into("<i", page, 16, 1)
    (tmp_path / "control").write_bytes(sealed(bytes(page)) * 2)
    check_unsupported(tmp_path, EARLIER)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"kind": 7}, "entry 7 has kind 7, which"),
        ({"kind": -1}, "entry 7 has kind -1, which"),
        ({"format_version": 3}, "entry 7 has format 3, which"),
        ({"rules_version": RULES_VERSION + 1}, f"entry 7 has rules {RULES_VERSION + 1}, which"),
    ],
)
@pytest.mark.parametrize("control", ["up to date", "forgotten"])
def test_an_entry_of_a_newer_version_is_refused_and_not_cut_off(
    tmp_path: Path, history: History, change: dict[str, int], words: str, control: str
) -> None:
    """Even if no watermark vouches for it: it is whole, so it is not damage."""
    remains = Remains.of(history, FORGOTTEN if control == "forgotten" else history.controls[-1])
    _, place = remains.where[COUNT]
    data = history.segments[1]
    header = decode_header(as_bytes(data[place.start : place.body]))
    assert header is not None
    entry = encode_entry(header._replace(**change), data[place.body : place.end])
    remains.put(1, place.start, entry.encoded).save(tmp_path)
    check_unsupported(tmp_path, words)


def check_unsupported(folder: Path, words: str) -> None:
    before = contents(folder)
    for writable in (False, True):
        with pytest.raises(UnsupportedFormat, match=words):
            open_entries(folder, writable=writable)
    assert contents(folder) == before
