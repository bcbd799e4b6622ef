"""Transactions across shards: what a coordinator builds, a batch at a time, out of the events of its shard's ledger.

A transfer whose credit account lies in another shard is a *try* in the debit shard ("Across shards" in
``engine/ledger/README.md``); what follows travels as ordinary commands with ids of their own. Everything here is arrays
in, arrays out; the id of an account or command is two int64 words (head, tail), so ids are int64 of shape (count, 2).
Why one shard coordinates, and they do not just hear of each other: ``README.md`` beside this.

What a coordinator uses, in the order of a transfer's life:

``legs.build_try_debits(transfers, transits) -> COMMAND[count]``
    The TRY_DEBITs of clients' TRANSFERs (COMMAND[count]); ``transits`` int64[count, 2]: this shard's transit account to
    the far shard, in each wallet's currency (zeros where the wallet is unknown). Their results (RESULT) have the code
    UNDECIDED where the try stands, and again whenever the client repeats its TRANSFER; or the code that refused it.
    TRANSIT_UNKNOWN: nothing happened; open the transit account (``legs.build_transit_open``) and try again.
``legs.build_try_credits(tries, far_transits) -> COMMAND[count]``
    For the far shard. ``tries``: EVENT[count], of TRY_DEBITs that stand; ``far_transits`` int64[count, 2] (or one id,
    int64[2]): the far shard's transit account to this one.
``legs.build_decisions(tries, codes, times=None) -> COMMAND[count]``
    For this shard. ``codes`` int64[count]: what the far shard answered to each TRY_CREDIT; ``times`` int64[count]: the
    timestamps in these answers. COMMITTED: CONFIRM. A
    refusal (1 to 99, from 200 on): CANCEL with flag SETTLED, as there is nothing to take back there. 100 to 199: CANCEL
    whose second leg must follow; only for whoever gives a try up, since these codes say that nothing is known.
``legs.build_second_legs(tries, decisions, far_transits, times=None) -> COMMAND[count]``
    For the far shard: CONFIRM or CANCEL of each TRY_CREDIT. ``decisions``: EVENT[count] as read from the history, or
    COMMAND[count] as built above, with the timestamps of their events in ``times``.
``times.floor_of(commands) -> int``, ``times.check_floor(commands, clock_ns)``
    The time that an entry with these legs has to be dated after (``floor_ns`` of `Replica.execute`), so that no effect
    is dated before its cause; and whether that can be.
``ids.derived_ids(tries, leg) -> int64[count, 2]``
    The id of a leg (``ids.Leg``) of each try (EVENT or COMMAND records).
``legs.transit_name``, ``legs.transit_id``, ``legs.build_transit_open(own_shard, peer_shard, currency, attempt)``
    The transit account of a shard to another; an OPEN (COMMAND[1]) for it, with an id of this attempt.
``legs.find_decisions(ledger, tries) -> RESULT[count]``
    What a client is to be told of its try: code UNDECIDED where it is not decided; COMMITTED with the balances after
    the CONFIRM; or the CANCEL's reason. ``position`` is that of the decision.

Whatever makes ids takes ``salt``, a number (int64) that all shards share, 0 so far: ``ids.py`` says what that means.
Commands of these kinds come to the ledger from coordinators alone (``Reactor.submit_legs``): those of clients are
refused unseen.

``marking.mark_transfers_out`` does what `build_try_debits` does, in place, for those of a batch that need it.

Transactions of several legs (``parts.py``), each leg as a transfer, through the transit accounts of its two shards:

``parts.make_legs``, ``build_plans``, ``read_legs``, ``find_decision``
    What is asked for, what is written down of it (PLANs, and the TRY_DEBIT of the first leg), and that read again.
``parts.make_halves``, ``build_decision``, ``build_ends``, ``build_given_back``
    What is tried, decided, ended, and given back after it was confirmed.

The phase status table is part of the ledger's replicated state:

``Ledger.open_tries() -> int64[count]``
    Sequences of the TRY_DEBITs that are not decided, ascending. (Their events: ``Log.read_events``.)
``Ledger.unsettled() -> UNSETTLED[count]``
    Decisions whose far shard has not answered the second leg, in the order of the decisions: ``try_sequence``,
    ``decision_sequence``, ``is_confirm`` (int64, 0 or 1).
``Ledger.settle(try_sequences)``, ``Replica.settle(try_sequences: int64[count]) -> index``
    The far shard has answered: take these rows out; replicated by a control entry. Unknown ones are ignored.
"""
