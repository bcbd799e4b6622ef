"""Claim: control messages survive the wire, tolerate later versions, and refuse everything else as the peer's fault."""

from base64 import b64encode

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bezant.protocol import access, messages, moves, placement
from bezant.protocol.access import (
    Act,
    ChangeTokens,
    NoteAct,
    Scope,
    StrictAct,
    StrictToken,
    StrictTokenChange,
    Token,
    TokenChange,
    Tokens,
)
from bezant.protocol.errors import RemoteProtocolError, UnsupportedFormat
from bezant.protocol.messages import (
    INCARNATION_MAX,
    MEMBERS_MAX,
    NODE_ID_MAX,
    Acknowledge,
    ChangeMembers,
    Configuration,
    ControlEntry,
    Currencies,
    Currency,
    ErrorMessage,
    GroupFacts,
    Hello,
    KeepPositions,
    ListAccounts,
    Member,
    MembersChanged,
    MembersStatus,
    MemberStatus,
    PeerHello,
    StrictConfiguration,
    StrictControlEntry,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Welcome,
    decode_configuration,
    decode_control_entry,
    decode_message,
    encode_message,
)
from bezant.protocol.moves import (
    MoveCurrency,
    Moves,
    MoveSlots,
    MoveStatus,
    MoveStep,
    SlotsTaken,
    StrictMoveStep,
    TakeSlots,
)
from bezant.protocol.placement import SLOT_COUNT, ReplaceMap, ShardPlace, SlotMap, StrictSlotMap

EUR = Currency("EUR", 2)
MEMBER = Member(1, INCARNATION_MAX, "a:1", "a:2")
MEMBER_JSON = '{"node_id":1,"incarnation":9223372036854775807,"peer_address":"a:1","client_address":"a:2"}'
TOKEN = Token("abcdef012345", b"d" * 3, [Scope.READ, Scope.TRANSFER], ["shop:"], "the shop", 1, 2)
TOKEN_JSON = (
    '{"token_id":"abcdef012345","digest":"ZGRk","scopes":["read","transfer"],"prefixes":["shop:"],"note":"the shop",'
    '"created_ns":1,"revoked_ns":2}'
)
ACT = Act("abcdef012345", "CHANGE_MEMBERS", "remove node 3", "no")
ACT_JSON = '{"token_id":"abcdef012345","operation":"CHANGE_MEMBERS","what":"remove node 3","outcome":"no"}'
ALONE = Configuration([MEMBER], [1])
ALONE_JSON = f'{{"members":[{MEMBER_JSON}],"voters":[1],"voters_outgoing":[],"learners":[],"learners_next":[]}}'
SLOT_MAP = SlotMap(2, (7).to_bytes(2, "little") * SLOT_COUNT, [ShardPlace(7, ["a:1"])])
SLOTS_JSON = b64encode(SLOT_MAP.slots).decode()
SLOT_MAP_JSON = f'{{"version":2,"slots":"{SLOTS_JSON}","shards":[{{"shard":7,"addresses":["a:1"]}}]}}'
WELCOME = Welcome("bezant 0.1.0", 1, "00000000000000ff", 0, 1, "d1", 1 << 20, 8191, 8 << 20, 1_700_000_000_000_000_000)

# Every message and, as JSON, the map of names that it is on the wire.
SLOTS = b"\x01" + bytes(511)
SLOTS_JSON = b64encode(SLOTS).decode()
STEP = MoveStep(b"m" * 16, "sealed", 7, SLOTS)
STEP_JSON = f'{{"move":"bW1tbW1tbW1tbW1tbW1tbQ==","phase":"sealed","peer":7,"slots":"{SLOTS_JSON}"}}'
MESSAGES: list[tuple[msgspec.Struct, str]] = [
    (Hello("test", 1), '{"client":"test","protocol_version":1,"token":""}'),
    (Hello("test", 1, "secret"), '{"client":"test","protocol_version":1,"token":"secret"}'),
    (
        WELCOME,
        '{"server":"bezant 0.1.0","protocol_version":1,"log_id":"00000000000000ff","shard":0,"rules_version":1,'
        '"kernel_digest":"d1","frame_size_max":1048576,"batch_count_max":8191,'
        '"connection_bytes_in_flight_max":8388608,"clock_ns":1700000000000000000,"node_id":0,"leader":"","members":[],'
        '"reader":"","map_version":0}',
    ),
    (
        msgspec.structs.replace(WELCOME, node_id=2, leader="b:1", members=["a:1", "b:1"], reader="b:3", map_version=4),
        '{"server":"bezant 0.1.0","protocol_version":1,"log_id":"00000000000000ff","shard":0,"rules_version":1,'
        '"kernel_digest":"d1","frame_size_max":1048576,"batch_count_max":8191,'
        '"connection_bytes_in_flight_max":8388608,"clock_ns":1700000000000000000,"node_id":2,"leader":"b:1",'
        '"members":["a:1","b:1"],"reader":"b:3","map_version":4}',
    ),
    (ErrorMessage(4, "no such operation"), '{"code":4,"message":"no such operation","leader":"","map_version":0}'),
    (ErrorMessage(9, "b leads", "b:1"), '{"code":9,"message":"b leads","leader":"b:1","map_version":0}'),
    (ErrorMessage(13, "elsewhere", "", 5), '{"code":13,"message":"elsewhere","leader":"","map_version":5}'),
    (ListAccounts(0, 1000), '{"cursor":0,"count":1000}'),
    (
        Subscribe(bytes(range(16)), "EUR", [2, 4], True, -5, "00000000000000ff", "mail", True),
        '{"accounts":"AAECAwQFBgcICQoLDA0ODw==","currency":"EUR","kinds":[2,4],"refused":true,"after":-5,'
        '"log_id":"00000000000000ff","name":"mail","more":true}',
    ),
    (
        Subscribe(),
        '{"accounts":"","currency":"","kinds":[],"refused":false,"after":null,"log_id":"","name":"","more":false}',
    ),
    (Subscribed(0, 7), '{"after":0,"last_position":7}'),
    (Unsubscribe(2**63), '{"subscription":9223372036854775808}'),
    (Acknowledge("mail", 7, "00000000000000ff"), '{"name":"mail","position":7,"log_id":"00000000000000ff"}'),
    (EUR, '{"code":"EUR","decimals":2}'),
    (Currencies([EUR]), '{"currencies":[{"code":"EUR","decimals":2}]}'),
    (Currencies([]), '{"currencies":[]}'),
    (ControlEntry(), "{}"),
    (SLOT_MAP, SLOT_MAP_JSON),
    (SLOT_MAP.shards[0], '{"shard":7,"addresses":["a:1"]}'),
    (ReplaceMap(1, SLOT_MAP), f'{{"expected_version":1,"map":{SLOT_MAP_JSON}}}'),
    (ControlEntry(slot_map=SLOT_MAP), f'{{"slot_map":{SLOT_MAP_JSON}}}'),
    (ControlEntry(positions={"mail": 7}), '{"positions":{"mail":7}}'),
    (STEP, STEP_JSON),
    (ControlEntry(move=STEP), f'{{"move":{STEP_JSON}}}'),
    (MoveSlots(b"m" * 16, SLOTS, 7), f'{{"move":"bW1tbW1tbW1tbW1tbW1tbQ==","slots":"{SLOTS_JSON}","to":7}}'),
    (
        TakeSlots(b"m" * 16, 7, SLOTS, "prepare", 1, 2, [MoveCurrency("EUR", 2, 300)]),
        f'{{"move":"bW1tbW1tbW1tbW1tbW1tbQ==","source":7,"slots":"{SLOTS_JSON}","part":"prepare","accounts":1,"holds":2,'
        '"currencies":[{"code":"EUR","decimals":2,"total":300}]}',
    ),
    (MoveCurrency("EUR", 2, 300), '{"code":"EUR","decimals":2,"total":300}'),
    (SlotsTaken(True), '{"is_taken":true}'),
    (
        Moves([MoveStatus("6d", 7, 1, "sealed", 2, 99.5, 0.5, "slow")]),
        '{"moves":[{"move":"6d","to":7,"slots":1,"phase":"sealed","copied":2,"log_percent":99.5,"gap_ms":0.5,'
        '"problem":"slow"}]}',
    ),
    (
        MoveStatus("6d", 7, 1, "copying"),
        '{"move":"6d","to":7,"slots":1,"phase":"copying","copied":0,"log_percent":0.0,"gap_ms":0.0,"problem":""}',
    ),
    (KeepPositions({"mail": 7}, "00000000000000ff"), '{"positions":{"mail":7},"log_id":"00000000000000ff"}'),
    (
        ControlEntry([EUR], 1, "bezant 0.1.0", ALONE, settled=b"\x07" + bytes(7)),
        '{"currencies":[{"code":"EUR","decimals":2}],"rules_version":1,"created_by":"bezant 0.1.0",'
        f'"configuration":{ALONE_JSON},"settled":"BwAAAAAAAAA="}}',
    ),
    (
        PeerHello("00000000000000ff", 1, 2, 3, 4, 1, 2, 1, 9, "bezant 0.1.0", 5, True, 6, 2, b"\x07"),
        '{"log_id":"00000000000000ff","node_id":1,"incarnation":2,"receiver":3,"receiver_incarnation":4,'
        '"protocol_version":1,"log_format_version":2,"rules_version_max":1,"clock_ns":9,"server":"bezant 0.1.0",'
        '"run_id":5,"blank":true,"term":6,"entries_version":2,"proof":"Bw=="}',
    ),
    (MEMBER, MEMBER_JSON),
    (ALONE, ALONE_JSON),
    (
        MemberStatus(1, 2, "a:1", "a:2", "leader", "voter", 3, 4, 5, 6, True, 7, 8, 99.5, -9, "slow"),
        '{"node_id":1,"incarnation":2,"peer_address":"a:1","client_address":"a:2","role":"leader","voting":"voter",'
        '"term":3,"match_index":4,"last_index":5,"commit_index":6,"active":true,"lag_entries":7,"lag_bytes":8,'
        '"history_percent":99.5,"clock_offset_ns":-9,"problem":"slow"}',
    ),
    (
        MembersStatus(1, 2, 3, 4, [], True, "odd"),
        '{"node_id":1,"leader":2,"term":3,"commit_index":4,"members":[],"joint":true,"problem":"odd"}',
    ),
    (
        ChangeMembers("add", 4, 5, "a:1", "a:2", 6),
        '{"action":"add","node_id":4,"incarnation":5,"peer_address":"a:1","client_address":"a:2","expected_term":6}',
    ),
    (
        MembersChanged(1, 2, 3, ALONE, "even"),
        f'{{"leader":1,"term":2,"index":3,"configuration":{ALONE_JSON},"remark":"even"}}',
    ),
    (TOKEN, TOKEN_JSON),
    (ChangeTokens(TOKEN, "b"), f'{{"create":{TOKEN_JSON},"revoke":"b"}}'),
    (NoteAct("CREATE_WEBHOOK", "a"), '{"operation":"CREATE_WEBHOOK","what":"a"}'),
    (Tokens([TOKEN]), f'{{"tokens":[{TOKEN_JSON}]}}'),
    (TokenChange(TOKEN, "b"), f'{{"created":{TOKEN_JSON},"revoked":"b"}}'),
    (ACT, ACT_JSON),
    (ControlEntry(token=TokenChange(revoked="b")), '{"token":{"revoked":"b"}}'),
    (ControlEntry(act=ACT), f'{{"act":{ACT_JSON}}}'),
    (GroupFacts(5, 0, 7, ALONE), f'{{"log_id":5,"shard":0,"index":7,"configuration":{ALONE_JSON}}}'),
]
TYPES = sorted({type(message) for message, _ in MESSAGES}, key=lambda kind: kind.__name__)

REFUSED = [
    ("nothing", b""),
    ("no map", b"\x01"),
    ("an array", b"\x92\xa1t\x01"),
    ("a field is missing", b"\x81\xa6client\xa1t"),
    ("a field of another type", b"\x82\xa6client\xa1t\xb0protocol_version\xa11"),
    ("an integer as a float", b"\x82\xa6client\xa1t\xb0protocol_version\xcb\x3f\xf8\0\0\0\0\0\0"),
    ("a key that is no string", b"\x83\xa6client\xa1t\xb0protocol_version\x01\xc0\xc0"),
    ("bytes behind the message", encode_message(Hello("t", 1)) + b"\x00"),
    ("cut short", encode_message(Hello("t", 1))[:-1]),
    ("a string that is not UTF-8", b"\x82\xa6client\xa1\xff\xb0protocol_version\x01"),
    ("a key that is not UTF-8", b"\x81\xa2\xff\xfe\x01"),
    ("nested without end", b"\x81\xa1x" + b"\x91" * 200_000 + b"\xc0"),
    ("a length beyond all memory", b"\x81\xa1x\xdd\xff\xff\xff\xff"),
    ("a string longer than the body", b"\x81\xa6client\xdb\xff\xff\xff\xff"),
]


def test_every_message_of_the_module_is_tested_here() -> None:
    defined = {
        value
        for module in (messages, moves, placement, access)
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value is not msgspec.Struct
        if not value.__struct_config__.forbid_unknown_fields  # twins, for reading the log; see below
    }
    assert set(TYPES) == defined


@pytest.mark.parametrize(("message", "names"), MESSAGES)
def test_messages_survive_the_wire_under_frozen_names(message: msgspec.Struct, names: str) -> None:
    body = encode_message(message)
    assert decode_message(body, type(message)) == message
    assert decode_message(memoryview(bytearray(body)), type(message)) == message
    assert msgspec.json.encode(msgspec.msgpack.decode(body)).decode() == names


@pytest.mark.parametrize("kind", TYPES)
def test_fields_of_a_later_version_are_ignored(kind: type[msgspec.Struct]) -> None:
    message = next(message for message, _ in MESSAGES if type(message) is kind)
    later = msgspec.msgpack.decode(encode_message(message)) | {"from_the_future": [1, {"deep": None}]}
    assert decode_message(msgspec.msgpack.encode(later), kind) == message


UNKNOWN: dict[str, dict[str, object]] = {
    "a field": {"members": ["x"]},
    "a field that is no text": {"members": b"\xff"},
    "a field of a configuration": {"configuration": msgspec.to_builtins(ALONE) | {"cap": 9}},
    "a field of a shard": {
        "slot_map": msgspec.structs.asdict(SLOT_MAP) | {"shards": [{"shard": 7, "addresses": ["a:1"], "cap": 9}]}
    },
    "a field of a currency": {"currencies": [{"code": "EUR", "decimals": 2}, {"code": "X", "decimals": 1, "cap": 9}]},
    "one nested as deep as nobody reads": {"members": [[[[{"deep": None}]]]]},
}


@pytest.mark.parametrize("fields", UNKNOWN.values(), ids=UNKNOWN)
def test_a_control_entry_of_a_later_version_is_refused(fields: dict[str, object]) -> None:
    """It may change the state in a way that an older node would pass over."""
    entry = msgspec.msgpack.decode(encode_message(ControlEntry([EUR], 1))) | fields
    with pytest.raises(UnsupportedFormat, match=r"unknown field `(members|cap)`"):
        decode_control_entry(msgspec.msgpack.encode(entry))


def test_a_field_that_is_not_even_text_is_refused_unread() -> None:
    body = b"\x82\xadrules_version\x01\xa7members\xa1\xff"
    with pytest.raises(UnsupportedFormat, match="unknown field `members`"):
        decode_control_entry(body)


@pytest.mark.parametrize("entry", [ControlEntry(), ControlEntry([EUR, Currency("X", 0)], 1, "bezant 0.1.0")])
def test_a_control_entry_comes_back_as_it_was(entry: ControlEntry) -> None:
    assert decode_control_entry(encode_message(entry)) == entry
    assert decode_control_entry(b"\x80") == ControlEntry()


def test_a_body_that_is_no_control_entry_is_not_one_of_a_later_version() -> None:
    for body in (b"", b"\xc1", b"\x81\xadrules_version\xa11", b"\x81\xaacurrencies\x91\x81\xa4code\xa1X"):
        with pytest.raises(RemoteProtocolError, match="the body is not a ControlEntry"):
            decode_control_entry(body)


def test_nothing_within_a_control_entry_may_have_unknown_fields() -> None:
    """Also what is added to it later."""
    structs = []

    def walk(kind: msgspec.inspect.Type) -> None:
        if isinstance(kind, msgspec.inspect.StructType):
            structs.append(kind)
            for field in kind.fields:
                walk(field.type)
        elif isinstance(kind, msgspec.inspect.ListType):
            walk(kind.item_type)
        elif isinstance(kind, msgspec.inspect.DictType):
            walk(kind.value_type)
        elif isinstance(kind, msgspec.inspect.UnionType):
            for part in kind.types:
                walk(part)
        else:
            plain = msgspec.inspect.StrType | msgspec.inspect.IntType | msgspec.inspect.NoneType
            plain |= msgspec.inspect.BytesType | msgspec.inspect.LiteralType | msgspec.inspect.EnumType
            assert isinstance(kind, plain), f"look into {kind} as well"

    walk(msgspec.inspect.type_info(StrictControlEntry))
    assert len(structs) == 10
    assert all(kind.forbid_unknown_fields for kind in structs)
    assert StrictControlEntry.__struct_fields__ == ControlEntry.__struct_fields__
    assert StrictConfiguration.__struct_fields__ == Configuration.__struct_fields__
    assert StrictSlotMap.__struct_fields__ == SlotMap.__struct_fields__
    assert StrictMoveStep.__struct_fields__ == MoveStep.__struct_fields__
    assert StrictTokenChange.__struct_fields__ == TokenChange.__struct_fields__
    assert StrictToken.__struct_fields__ == Token.__struct_fields__
    assert StrictAct.__struct_fields__ == Act.__struct_fields__


def members(*node_ids: int) -> list[Member]:
    return [Member(node_id, 10 + node_id, f"p:{node_id}", f"c:{node_id}") for node_id in node_ids]


GOOD = {
    "alone": Configuration(members(1), [1]),
    "three": Configuration(members(1, 2, 3), [3, 1, 2]),
    "a learner": Configuration(members(1, 2), [1], learners=[2]),
    "joint": Configuration(members(1, 2, 3, 4), [1, 2, 4], [1, 2, 3]),
    "a voter leaves to learn": Configuration(members(1, 2, 3), [1, 2], [1, 2, 3], learners_next=[3]),
    "all are replaced": Configuration(members(1, 2), [2], [1]),
    "as many as there may be": Configuration(members(*range(1, MEMBERS_MAX + 1)), list(range(1, MEMBERS_MAX + 1))),
    "no addresses": Configuration([Member(1, 1, "", ""), Member(NODE_ID_MAX, 1, "", "")], [1, NODE_ID_MAX]),
}
BAD: list[tuple[str, dict[str, object]]] = [
    ("a group needs a voter", {"voters": [], "learners": [1, 2, 3]}),
    ("two members have the node id 2", {"members": [*members(1, 2, 3), *members(2)]}),
    ("15 members at most, not 16", {"members": members(*range(1, 17)), "voters": list(range(1, 17))}),
    ("node 2 is twice in one list", {"voters": [1, 2, 3, 2]}),
    ("node 1 is twice in one list", {"voters_outgoing": [1, 2, 3, 1]}),
    ("node 4 is in a list, and not among the members", {"voters": [1, 2, 3, 4]}),
    ("node 4 is in a list, and not among the members", {"voters_outgoing": [4]}),
    ("node 4 is in a list, and not among the members", {"learners": [4]}),
    ("node 3 is a member, and in no list", {"voters": [1, 2]}),
    ("node 3 is a voter and a learner at once", {"learners": [3]}),
    ("node 3 is a voter and a learner at once", {"voters": [1, 2], "voters_outgoing": [3], "learners": [3]}),
    ("node 3 is to become a learner, and is no outgoing voter", {"learners_next": [3]}),
    ("node 3 is to become a learner, and is to stay", {"voters_outgoing": [3], "learners_next": [3]}),
    ("the address p:1 is given twice", {"members": [*members(1, 2), Member(3, 1, "p:1", "")]}),
    ("the address p:9 is given twice", {"members": [*members(1, 2), Member(3, 1, "p:9", "p:9")]}),
]


@pytest.mark.parametrize("configuration", GOOD.values(), ids=GOOD)
def test_a_configuration_comes_back_as_it_was(configuration: Configuration) -> None:
    assert decode_configuration(encode_message(configuration)) == configuration
    control = ControlEntry(configuration=configuration)
    assert decode_control_entry(encode_message(control)) == control


@pytest.mark.parametrize(("why", "changes"), BAD)
def test_a_configuration_that_no_group_can_work_with_is_refused_in_words(why: str, changes: dict[str, object]) -> None:
    good = {"members": members(1, 2, 3), "voters": [1, 2, 3], "voters_outgoing": [], "learners": []}
    Configuration(**good)
    with pytest.raises(ValueError, match=why):
        Configuration(**good | changes)
    with pytest.raises(RemoteProtocolError, match=why):
        decode_configuration(msgspec.msgpack.encode(good | changes))


@pytest.mark.parametrize(("node_id", "incarnation"), [(0, 1), (-1, 1), (NODE_ID_MAX + 1, 1), (1, 0), (1, 1 << 63)])
def test_numbers_that_no_member_has(node_id: int, incarnation: int) -> None:
    with pytest.raises(ValueError, match="of a node is 1 to "):
        Member(node_id, incarnation, "a:1", "a:2")


@pytest.mark.parametrize("where", ["configuration", "member"])
def test_a_configuration_entry_of_a_later_version_is_refused(where: str) -> None:
    entry = msgspec.msgpack.decode(encode_message(ALONE))
    (entry if where == "configuration" else entry["members"][0])["cap"] = 1
    assert decode_message(msgspec.msgpack.encode(entry), Configuration) == ALONE
    with pytest.raises(UnsupportedFormat, match=r"the configuration entry says more.*unknown field `cap`"):
        decode_configuration(msgspec.msgpack.encode(entry))


@pytest.mark.parametrize("action", ["", "ADD", "sack"])
def test_there_are_five_ways_to_change_members(action: str) -> None:
    with pytest.raises(RemoteProtocolError, match="the body is not a ChangeMembers"):
        decode_message(msgspec.msgpack.encode({"action": action, "node_id": 1}), ChangeMembers)


def test_fields_added_since_the_first_version_may_be_missing() -> None:
    assert decode_message(b"\x82\xa6client\xa1t\xb0protocol_version\x01", Hello) == Hello("t", 1, "")


@pytest.mark.parametrize(("_what", "body"), REFUSED, ids=[what for what, _ in REFUSED])
def test_a_body_that_is_not_the_message_is_the_peers_fault(_what: str, body: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="the body is not a Hello: "):
        decode_message(body, Hello)


@pytest.mark.parametrize("kind", TYPES)
@given(body=st.binary(max_size=60))
def test_random_bytes_are_a_message_or_the_peers_fault(kind: type[msgspec.Struct], body: bytes) -> None:
    try:
        message = decode_message(body, kind)
    except RemoteProtocolError:
        return
    assert isinstance(message, kind)


@given(st.integers(0, 2**64 - 1), st.text(max_size=50))
def test_every_error_message_survives(code: int, text: str) -> None:
    message = ErrorMessage(code, text)
    assert decode_message(encode_message(message), ErrorMessage) == message
