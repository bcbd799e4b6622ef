"""Cold ids: sorted, immutable, checksummed files ("runs") of idempotency keys that the hot table no longer holds.

This room knows hashes of keys (int64, not negative, 63 bits, uniformly distributed), values (int64 above 0: a sequence
and above `SEQUENCE_BITS` what became of it) and times; nothing of the ledger or of the hot table. A run is derived from
the history: whoever loses one makes it again by replaying. So damage is never repaired, only refused (`CorruptLog`).

Start in ``run_set.py`` (open runs and find in them), then ``run.py`` (the bytes of one, and how it is made),
``merge.py`` (which runs become one, and how, in small steps), ``kernels.py`` (the loops over them) and ``times.py``
(when an id was made).

May import the protocol, `bezant.engine.compiled`, `bezant.engine.hashing` and `bezant.engine.log.storage`.
"""
