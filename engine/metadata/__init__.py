"""Metadata: JSON of up to 1 KB on accounts and events, which can be erased without changing the history.

- **Where it lies.** In the log, in an entry of kind BLOB (`bezant.protocol.metadata`), and nowhere else. Checksum and
  chain hash of the entry cover its head: whose metadata it is, which entry it supersedes, and a digest of salt, subject
  and content. Salt and content follow in the same body. So they are replicated, synced, truncated, recovered, sent to a
  member that is behind, filled in behind a snapshot and archived as the entry is, by the code that does it for all.
- **What is known of it.** A table (`table.py`): which entry has the metadata of a subject now. It is part of the
  ledger's state, of its digest, and of checkpoints; so a leader knows what an entry supersedes, and all check it.
- **Only the latest is kept.** An entry that sets or erases names the one before, of the same subject. As soon as it is
  committed, and durable on a node, that node erases what that one had (`erasing.py`): the state, a byte, which no crash
  can tear, is set and synced first; from then on the rest counts for nothing, and is overwritten and synced.
- **Whole or not.** A body is whole if its digest is right, or its state says that it is erased. A torn write leaves
  neither, so recovery is as for any entry; nor does rot, but for one byte of the 256.
- **Not forgotten.** What a crash leaves to be erased is found again, because entries behind the checkpoint are replayed
  at each start; no checkpoint is made before everything up to it is erased. What is filled in behind a snapshot passes
  a filter that leaves out all that the table does not have.
- **verify** and every replay check that each entry names the one before of its subject; and verify, at the end, that
  what the table has is there. What a node of a group lacks may be because it has not heard of the erasing yet.
- **Copies** are as they were made: what snapshots, archives, and files that were set aside for damage have of erased
  metadata goes with them. `bezant archive fetch` leaves it out of what it brings back, `bezant snapshot restore` as far
  as a newer snapshot knows of it, and both say how to remove the copies (``engine/archive/forgetting.py``,
  ``net/archive/removing.py``).
"""
