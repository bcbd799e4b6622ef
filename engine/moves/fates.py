"""What has become of holds and tries, by the events that made them: it stands beside their ids."""

import numpy as np

from bezant.engine.ledger.ledger import Ledger
from bezant.engine.ledger.state import SEQUENCE_MASK
from bezant.engine.moves.kernels import find_fates
from bezant.protocol.records import SEQUENCE_BITS, Records, Words


def fates_of(ledger: Ledger, events: Records, sequences: Words) -> Words:
    """The fates of the holds or tries that these events (no copies) have made; 0 of what is open, or never was."""
    hashes, fates = np.zeros(len(events), np.int64), np.zeros(len(events), np.int64)
    find_fates(ledger.arrays, events, np.ascontiguousarray(sequences, np.int64), hashes, fates)
    missing = np.flatnonzero(fates < 0)
    fates[missing] = 0
    if ledger.cold_ids is not None and len(missing):
        wanted = np.ascontiguousarray(hashes[missing])
        found, values = ledger.cold_ids.find(wanted, np.zeros(len(missing), np.int64), len(missing))
        pairs = zip(found.tolist(), values.tolist(), strict=True)
        value_of = {(hash_value, value & SEQUENCE_MASK): value for hash_value, value in pairs}
        for number in missing.tolist():
            fates[number] = value_of.get((int(hashes[number]), int(sequences[number])), 0) >> SEQUENCE_BITS
    return fates
