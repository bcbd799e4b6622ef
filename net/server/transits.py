"""Transit accounts of a shard: where money is between its wallets and those of another shard, one a shard and currency.

They are opened when they are first needed: here by the node itself, in the other shard by a leg that asks for it.
"""

import logging
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bezant.engine.compiled import quick
from bezant.engine.ledger.state import CURRENCIES_MAX
from bezant.engine.member import Member
from bezant.engine.replica import BATCH_COMMANDS_MAX
from bezant.engine.transactions.legs import OPENED, build_transit_open, transit_id
from bezant.engine.transactions.marking import (
    MARKED_CURRENCY,
    MARKED_PEER,
    MARKED_REFUSED,
    MARKED_SIZE,
    mark_transfers_out,
)
from bezant.protocol.errors import LedgerError
from bezant.protocol.names import TRANSIT_NAME_PREFIX, currency_code
from bezant.protocol.placement import SLOT_COUNT
from bezant.protocol.records import Records, Words, id_words

_log = logging.getLogger("bezant")


class Transit:
    """The transit accounts of two shards in one currency: this shard's own, and the other one's."""

    def __init__(self, own_shard: int, shard: int, currency: str) -> None:
        self.shard = shard
        """The other one."""
        self.currency = currency
        self.far_id = _transit_words(shard, own_shard, currency)
        """Of its account, int64 of shape (2,)."""
        self._own_shard = own_shard
        self._open_count = 0
        self.is_open_there = False
        """Whether the other shard has said that it is open."""
        self._told = ""

    def far_open(self, term: int) -> Records:
        """The leg that opens it, one COMMAND record: with another id each time, for a refusal uses up an id."""
        self._open_count += 1
        return build_transit_open(self.shard, self._own_shard, self.currency, f"{term}:{self._open_count}")

    def tell(self, refusal: str) -> None:
        """Tell why the other shard will have nothing to do with ours, or ours with it: once, until it is another."""
        if refusal != self._told:
            self._told = refusal
            _log.warning("bezant: no transfers to shard %d for now, it is asked again: %s", self.shard, refusal)


class Transits:
    """See the module. All methods on the loop."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self._ledger = member.replica.ledger
        self._shard = member.replica.shard
        # Memory only for those that exist: the rest is never touched.
        self._ids = np.zeros((SLOT_COUNT, CURRENCIES_MAX, 2), np.int64)
        self._unopened: list[tuple[int, int]] = []
        """(shard, number of the currency) of those in `_ids` that a batch needs and that could not be opened."""
        self._by_id: dict[tuple[int, int], Transit] = {}
        self._by_place: dict[tuple[int, str], Transit] = {}
        self._marked = np.zeros(MARKED_SIZE, np.int64)
        self._refused = np.zeros(BATCH_COMMANDS_MAX, np.int64)

    def mark(self, commands: Records, slots: Words, preset: Words) -> Words:
        """Turn transfers to other shards into tries, opening the transit accounts that they need.

        `preset` has a code for each command or is empty, which means none, as does the answer.
        """
        marked, refused = self._marked, self._refused[: len(commands)]
        marked[:] = 0
        while True:
            quick(mark_transfers_out)(self._ledger.arrays, commands, slots, self._shard, self._ids, refused, marked)
            if marked[MARKED_PEER] < 0:
                break
            self._open(int(marked[MARKED_PEER]), int(marked[MARKED_CURRENCY]), len(commands))
        for place in self._unopened:
            self._ids[place] = 0
        self._unopened.clear()
        if not marked[MARKED_REFUSED]:
            return preset
        codes = refused.copy() if not len(preset) else np.where(preset != 0, preset, refused)
        refused[:] = 0
        return codes

    def _open(self, shard: int, currency_number: int, commands: int) -> None:
        """Open this shard's transit account, for a batch of so many commands.

        Without room for it, or for the ids of the batch behind it, the ledger answers TRANSIT_UNKNOWN to who needs it
        now, and the next batch tries again.
        """
        currency = currency_code(int(self._ledger.arrays.currencies[currency_number]))
        self._ids[shard, currency_number] = _transit_words(self._shard, shard, currency)
        if not self._ledger.has_room_for_ids(commands + 1, 2):
            self._unopened.append((shard, currency_number))
            return
        opened = build_transit_open(self._shard, shard, currency, f"own:{self._ledger.next_sequence}")
        executed = self._member.execute(opened, np.zeros(0, np.int64))
        if int(executed.results["code"][0]) not in OPENED:
            self._unopened.append((shard, currency_number))

    def groups(self, tries: Records, field: str = "reference") -> Iterator[tuple[Transit, npt.NDArray[np.intp]]]:
        """Tries (EVENT records) by their transit account: which, and the numbers of those that go through it.

        `field` has its id: the reference of a TRY_DEBIT, the debit account of a TRY_CREDIT.
        """
        heads, tails = tries[f"{field}_head"], tries[f"{field}_tail"]
        left = np.arange(len(tries))
        if len(left) == 1:
            yield self._transit_of(int(heads[0]), int(tails[0])), left
            return
        while len(left):
            head, tail = int(heads[left[0]]), int(tails[left[0]])
            is_same = (heads[left] == head) & (tails[left] == tail)
            if is_same.all():
                yield self._transit_of(head, tail), left
                return
            yield self._transit_of(head, tail), left[is_same]
            left = left[~is_same]

    def towards(self, shard: int, currency: str) -> Transit:
        """The accounts of another two: where a slot has moved, its new shard has what the old one would have had."""
        transit = self._by_place.get((shard, currency))
        if transit is None:
            transit = self._by_place[shard, currency] = Transit(self._shard, shard, currency)
        return transit

    def _transit_of(self, head: int, tail: int) -> Transit:
        transit = self._by_id.get((head, tail))
        if transit is None:
            account = self._ledger.lookup_accounts(np.array([[head, tail]], np.int64))[0]
            name = bytes(account["name"]).decode("ascii")
            if not name.startswith(TRANSIT_NAME_PREFIX):
                raise LedgerError(f"a try goes through an account named {name!r}, which is no transit account")
            shard = int(name.rpartition(":")[2])
            transit = self._by_id[head, tail] = self.towards(shard, currency_code(int(account["currency"])))
        return transit


def _transit_words(own_shard: int, peer_shard: int, currency: str) -> Words:
    return np.array(id_words(transit_id(own_shard, peer_shard, currency)), np.int64)
