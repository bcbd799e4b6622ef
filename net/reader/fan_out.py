"""Compiled work of subscriptions: which events go to whom, and the frames that they go in. One pass for a batch.

A filter of accounts is a list of (account, subscription) pairs in one hash table over all subscriptions: an account
leads to a chain of nodes, one for each subscription that has it. So a batch costs two look-ups an event, and then what
is delivered, however many subscribe.
"""

# ruff: noqa: PLR0917, PLR1714 - kernels take plain arrays and compare plain numbers

from typing import Any, Final, NamedTuple

import numpy as np

from bezant.engine.compiled import inlined, kernel
from bezant.engine.hashing import XXH3_SHORT_MAX, mix_words, store_word, xxh3_64
from bezant.protocol.frames import FRAME_HEADER_SIZE, PROTOCOL_VERSION, PUSHED_COUNT_MAX, FrameFlag, Operation
from bezant.protocol.kinds import CommandKind
from bezant.protocol.records import EVENT_SIZE, PROGRESS_SIZE, PUSHED_EVENT_SIZE, Bytes, Words

MODE_FREE: Final = 0
MODE_LIVE: Final = 1
"""Is told of each batch as it is committed."""
MODE_CATCHING: Final = 2
"""Is told from the log, until it is level."""
MODE_HELD: Final = 3
"""Is told nothing: its client does not read."""

SUB_MODE, SUB_AFTER, SUB_CURRENCY, SUB_KINDS, SUB_REFUSED, SUB_STAMP, SUB_REQUEST_ID, SUB_TOLD, SUB_COUNT = range(9)
SUB_WORDS: Final = 9
"""Columns of a subscription: mode; sequence behind which it is told; currency (0: any); kinds as bits (0: any); 1 if it
gets refused commands, too; the last event that matched; request id; the last position that its client was told; events
that are being laid out for it."""

META_FREE, META_NODES, META_KEYS, META_SALT_1, META_SALT_2, META_EVERYTHING = range(6)
META_WORDS: Final = 6
"""Of `Filters`: first free node; nodes ever used; keys in the table; salts; subscriptions that have all accounts."""

_NODE_SUB, _NODE_NEXT = range(2)
_NONE: Final = 0
"""A chain's end; nodes are numbered from 1."""

_EVENT_WORDS: Final = EVENT_SIZE // 8
_PUSHED_WORDS: Final = PUSHED_EVENT_SIZE // 8
_HEADER_WORDS: Final = FRAME_HEADER_SIZE // 8
_DEBIT_AT: Final = 2
_CREDIT_AT: Final = 4
_CURRENCY_AT: Final = 12
_KIND_AT: Final = 14
_KIND_SHIFT: Final = 48
_RESULT_AT: Final = 15
_OPEN: Final = int(CommandKind.OPEN)
_MOVE_OPEN: Final = int(CommandKind.MOVE_OPEN)
"""The first of the kinds that no subscription gets: slots that move are nobody's news."""
_EVENTS_HEAD: Final = int(Operation.EVENTS) << 32 | PROTOCOL_VERSION << 40 | int(FrameFlag.REPLY) << 48
_PROGRESS_HEAD: Final = int(Operation.PROGRESS) << 32 | PROTOCOL_VERSION << 40 | int(FrameFlag.REPLY) << 48
"""The second word of a frame's header without its length."""
PROGRESS_FRAME_SIZE: Final = FRAME_HEADER_SIZE + PROGRESS_SIZE

if (EVENT_SIZE, PUSHED_EVENT_SIZE, FRAME_HEADER_SIZE, PROGRESS_SIZE) != (192, 208, 32, 32):
    raise AssertionError("the layouts are not those that the kernels write")


class Filters(NamedTuple):
    """Accounts of subscriptions: `slots` of shape (capacity, 3) have id head, id tail and first node; `nodes` of shape
    (count, 2), numbered from 1, a subscription and the next node; `everything` the subscriptions to all accounts."""

    slots: Words
    nodes: Words
    everything: Words
    meta: Words


@inlined
def find_place(table: Words, head: int, tail: int, salt_1: int, salt_2: int) -> int:
    """The slot of an id in a table whose rows begin with ids, or the empty one where it would be."""
    mask = len(table) - 1
    slot: int = mix_words(head, tail, 0, salt_1, salt_2) & mask
    while (table[slot, 0] != 0 or table[slot, 1] != 0) and (table[slot, 0] != head or table[slot, 1] != tail):
        slot = (slot + 1) & mask
    return slot


@kernel
def add_accounts(filters: Filters, ids: Words, subscription: int) -> None:
    """Add a subscription to the chains of its accounts (shape (count, 2)); there must be room for all of them.

    An account that stands there twice counts once.
    """
    meta, nodes = filters.meta, filters.nodes
    for number in range(len(ids)):
        slot = find_place(filters.slots, ids[number, 0], ids[number, 1], meta[META_SALT_1], meta[META_SALT_2])
        if filters.slots[slot, 0] == 0 and filters.slots[slot, 1] == 0:
            filters.slots[slot, 0], filters.slots[slot, 1] = ids[number, 0], ids[number, 1]
            filters.slots[slot, 2] = _NONE
            meta[META_KEYS] += 1
        first = filters.slots[slot, 2]
        if first != _NONE and nodes[first, _NODE_SUB] == subscription:
            continue
        node = meta[META_FREE]
        if node != _NONE:
            meta[META_FREE] = nodes[node, _NODE_NEXT]
        else:
            meta[META_NODES] += 1
            node = meta[META_NODES]
        nodes[node, _NODE_SUB], nodes[node, _NODE_NEXT] = subscription, first
        filters.slots[slot, 2] = node


@kernel
def remove_accounts(filters: Filters, ids: Words, subscription: int) -> None:
    """Take a subscription out of the chains of its accounts. The keys stay until the table is made anew."""
    meta, nodes = filters.meta, filters.nodes
    for number in range(len(ids)):
        slot = find_place(filters.slots, ids[number, 0], ids[number, 1], meta[META_SALT_1], meta[META_SALT_2])
        before: Any = np.int64(_NONE)
        node = filters.slots[slot, 2]
        while node != _NONE and nodes[node, _NODE_SUB] != subscription:
            before, node = node, nodes[node, _NODE_NEXT]
        if node == _NONE:
            continue
        if before == _NONE:
            filters.slots[slot, 2] = nodes[node, _NODE_NEXT]
        else:
            nodes[before, _NODE_NEXT] = nodes[node, _NODE_NEXT]
        nodes[node, _NODE_SUB], nodes[node, _NODE_NEXT] = 0, meta[META_FREE]
        meta[META_FREE] = node


@kernel
def move_slots(old: Words, new: Words, salts: Words, drop_empty: bool) -> int:
    """Put the rows of a table (id head, id tail, value) into an empty one, without those whose value is 0 if they are
    to be dropped; returns how many there are."""
    count = 0
    for number in range(len(old)):
        if (old[number, 0] == 0 and old[number, 1] == 0) or (drop_empty and old[number, 2] == 0):
            continue
        slot = find_place(new, old[number, 0], old[number, 1], salts[0], salts[1])
        new[slot, 0], new[slot, 1], new[slot, 2] = old[number, 0], old[number, 1], old[number, 2]
        count += 1
    return count


@kernel
def note_currencies(ids: Words, currencies: Words, table: Words, salts: Words) -> int:
    """Remember the currencies of accounts (shape (count, 2)); returns how many were not known. There must be room."""
    count = 0
    for number in range(len(ids)):
        slot = find_place(table, ids[number, 0], ids[number, 1], salts[0], salts[1])
        if table[slot, 2] == 0:
            table[slot, 0], table[slot, 1], table[slot, 2] = ids[number, 0], ids[number, 1], currencies[number]
            count += 1
    return count


@kernel
def note_openings(events: Words, table: Words, salts: Words) -> int:
    """Remember the currencies of accounts that these events (shape (count, 24)) open; returns how many there are."""
    count = 0
    for number in range(len(events)):
        event = events[number]
        kind = (event[_KIND_AT] >> _KIND_SHIFT) & 0xFFFF
        if kind in (_OPEN, _MOVE_OPEN) and event[_RESULT_AT] & 0xFFFFFFFF == 0:
            slot = find_place(table, event[_DEBIT_AT], event[_DEBIT_AT + 1], salts[0], salts[1])
            if table[slot, 2] == 0:
                table[slot, 0], table[slot, 1] = event[_DEBIT_AT], event[_DEBIT_AT + 1]
                table[slot, 2] = event[_CURRENCY_AT]
                count += 1
    return count


@inlined
def is_wanted(sub: Words, mode: int, least_after: int, sequence: int, kind: int, refused: bool, currency: int) -> bool:
    """Whether a subscription wants an event, its accounts left aside."""
    return (
        kind < _MOVE_OPEN
        and sub[SUB_MODE] == mode
        and least_after <= sub[SUB_AFTER] < sequence
        and sub[SUB_STAMP] != sequence
        and (sub[SUB_KINDS] == 0 or (sub[SUB_KINDS] >> kind) & 1 != 0)
        and (sub[SUB_CURRENCY] == 0 or sub[SUB_CURRENCY] == currency)
        and (not refused or sub[SUB_REFUSED] != 0)
    )


@kernel
def fan_out(
    events: Words,
    first: int,
    first_sequence: int,
    mode: int,
    least_after: int,
    filters: Filters,
    subs: Words,
    currencies: Words,
    salts: Words,
    pairs: Words,
    done: Words,
) -> int:
    """Find who wants which of the events from number `first` on (shape (count, 24)), among subscriptions in a mode that
    are told behind `least_after` or later.

    `pairs`, of shape (capacity, 3), gets subscription, event number and currency, in the order of events; `done[0]`
    gets the number of the first event that found no room there. Returns how many pairs there are.
    """
    count = 0
    meta, nodes = filters.meta, filters.nodes
    done[0] = len(events)
    for number in range(first, len(events)):
        event = events[number]
        sequence = first_sequence + number
        kind = (event[_KIND_AT] >> _KIND_SHIFT) & 0xFFFF
        refused = event[_RESULT_AT] & 0xFFFFFFFF != 0
        debit_head, debit_tail = event[_DEBIT_AT], event[_DEBIT_AT + 1]
        currency = currencies[find_place(currencies, debit_head, debit_tail, salts[0], salts[1]), 2]
        start = count
        is_full = False
        for side in range(2):
            head, tail = debit_head, debit_tail
            if side == 1:
                head, tail = event[_CREDIT_AT], event[_CREDIT_AT + 1]
                if kind == _OPEN or (head == 0 and tail == 0):
                    break
            slot = find_place(filters.slots, head, tail, meta[META_SALT_1], meta[META_SALT_2])
            node = filters.slots[slot, 2]
            while node != _NONE:
                found = nodes[node, _NODE_SUB]
                if is_wanted(subs[found], mode, least_after, sequence, kind, refused, currency):
                    if count == len(pairs):
                        is_full = True
                        break
                    subs[found, SUB_STAMP] = sequence
                    pairs[count, 0], pairs[count, 1], pairs[count, 2] = found, number, currency
                    count += 1
                node = nodes[node, _NODE_NEXT]
        for place in range(meta[META_EVERYTHING]):
            found = filters.everything[place]
            if is_full or not is_wanted(subs[found], mode, least_after, sequence, kind, refused, currency):
                continue
            if count == len(pairs):
                is_full = True
                break
            subs[found, SUB_STAMP] = sequence
            pairs[count, 0], pairs[count, 1], pairs[count, 2] = found, number, currency
            count += 1
        if is_full:
            for place in range(start, count):
                subs[pairs[place, 0], SUB_STAMP] = 0
            done[0] = number
            return start
    return count


@kernel
def lay_out(pairs: Words, count: int, subs: Words, order: Words, starts: Words, pieces: Words) -> int:
    """Give each subscription its place in the frames to be written, in the order of `order` (subscription, connection).

    `starts` gets the offset of each subscription's first frame; `pieces`, of shape (connections, 3), the connection,
    start and end of each run of frames for one connection; its last row the number of runs. Returns the size in bytes.
    """
    for number in range(count):
        subs[pairs[number, 0], SUB_COUNT] += 1
    offset = 0
    runs = -1
    connection = -1
    for place in range(len(order)):
        found = order[place, 0]
        events = subs[found, SUB_COUNT]
        if events == 0:
            continue
        starts[found] = offset
        if order[place, 1] != connection:
            connection = order[place, 1]
            runs += 1
            pieces[runs, 0], pieces[runs, 1] = connection, offset
        frames = (events + PUSHED_COUNT_MAX - 1) // PUSHED_COUNT_MAX
        offset += frames * FRAME_HEADER_SIZE + events * PUSHED_EVENT_SIZE
        pieces[runs, 2] = offset
        subs[found, SUB_COUNT] = 0
    pieces[len(pieces) - 1, 0] = runs + 1
    return offset


@inlined
def write_header(out: Words, place: int, head: int, length: int, request_id: int) -> None:
    """Write a frame's header but for its checksum; `place` in words."""
    out[place + 1] = length | head
    out[place + 2] = request_id
    out[place + 3] = 0


@kernel
def write_events(
    events: Words,
    first_position: int,
    pairs: Words,
    count: int,
    subs: Words,
    starts: Words,
    out: Words,
    out_bytes: Bytes,
    long_frames: Words,
) -> int:
    """Write EVENTS frames where `lay_out` has placed them; `out` and `out_bytes` are the same memory.

    `long_frames` gets (offset, length) of each frame that is too long for the kernel's checksum; the caller computes
    those. Returns how many there are. `first_position` is that of event number 0.
    """
    frame_max = FRAME_HEADER_SIZE + PUSHED_COUNT_MAX * PUSHED_EVENT_SIZE
    for number in range(count):
        found, event_number = pairs[number, 0], pairs[number, 1]
        written = subs[found, SUB_COUNT]
        frame = starts[found] + written // PUSHED_COUNT_MAX * frame_max
        within = written % PUSHED_COUNT_MAX
        place = (frame + FRAME_HEADER_SIZE + within * PUSHED_EVENT_SIZE) // 8
        out[place] = first_position + event_number
        out[place + 1] = pairs[number, 2]
        for word in range(_EVENT_WORDS):
            out[place + 2 + word] = events[event_number, word]
        write_header(
            out,
            frame // 8,
            _EVENTS_HEAD,
            FRAME_HEADER_SIZE + (within + 1) * PUSHED_EVENT_SIZE,
            subs[found, SUB_REQUEST_ID],
        )
        subs[found, SUB_COUNT] = written + 1
        subs[found, SUB_TOLD] = subs[found, SUB_STAMP]
    long_count = 0
    for number in range(count):
        found = pairs[number, 0]
        frame = starts[found]
        left = subs[found, SUB_COUNT]
        subs[found, SUB_COUNT] = 0
        while left > 0:
            length = out[frame // 8 + 1] & 0xFFFFFFFF
            if length <= XXH3_SHORT_MAX:
                store_word(out_bytes, frame, xxh3_64(out_bytes, frame + 8, frame + length))
            else:
                long_frames[long_count, 0], long_frames[long_count, 1] = frame, length
                long_count += 1
            left -= PUSHED_COUNT_MAX
            frame += frame_max
    return long_count


@kernel
def write_progress(
    subs: Words,
    order: Words,
    sequence: int,
    timestamp_ns: int,
    position_base: int,
    pieces: Words,
    out: Words,
    out_bytes: Bytes,
) -> int:
    """Write a PROGRESS frame to each subscription whose client does not know how far it is: up to `sequence`, whose
    time that is, if it is live, else up to where it is being told from the log.

    `position_base`: what is added to a sequence to make a position of it. `pieces` as in `lay_out`. Returns the size
    in bytes.
    """
    offset = 0
    runs = -1
    connection = -1
    for place in range(len(order)):
        found = order[place, 0]
        mode = subs[found, SUB_MODE]
        reached = sequence if mode == MODE_LIVE else subs[found, SUB_AFTER]
        if (mode != MODE_LIVE and mode != MODE_CATCHING) or subs[found, SUB_TOLD] >= reached:
            continue
        subs[found, SUB_TOLD] = reached
        if order[place, 1] != connection:
            connection = order[place, 1]
            runs += 1
            pieces[runs, 0], pieces[runs, 1] = connection, offset
        write_header(out, offset // 8, _PROGRESS_HEAD, PROGRESS_FRAME_SIZE, subs[found, SUB_REQUEST_ID])
        body = offset // 8 + _HEADER_WORDS
        out[body] = position_base + reached
        out[body + 1] = timestamp_ns if reached == sequence else 0
        out[body + 2] = position_base + sequence
        out[body + 3] = 0
        store_word(out_bytes, offset, xxh3_64(out_bytes, offset + 8, offset + PROGRESS_FRAME_SIZE))
        offset += PROGRESS_FRAME_SIZE
        pieces[runs, 2] = offset
    pieces[len(pieces) - 1, 0] = runs + 1
    return offset


@kernel
def advance(subs: Words, mode: int, least_after: int, sequence: int) -> None:
    """Have all subscriptions in a mode that are told behind `least_after` or later be told behind a sequence."""
    for number in range(len(subs)):
        if subs[number, SUB_MODE] == mode and least_after <= subs[number, SUB_AFTER] < sequence:
            subs[number, SUB_AFTER] = sequence
