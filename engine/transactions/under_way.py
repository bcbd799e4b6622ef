"""What a shard's ledger has under way: transfers and transactions that are tried, or decided and not settled."""

from collections import Counter
from collections.abc import Set
from typing import Final

import numpy as np

from bezant.engine.ledger.ledger import FetchEvents, Ledger
from bezant.engine.transactions.ids import derived_ids
from bezant.engine.transactions.parts import read_legs
from bezant.protocol.names import TRANSIT_NAME_PREFIX, currency_code
from bezant.protocol.records import EVENT, Bytes, Records, Words
from bezant.protocol.transactions import (
    Leg,
    TransactionMode,
    TransactionsUnderWay,
    TransactionUnderWay,
    TransferUnderWay,
)

UNDER_WAY_MAX: Final = 1000
"""Transfers and transactions that are told one by one; of more than that the oldest."""


def transactions_under_way(
    ledger: Ledger, read_events: FetchEvents, now_ns: int, parked: Set[int] = frozenset()
) -> TransactionsUnderWay:
    """What is under way, the oldest first; `read_events` as `Log.read_events`, `now_ns` by the node's clock, `parked`
    the sequences of tries whose end waits for somebody."""
    open_tries, unsettled = ledger.open_tries(), ledger.unsettled()
    phase_of = dict.fromkeys(open_tries.tolist(), "trying")
    for sequence, is_confirm in zip(unsettled["try_sequence"].tolist(), unsettled["is_confirm"].tolist(), strict=True):
        phase_of[sequence] = "confirming" if is_confirm else "cancelling"
    sequences = np.array(sorted(phase_of)[:UNDER_WAY_MAX], np.int64)
    tries = read_events(sequences) if len(sequences) else np.zeros(0, EVENT)
    phases = ["parked" if sequence in parked else phase_of[sequence] for sequence in sequences.tolist()]
    ages_ms = (np.maximum(now_ns - tries["timestamp_ns"], 0) // 1_000_000).tolist()
    shards, currencies = _through(ledger, tries)
    transfers, transactions = [], []
    for number, (phase, age_ms) in enumerate(zip(phases, ages_ms, strict=True)):
        begun = tries[number : number + 1]
        if begun["timeout_ms"][0]:
            transactions.append(_transaction(ledger, begun, phase, age_ms))
            continue
        identifier = begun.view(np.uint8)[:16].tobytes().hex()
        amount = int(begun["amount"][0])
        transfers.append(TransferUnderWay(identifier, phase, shards[number], amount, currencies[number], age_ms))
    return TransactionsUnderWay(transfers, len(phase_of), transactions)


def _transaction(ledger: Ledger, begun: Records, phase: str, age_ms: int) -> TransactionUnderWay:
    legs = read_legs(ledger, begun)
    amounts: Counter[str] = Counter()
    for word, amount in zip(legs.currencies.tolist(), legs.tries["amount"].tolist(), strict=True):
        amounts[currency_code(word)] += amount
    if legs.mode is TransactionMode.SAGA and phase == "cancelling":
        phase = "compensating"
    shards = sorted({*legs.debit_shards.tolist(), *legs.credit_shards.tolist()})
    return TransactionUnderWay(
        legs.id.hex(), legs.mode.name.lower(), phase, len(legs.tries), shards, dict(amounts), age_ms
    )


def known_tries(ledger: Ledger, read_events: FetchEvents, ids: Words, *, salt: int = 0) -> Bytes:
    """Which of these TRY_CREDITs (ids, int64 of shape (count, 2)) belong to what this shard has under way: 1, or 0."""
    sequences = np.union1d(ledger.open_tries(), ledger.unsettled()["try_sequence"])
    if not len(sequences):
        return np.zeros(len(ids), np.uint8)
    known = set(map(tuple, derived_ids(read_events(sequences), Leg.TRY_CREDIT, salt=salt).tolist()))
    return np.array([tuple(one) in known for one in ids.tolist()], np.uint8)


def _through(ledger: Ledger, tries: Records) -> tuple[list[int], list[str]]:
    """The shard that each try goes to, and its currency: as its transit account says."""
    ids: Words = np.stack([tries["reference_head"], tries["reference_tail"]], axis=1)
    accounts = ledger.lookup_accounts(ids)
    names = [bytes(name).decode("ascii") for name in accounts["name"]]
    shards = [int(name.rpartition(":")[2]) if name.startswith(TRANSIT_NAME_PREFIX) else -1 for name in names]
    return shards, [currency_code(int(word)) for word in accounts["currency"]]
