"""The parts of a history verified at the same time, each from one checkpoint to the next.

A part takes its state from a checkpoint, executes every entry up to the next checkpoint again, and must arrive at
exactly the state and the hash that are written there; the first begins with nothing. So, one part after the other, each
checkpoint is proven to be what the history makes it, and with it where the next part began. What a part cannot see are
the ids that were used before it, and what became of a hold that was closed in an earlier part: that is read from the
files of ids, which are then proven to hold exactly what all parts together have made of ids (`sums.py`), and none
twice, nor any of the last part, which they do not have yet (`stored.py`).

Nothing here ever says that a history is wrong. Whatever does not come out right, and be it a damaged file, is a
`Doubt`: the history is then executed in one go from its beginning, without checkpoints, and that is what decides.

`plan.py` finds the parts, `part.py` executes one, `stored.py` adds up the files of ids, `worker.py` is the process that
does either, `parallel.py` has several of them at work and draws the conclusion. May import ``engine.checkpoints`` and
all that this may import.
"""
