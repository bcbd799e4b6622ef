"""What a node is asked after a crash: every row of the book, every account, every known command again."""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np

from bezant.perf.crash.book import Book, Sent
from bezant.perf.crash.faults import FaultKind, Faults, RigFailed
from bezant.perf.crash.load import Sender
from bezant.perf.crash.model import Model
from bezant.perf.crash.plan import Frame
from bezant.perf.load.control import ControlClient
from bezant.protocol.frames import EVENT_COUNT_MAX, Operation
from bezant.protocol.kinds import CommandFlag
from bezant.protocol.messages import ListAccounts, encode_message
from bezant.protocol.records import ACCOUNT, EVENT_ANSWER, EVENT_QUERY, RESULT, Records, Words

AGAIN_COMMANDS_MAX: Final = 2_000
"""Commands that are sent again in one frame, at most, but for a chain that is longer."""
SNAPSHOT_TRIES_MAX: Final = 1_000
"""Holds of the load are due within HOLD_TIMEOUT_MS_MAX, so that a node soon has nothing to do by itself."""
_LIST_COUNT: Final = 4_096


async def settle(client: ControlClient, book: Book) -> tuple[int, int]:
    """Look every row up: known ones must be as they were told. Returns how many others are there, and are not."""
    found = 0
    open_before = int(np.count_nonzero(~book.known))
    for start in range(0, len(book), EVENT_COUNT_MAX):
        rows = np.arange(start, min(start + EVENT_COUNT_MAX, len(book)))
        queries = np.zeros(len(rows), EVENT_QUERY)
        for name in EVENT_QUERY.names or ():
            queries[name] = book.commands[name][rows]
        body = await client.request(Operation.LOOKUP_EVENTS, queries.tobytes())
        found += book.settle(rows, np.frombuffer(body, EVENT_ANSWER))
    return found, open_before - found


def check_order(faults: Faults, book: Book, sent: Sequence[Sent]) -> None:
    """A node executes the frames of a connection in order: where one is absent, so is everything behind it."""
    rows = np.concatenate([frame.own_rows for frame in sent]) if sent else np.zeros(0, np.int64)
    rows = rows[book.was_sent_once(rows)]
    known = book.known[rows]
    if np.any(known[1:] & ~known[:-1]):
        faults.add(FaultKind.IN_PART, "a command is there, and one before it on its connection is not")
    check_chains(faults, book)


def check_chains(faults: Faults, book: Book) -> None:
    """Linked rows are there together or not at all."""
    linked = np.flatnonzero(book.commands["flags"] & CommandFlag.LINKED)
    parted = np.flatnonzero(book.known[linked] != book.known[linked + 1])
    if len(parted):
        faults.add(FaultKind.IN_PART, f"a chain with row {linked[parted[0]]} is there in part", len(parted))


async def audit(client: ControlClient, faults: Faults, book: Book, model: Model) -> None:
    """Feed the model all that has happened, and hold every account against it."""
    sequence, accounts = await _snapshot(client)
    rows = book.known_in_order(model.sequence)
    behind = int(np.count_nonzero(book.known)) - len(rows) - model.rows_taken
    if behind:
        text = f"commands have turned up at positions before {model.sequence}, which were others'"
        faults.add(FaultKind.CHANGED, text, behind)
    model.advance(rows.tolist(), book.commands[rows], book.results[rows], sequence, time.time_ns())
    model.check_accounts(accounts)


async def _snapshot(client: ControlClient) -> tuple[int, Records]:
    """The node's last sequence and its accounts as of that; asked again while holds expire in between."""
    for _ in range(SNAPSHOT_TRIES_MAX):
        before = (await client.statistics()).durable_sequence
        accounts = await list_accounts(client)
        if (await client.statistics()).durable_sequence == before:
            return before, accounts
    raise RigFailed(f"the node's history did not stand still in {SNAPSHOT_TRIES_MAX} tries")


async def list_accounts(client: ControlClient) -> Records:
    """Every account of the node."""
    pages: list[Records] = []
    cursor = 0
    while True:
        body = await client.request(Operation.LIST_ACCOUNTS, encode_message(ListAccounts(cursor, _LIST_COUNT)))
        page = np.frombuffer(body, ACCOUNT)
        if not len(page):
            return np.concatenate(pages) if pages else np.zeros(0, ACCOUNT)
        pages.append(page)
        cursor += len(page)


async def send_known_again(client: ControlClient, book: Book) -> None:
    """Every known command again: the book holds each answer against the first one."""
    rows = np.flatnonzero(book.known)
    for part in _cut(book, rows):
        frame = Frame(book.commands[part].tobytes(), bytes(len(part)))
        body = await client.request(Operation.COMMANDS, frame.body)
        book.acknowledge(book.send(frame), np.frombuffer(body, RESULT))


def _cut(book: Book, rows: Words) -> Iterable[Words]:
    """Cut rows into frames; a chain stays in one."""
    start = 0
    while start < len(rows):
        end = min(start + AGAIN_COMMANDS_MAX, len(rows))
        while end < len(rows) and book.commands["flags"][rows[end - 1]] & CommandFlag.LINKED:
            end += 1
        yield rows[start:end]
        start = end


async def retry(address: str, book: Book, unanswered: Iterable[Sequence[Sent]]) -> None:
    """Send what was not answered again, as an SDK would: on a connection each, in order, bytes unchanged."""
    book.forget_sending()
    senders = [Sender(book, [sent.frame for sent in frames], len(frames)) for frames in unanswered if frames]
    for sender in senders:
        await sender.connect(address)
    for sender in senders:
        sender.start()
    await asyncio.gather(*(sender.is_done.wait() for sender in senders))
    for sender in senders:
        if sender.failure is not None:
            raise sender.failure
        await sender.close()
