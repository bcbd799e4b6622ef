"""The legs of transfers between shards, built a batch at a time from the events of their tries; see ``__init__.py``."""

from typing import Final

import blake3
import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import quick
from bezant.engine.ledger.ledger import Ledger
from bezant.engine.moves.copies import positions_of
from bezant.engine.transactions.building import write_decisions, write_second_legs, write_try_credits
from bezant.engine.transactions.ids import derived_ids, derived_ids_of, words_of, words_of_records
from bezant.protocol.codes import ResultCode
from bezant.protocol.errors import UsageError
from bezant.protocol.kinds import LEG_SHIFT, CommandFlag, CommandKind
from bezant.protocol.names import TRANSIT_NAME_PREFIX, account_id, currency_word
from bezant.protocol.records import (
    COMMAND,
    EVENT,
    LIMIT_UNLIMITED,
    NAME_SIZE_MAX,
    RESULT,
    Records,
    Words,
    id_words,
)
from bezant.protocol.transactions import Leg

COMMAND_ID_SIZE: Final = 16
OTHER_IDS: Final = 1
"""What changes the salt of the ids of decisions, and of what follows from them, whose first ones are taken: whoever
chooses the ids of two transfers may have looked for a pair for which these are the same, and must neither keep a shard
from deciding nor have something stay reserved for somebody else."""
DECISIONS: Final[tuple[tuple[CommandKind, Leg, int], ...]] = tuple(
    (kind, leg, other)
    for other in (0, OTHER_IDS)
    for kind, leg in ((CommandKind.CONFIRM, Leg.CONFIRM_DEBIT), (CommandKind.CANCEL, Leg.CANCEL_DEBIT))
)
"""(kind, leg, change of the salt) of all that a decision on a try may be found by."""
OPENED: Final = (int(ResultCode.COMMITTED), int(ResultCode.ACCOUNT_EXISTS))
"""What is answered to the OPEN of a transit account that is there from now on."""
_COPIED: Final = ("user_data_head", "user_data_tail", "code")
"""What a leg carries of its transfer, whatever its kind: it is the client's, and belongs into every statement."""
_REASON: Final = (1 << LEG_SHIFT) - 1


def transit_name(own_shard: int, peer_shard: int) -> str:
    """The name of a shard's transit account to another shard."""
    return f"{TRANSIT_NAME_PREFIX}{own_shard}:{peer_shard}"


def transit_id(own_shard: int, peer_shard: int, currency: str) -> bytes:
    """The id of a shard's transit account to another shard."""
    return account_id(transit_name(own_shard, peer_shard), currency)


def is_transit_open(ledger: Ledger, peer_shard: int, currency: str) -> bool:
    """Whether a shard has its transit account to another one."""
    ids = np.array([id_words(transit_id(ledger.shard, peer_shard, currency))], np.int64)
    return bool(ledger.lookup_accounts(ids)["found"][0])


def build_transit_open(own_shard: int, peer_shard: int, currency: str, attempt: str) -> Records:
    """The OPEN (COMMAND[1]) of a transit account; see `OPENED`.

    `attempt` goes into its id, and is another one each time: a refusal uses the id up, and the currency that it is for,
    say, is registered later on.
    """
    words = f"bezant {transit_name(own_shard, peer_shard)}:{currency}:{attempt}"
    command_id = blake3.blake3(words.encode()).digest(length=COMMAND_ID_SIZE)
    opened = np.zeros(1, COMMAND)
    _write_ids(opened, "id", np.array([id_words(command_id)], np.int64))
    _write_ids(opened, "debit", np.array([id_words(transit_id(own_shard, peer_shard, currency))], np.int64))
    name = transit_name(own_shard, peer_shard).encode("ascii").ljust(NAME_SIZE_MAX, b"\0")
    for place, field in enumerate(("credit", "reference", "user_data")):
        _write_ids(opened, field, np.array([id_words(name[16 * place : 16 * place + 16])], np.int64))
    opened["amount"] = LIMIT_UNLIMITED
    opened["currency"] = currency_word(currency)
    opened["flags"] = int(CommandFlag.TRANSIT)
    opened["kind"] = int(CommandKind.OPEN)
    return opened


def build_try_debits(transfers: Records, transits: Words) -> Records:
    """TRY_DEBITs of clients' TRANSFERs (COMMAND[count]), which stay as they are but for kind and transit account."""
    tries = transfers.copy()
    tries["kind"] = int(CommandKind.TRY_DEBIT)
    _write_ids(tries, "reference", transits)
    return tries


def build_try_credits(tries: Records, far_transits: Words, *, times: Words | None = None, salt: int = 0) -> Records:
    """TRY_CREDITs for the far shard."""
    legs, words = np.zeros(len(tries), COMMAND), words_of_records(tries)
    far, when = _each(far_transits, tries), _when(tries["timestamp_ns"] if times is None else times, tries)
    ids = derived_ids_of(words, Leg.TRY_CREDIT, salt)
    quick(write_try_credits)(words, ids, far, when, words_of_records(legs))
    return legs


def build_decisions(
    tries: Records, codes: npt.NDArray[np.int64], *, times: Words | None = None, salt: int = 0
) -> Records:
    """A CONFIRM or CANCEL of each TRY_DEBIT, as the far shard's answer to its TRY_CREDIT says.

    `times` are those of the answers, 0 where there was none.
    """
    when = np.zeros(len(tries), np.int64) if times is None else _when(times, tries)
    legs, words = np.zeros(len(tries), COMMAND), words_of_records(tries)
    names = np.where(codes == int(ResultCode.COMMITTED), int(Leg.CONFIRM_DEBIT), int(Leg.CANCEL_DEBIT))
    ids = derived_ids_of(words, names, salt)
    if quick(write_decisions)(words, ids, _when(codes, tries), when, words_of_records(legs)):
        raise UsageError("UNDECIDED is no answer to a TRY_CREDIT")
    return legs


def build_second_legs(
    tries: Records,
    decisions: Records,
    far_transits: Words,
    *,
    times: Words | None = None,
    salt: int = 0,
    change: int = 0,
) -> Records:
    """For the far shard: the CONFIRM or CANCEL of each TRY_CREDIT that follows from what was decided here, and when.

    Decisions that are events say themselves when they were made. `change`: OTHER_IDS where their first ids are taken.
    """
    if times is None:
        if decisions.dtype != EVENT:
            raise UsageError("what follows from a decision has its time")
        times = decisions["timestamp_ns"]
    kinds = decisions["kind"]
    if not np.all((kinds == int(CommandKind.CONFIRM)) | (kinds == int(CommandKind.CANCEL))):
        raise UsageError("a decision is a CONFIRM or a CANCEL")
    if len(decisions) != len(tries):
        raise UsageError(f"{len(decisions)} decisions on {len(tries)} tries")
    legs, words = np.zeros(len(tries), COMMAND), words_of_records(tries)
    names = np.where(kinds == int(CommandKind.CONFIRM), int(Leg.CONFIRM_CREDIT), int(Leg.CANCEL_CREDIT))
    quick(write_second_legs)(
        words,
        derived_ids_of(words, names, salt ^ change),
        derived_ids_of(words, Leg.TRY_CREDIT, salt),
        words_of_records(decisions),
        _each(far_transits, tries),
        _when(times, tries),
        words_of_records(legs),
    )
    return legs


def build_orphan_cancels(tries: Records, *, salt: int = 0) -> Records:
    """The CANCEL of each TRY_CREDIT (EVENT records) that the shard it came from does not know."""
    legs = np.zeros(len(tries), COMMAND)
    _write_ids(legs, "id", derived_ids(tries, Leg.CANCEL_ORPHAN, salt=salt))
    legs["kind"] = int(CommandKind.CANCEL)
    for name in _COPIED:
        legs[name] = tries[name]
    _write_ids(legs, "reference", words_of(tries, "id"))
    _write_ids(legs, "debit", words_of(tries, "debit"))
    _write_ids(legs, "credit", words_of(tries, "credit"))
    legs["timeout_ms"] = int(ResultCode.SHARD_UNREACHABLE)
    return legs


def find_decisions(ledger: Ledger, tries: Records, *, salt: int = 0) -> Records:
    """RESULT[count]: what clients are to be told of their tries (EVENT records of TRY_DEBITs that stand)."""
    results = np.zeros(len(tries), RESULT)
    results["code"] = int(ResultCode.UNDECIDED)
    for kind, leg, other in DECISIONS:
        rows = np.flatnonzero(results["code"] == int(ResultCode.UNDECIDED))
        if not len(rows):
            break
        left = tries[rows]
        sequences, events = find_decision_events(ledger, left, kind, derived_ids(left, leg, salt=salt ^ other))
        told = results[rows]
        _answer(told, np.flatnonzero(sequences), sequences, events, ledger.shard)
        results[rows] = told
    return results


def find_decision_events(ledger: Ledger, tries: Records, kind: CommandKind, ids: Words) -> tuple[Words, Records]:
    """(sequences, EVENT records) of the decisions of a kind with these ids on tries; sequence 0 where it is none."""
    keys = np.zeros(len(tries), COMMAND)
    _write_ids(keys, "id", ids)
    _write_ids(keys, "debit", words_of(tries, "debit"))
    keys["kind"] = int(kind)
    sequences, events = ledger.find_events(keys)
    # What was refused decided nothing: the other one had come before it. Nor did what has the id by chance, or intent.
    is_decision = events["result"] == int(ResultCode.COMMITTED)
    for word in ("head", "tail"):
        is_decision &= events[f"reference_{word}"] == tries[f"id_{word}"]
    return np.where(is_decision, sequences, 0), events


def _answer(results: Records, found: Words, sequences: Words, events: Records, shard: int) -> None:
    """Write what these decisions mean to clients."""
    decisions = events[found]
    is_confirm = decisions["kind"] == int(CommandKind.CONFIRM)
    results["code"][found] = np.where(is_confirm, int(ResultCode.COMMITTED), decisions["timeout_ms"] & _REASON)
    results["position"][found] = positions_of(shard, sequences[found], decisions)
    results["effective_amount"][found] = np.where(is_confirm, decisions["effective_amount"], 0)
    for name in ("timestamp_ns", "debit_balance", "debit_held"):
        results[name][found] = decisions[name]


def _each(far_transits: Words, tries: Records) -> Words:
    """An id for each try, int64 of shape (count, 2), or of (1, 2), from (2,), for the same in all."""
    if far_transits.shape not in ((2,), (1, 2), (len(tries), 2)):
        raise UsageError(f"transit accounts of shape {far_transits.shape} for {len(tries)} tries")
    return np.ascontiguousarray(far_transits.reshape(-1, 2), np.int64)


def _when(words: Words, tries: Records) -> Words:
    """A word for each try, as kernels take it. Raises `UsageError` if there are more or fewer."""
    if len(words) != len(tries):
        raise UsageError(f"{len(words)} times or codes of {len(tries)} tries")
    return np.array(words, np.int64)


def _write_ids(records: Records, field: str, ids: Words) -> None:
    """Write an id into each record: int64 of shape (count, 2), or (2,) for the same in all."""
    records[f"{field}_head"] = ids[..., 0]
    records[f"{field}_tail"] = ids[..., 1]
