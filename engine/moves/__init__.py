"""Slots that move from one shard to another, as the two ledgers see it. Pure, but for reading the log.

A move is a state machine in the log of its *source*, carried on by whoever leads that:

    begun -> (copies of the events whose ids the slots have used go to the target, while the source serves)
    sealed -> nobody serves; the accounts go out of the source's books, through its transit account to the target,
              and into the target's, with what is held on them
    taken (in the log of the target) -> the target serves -> the slot map is replaced -> ended

``state.py`` is what a ledger knows of moves: it is replicated, and says whose the slots are, whatever map a node goes
by. So the source serves no more from the moment that its seal is committed, and the target not before it has taken
everything: never both, as no leader can serve without its log. ``copies.py``: how an event looks that is a copy of
another shard's, and how to see the first one in it again. ``kernels.py`` executes the events of moves. ``leaving.py``:
the source's part, ``taking.py``: the target's. The net's part is ``net/server/moving.py``.

Ids: at most once for ever takes that the target finds every id that was used in the source. It has a copy of each such
event in its own log, found by the same id in the same index, and answers from it what the source would have answered.
"""
