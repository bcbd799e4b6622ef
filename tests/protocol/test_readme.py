"""Claim: the specification, protocol/README.md and its pages, says what the code does, table by table, byte by byte.

A table is found by the heading above it and, where a section has several, by its first column. The worked example is
computed from the values that it talks about, and must be what is printed.
"""

import re
from enum import IntEnum
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

import msgspec
import numpy as np
import pytest

from bezant.engine.ledger import checks
from bezant.protocol import (
    access,
    frames,
    history_messages,
    kinds,
    messages,
    metadata,
    money,
    moves,
    names,
    peer_frames,
    placement,
    records,
    statistics,
    transactions,
)
from bezant.protocol.codes import RESULT_CODES, ResultCode
from bezant.protocol.frames import CLOSES_CONNECTION, FrameError, FrameFlag, Operation, decode_header, encode_frame
from bezant.protocol.kinds import AccountFlag, CommandField, CommandFlag, CommandKind, EntryKind, ResultFlag
from bezant.protocol.messages import Hello, Welcome, encode_message
from bezant.protocol.names import account_id, slot_of
from bezant.protocol.records import COMMAND, EVENT, RESULT, id_words

FOLDER = Path(__file__).parents[2] / "protocol"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.md"))}
SPECIFICATION = "\n".join(PAGES.values())
Row = dict[str, str]


def section(heading: str) -> str:
    """The text below a heading, up to the next one of any level."""
    match = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", SPECIFICATION, re.MULTILINE | re.DOTALL)
    assert match, f"no page has a section {heading!r}"
    return match[1]


def table(heading: str, first_column: str) -> list[Row]:
    """The rows of the table in a section whose first column is so named, with backquotes taken off."""
    lines = section(heading).splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith(f"| {first_column} |")]
    assert len(starts) == 1, f"{heading!r} must have one table that begins with {first_column!r}"
    found = []
    for line in lines[starts[0] :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip().strip("`") for cell in line.strip().strip("|").split("|")])
    head, rule, *rows = found
    assert set("".join(rule)) == {"-"}
    assert all(len(row) == len(head) for row in rows), heading
    return [dict(zip(head, row, strict=True)) for row in rows]


TYPE_NAMES = {"i": "int", "u": "uint", "S": "text", "V": "bytes"}


def layout_of(dtype: np.dtype[np.void], start: int = 0) -> list[tuple[int, int, str, str]]:
    """(offset, size, type, field) of every field from `start` on, with the two words of an id as one field."""
    rows = []
    for name in dtype.names or ():
        kind, offset = (dtype.fields or {})[name][:2]
        if offset < start or name.endswith("_tail"):
            continue
        if name.endswith("_head"):
            rows.append((offset, 16, "id", name.removesuffix("_head")))
            continue
        bits = str(8 * kind.itemsize) if kind.kind in "iu" else ""
        rows.append((offset, kind.itemsize, TYPE_NAMES[kind.kind] + bits, name))
    return rows


# Heading, dtype, and the first byte that the table describes.
LAYOUTS = [
    ("Command", COMMAND, 0),
    ("Event", EVENT, 120),
    ("Result", RESULT, 0),
    ("Account", records.ACCOUNT, 0),
    ("Event query", records.EVENT_QUERY, 0),
    ("Event answer", records.EVENT_ANSWER, 0),
    ("Pushed event", records.PUSHED_EVENT, 0),
    ("Progress", records.PROGRESS, 0),
    ("Entry header", records.ENTRY_HEADER, 0),
    ("Segment header", records.SEGMENT_HEADER, 0),
    ("Control page", records.CONTROL_PAGE, 0),
    ("Vote slot", records.VOTE_SLOT, 0),
]


@pytest.mark.parametrize(("heading", "dtype", "start"), LAYOUTS, ids=[heading for heading, _, _ in LAYOUTS])
def test_byte_tables_are_the_layouts(heading: str, dtype: np.dtype[np.void], start: int) -> None:
    printed = [(int(row["offset"]), int(row["size"]), row["type"], row["field"]) for row in table(heading, "offset")]
    assert printed == layout_of(dtype, start)
    assert section(heading).lstrip().startswith(f"{dtype.itemsize} bytes")


def test_every_record_has_a_byte_table() -> None:
    described = {id(dtype) for _, dtype, _ in LAYOUTS}
    defined = {id(value) for value in vars(records).values() if isinstance(value, np.dtype)} - {id(records._dtype)}
    assert described >= defined


def test_the_frame_header_is_the_one_that_is_sent() -> None:
    """Each row of the table is decoded by hand from a frame whose fields all differ."""
    frame = encode_frame(2, 3, b"body", flags=4, timeout_ms=5, shard=6, map_version=7)
    end = 0
    for row in table("Frame header", "offset"):
        offset, size = int(row["offset"]), int(row["size"])
        assert offset == end
        assert row["type"] == f"uint{8 * size}"
        assert int.from_bytes(frame[offset : offset + size], "little") == getattr(decode_header(frame), row["field"])
        end = offset + size
    assert end == frames.FRAME_HEADER_SIZE
    assert tuple(row["field"] for row in table("Frame header", "offset")) == frames.FrameHeader._fields


NUMBERS: list[tuple[str, str, str, type[IntEnum] | Any]] = [
    ("Frame header", "bit", "flag", FrameFlag),
    ("Frame errors", "code", "error", FrameError),
    ("Operations", "number", "operation", Operation),
    ("Command kinds", "number", "kind", CommandKind),
    ("Command flags", "bit", "flag", CommandFlag),
    ("Command fields", "number", "field", CommandField),
    ("Result", "bit", "flag", ResultFlag),
    ("Account", "bit", "flag", AccountFlag),
    ("Result codes", "code", "name", ResultCode),
    ("Entry kinds", "number", "kind", EntryKind),
]


@pytest.mark.parametrize(("heading", "number", "name", "enum"), NUMBERS, ids=[row[3].__name__ for row in NUMBERS])
def test_numbers_have_the_names_that_the_tables_say(heading: str, number: str, name: str, enum: Any) -> None:
    printed = [(int(row[number]), row[name]) for row in table(heading, number)]
    assert printed == [(int(member), member.name) for member in enum]


def test_the_result_code_table_is_the_table_of_the_code() -> None:
    word = {True: "yes", False: "no"}
    printed = [tuple(row.values()) for row in table("Result codes", "code")]
    assert printed == [
        (
            str(int(row.code)),
            row.code.name,
            word[row.leaves_event],
            word[row.uses_id],
            word[row.retry_helps],
            str(row.http_status),
            row.meaning,
        )
        for row in RESULT_CODES
    ]


def test_kinds_have_the_fields_and_flags_that_the_ledger_lets_them_have() -> None:
    of_all = {CommandField.KIND, CommandField.FLAGS, CommandField.DEBIT, CommandField.CODE, CommandField.USER_DATA}
    of_all |= {CommandField.NONE, CommandField.CLIENT_TIMESTAMP_NS, CommandField.ID, CommandField.RESERVED}
    for row in table("Command kinds", "number"):
        kind = CommandKind[row["kind"]]
        fields, flags = set(row["fields"].split(", ")) - {"-"}, set(row["flags"].split(", ")) - {"-"}
        if kind > checks.KIND_LAST or kind is CommandKind.EXPIRE:
            assert fields == flags == set()
            continue
        if "name" in fields:
            fields = fields - {"name"} | {"credit", "reference"}
        used = {field for field in CommandField if not checks.FIELDS_NOT_ALLOWED[kind] >> field & 1} - of_all
        assert {field.name.lower() for field in used} == fields, kind
        allowed = {flag for flag in CommandFlag if flag & checks.FLAGS_ALLOWED[kind]}
        assert {flag.name for flag in allowed} == flags, kind


def test_frame_errors_close_the_connection_where_the_table_says() -> None:
    closing = {FrameError[row["error"]] for row in table("Frame errors", "code") if row["closes"] == "yes"}
    assert closing == CLOSES_CONNECTION


MESSAGE_MODULES = (access, messages, history_messages, metadata, moves, placement, statistics, transactions)
MESSAGES_DEFINED = [value for module in MESSAGE_MODULES for value in vars(module).values()]
MESSAGE_TYPES = [value for value in MESSAGES_DEFINED if isinstance(value, type) and value is not msgspec.Struct]
MESSAGE_TYPES = [value for value in MESSAGE_TYPES if issubclass(value, msgspec.Struct)]
MESSAGE_TYPES = [value for value in MESSAGE_TYPES if not value.__struct_config__.forbid_unknown_fields]  # strict twins


def type_text(kind: Any) -> str:
    """A field's type in the words of the specification."""
    if get_origin(kind) is list:
        return f"array of {type_text(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"map of {type_text(get_args(kind)[1])}"
    if get_origin(kind) is Literal:
        return "text"
    if isinstance(kind, UnionType):
        return " or ".join(type_text(part) for part in get_args(kind))
    return {str: "text", bytes: "bytes", int: "int", float: "float", bool: "bool", type(None): "nil"}.get(
        kind, kind.__name__
    )


@pytest.mark.parametrize("kind", MESSAGE_TYPES)
def test_messages_have_the_fields_that_the_tables_say(kind: type[msgspec.Struct]) -> None:
    printed = [(row["field"], row["type"], row["default"]) for row in table(kind.__name__, "field")]
    defined = []
    for field in msgspec.structs.fields(kind):
        default = (
            field.default_factory() if field.default is msgspec.NODEFAULT and not field.required else field.default
        )
        text = "" if field.required else msgspec.json.encode(default).decode()
        defined.append((field.encode_name, type_text(field.type), text))
    assert printed == defined


def test_limits_are_the_constants() -> None:
    constants = {**vars(frames), **vars(names), **vars(money), **vars(records), **vars(kinds)}
    constants |= vars(peer_frames) | vars(access)
    for row in table("Limits", "limit"):
        assert int(row["value"]) == constants[row["limit"]], row["limit"]


@pytest.mark.parametrize(
    ("operation", "count"),
    [
        (Operation.COMMANDS, frames.BATCH_COUNT_MAX),
        (Operation.LOOKUP_ACCOUNTS, frames.ACCOUNT_COUNT_MAX),
        (Operation.LOOKUP_EVENTS, frames.EVENT_COUNT_MAX),
        (Operation.EVENTS, frames.PUSHED_COUNT_MAX),
    ],
)
def test_operations_take_as_many_records_as_the_constants_say(operation: Operation, count: int) -> None:
    bodies = {row["operation"]: row["request body"] + row["reply body"] for row in table("Operations", "number")}
    assert re.search(rf"\bto {count} ", bodies[operation.name])


@pytest.mark.parametrize(
    ("heading", "field", "text"),
    [
        ("Segment header", "magic", records.SEGMENT_MAGIC.decode()),
        ("Control page", "magic", records.CONTROL_MAGIC.decode()),
        ("Segment header", "format_version", str(records.LOG_FORMAT_VERSION)),
        ("Control page", "format_version", str(records.LOG_FORMAT_VERSION)),
        ("Entry header", "format_version", str(records.LOG_FORMAT_VERSION)),
        ("Vote slot", "magic", records.VOTE_MAGIC.decode()),
        ("Vote slot", "format_version", str(records.VOTE_FORMAT_VERSION)),
        ("Frame header", "version", str(frames.PROTOCOL_VERSION)),
    ],
)
def test_fixed_values_are_the_constants(heading: str, field: str, text: str) -> None:
    assert {row["field"]: row["meaning"] for row in table(heading, "offset")}[field] == text


def test_names_give_the_ids_that_the_table_says() -> None:
    rows = table("Names and ids", "name")
    assert rows
    for row in rows:
        identifier = account_id(row["name"], row["currency"])
        assert (identifier.hex(), slot_of(identifier)) == (row["id"], int(row["slot"]))


def anchors(text: str) -> set[str]:
    """Where links within a page can lead."""
    return {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)$", text, re.M)
    }


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", PAGES[page]):
        path, _, anchor = target.partition("#")
        assert (FOLDER / path).exists(), target
        if anchor:
            assert anchor in anchors(PAGES[path or page]), target


def test_every_word_of_a_message_that_takes_only_some_is_told() -> None:
    for kind in MESSAGE_TYPES:
        meaning = {row["field"]: row["meaning"] for row in table(kind.__name__, "field")}
        for field in msgspec.structs.fields(kind):
            if get_origin(field.type) is Literal:
                assert set(get_args(field.type)) <= set(re.findall(r"\w+", meaning[field.name])), field.name


def test_a_group_has_as_many_members_as_the_page_says() -> None:
    assert f"{messages.MEMBERS_MAX} members (MEMBERS_MAX)" in PAGES["GROUPS.md"]
    assert f"from 1 to {messages.NODE_ID_MAX}" in PAGES["GROUPS.md"]


# ---- the worked example ----

EXAMPLE_ID = bytes.fromhex("017f22e279b07cc398c4dc0c0c07398f")
EXAMPLE_TIME_NS = 1_735_689_600_000_000_000
EXAMPLE_WELCOME = Welcome(
    server="bezant 0.1.0",
    protocol_version=1,
    log_id="00c0ffee00c0ffee",
    shard=0,
    rules_version=1,
    kernel_digest="7a1e",
    frame_size_max=frames.FRAME_SIZE_MAX,
    batch_count_max=frames.BATCH_COUNT_MAX,
    connection_bytes_in_flight_max=8 << 20,
    clock_ns=EXAMPLE_TIME_NS - 1_000_000_000,
)


def example_transfer() -> np.ndarray[Any, np.dtype[np.void]]:
    """12.50 EUR from the outside world to Ann's wallet."""
    commands = np.zeros(1, COMMAND)
    identifiers = {
        "id": EXAMPLE_ID,
        "debit": account_id("world", "EUR"),
        "credit": account_id("{ann}:wallet", "EUR"),
        "user_data": b"invoice 2025-117",
    }
    for field, identifier in identifiers.items():
        commands[f"{field}_head"], commands[f"{field}_tail"] = id_words(identifier)
    commands["amount"] = money.parse_amount("12.50", 2)
    commands["code"] = 7
    commands["kind"] = CommandKind.TRANSFER
    return commands


def example_result() -> np.ndarray[Any, np.dtype[np.void]]:
    """The third event of the log, after the openings of both accounts."""
    results = np.zeros(1, RESULT)
    results["code"] = ResultCode.COMMITTED
    results["position"] = records.position_of(0, 3)
    results["timestamp_ns"] = EXAMPLE_TIME_NS
    results["effective_amount"] = results["credit_balance"] = 1250
    results["debit_balance"] = -1250
    return results


EXAMPLES = [
    ("The client says hello", encode_frame(Operation.HELLO, 1, encode_message(Hello("example 1", 1)))),
    (
        "The node answers",
        encode_frame(Operation.HELLO, 1, encode_message(EXAMPLE_WELCOME), flags=FrameFlag.REPLY),
    ),
    ("The client sends one transfer", encode_frame(Operation.COMMANDS, 2, example_transfer(), timeout_ms=5000)),
    ("The node has done it", encode_frame(Operation.COMMANDS, 2, example_result(), flags=FrameFlag.REPLY)),
]


@pytest.mark.parametrize(("heading", "frame"), EXAMPLES, ids=[heading for heading, _ in EXAMPLES])
def test_the_worked_example_is_what_the_code_sends(heading: str, frame: bytes) -> None:
    """Each line of the listing is bytes in hex, at least two spaces, and a remark."""
    blocks = re.findall(r"^```text\n(.*?)^```", section(heading), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 1
    printed = bytes.fromhex("".join(line.split("  ")[0] for line in blocks[0].splitlines()))
    assert printed == frame
    frames.check_frame(printed)
