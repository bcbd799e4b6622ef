"""Checkpoints: the state after some durable entry, so that a start replays the tail of the history and not all of it.

They live in the folder ``checkpoints`` of a shard, beside the log, and all of them can be deleted: the history is the
truth, and they are made from it again. `file.py` is the format of one, `folder.py` the files and which of them count,
`cuts.py` which old ones stay so that verify can work from one to the next, `checkpointer.py` makes the next one out of
the last one and the entries since: in a child process while a node runs (``bezant.net.server.checkpoint_child``), and
within a start that finds a long tail. `check.py` compares them with the history, for verify.

A checkpoint has the ledger's state but not its ids: those are in runs, sorted files that it lists
(``bezant.engine.ids``), each made once and read by every later checkpoint until a merge takes its place. May import
``engine.ids``, ``engine.ledger``, ``engine.log``, ``engine.replay`` and ``protocol``.
"""
