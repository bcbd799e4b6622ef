"""Raft: which entries of the log are decided. A pure state machine; it knows indexes and terms, never an entry's bytes.

Messages and ticks go in, an `Output` comes out: what to make durable, what to write, what to send, how far the log is
committed. There is no clock, socket, thread, file or randomness of its own in this folder, and it imports nothing but
``bezant.protocol``. Begin with ``core.py``: the interface, the rules that its driver must keep, terms and elections.
``voting.py`` is one campaign, ``following.py`` what a follower does with a leader's messages, ``leading.py`` what a
leader does: each is thrown away with the term or role that it belongs to, so nothing of it can be left behind.
``progress.py`` is what a leader knows of one member, ``reads.py`` how it answers reads. Below them are
``membership.py`` (configurations and changes of them), ``quorum.py`` (who is a majority), ``searching.py`` (where two
logs part), ``roles.py`` (which role follows which), ``state.py`` (what all of these share), ``interface.py`` (what goes
in and out), ``hard_state.py`` (what must survive).

Sources: Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm" (2014), called "the paper" here;
Ongaro, "Consensus: Bridging Theory and Practice" (2014), "the dissertation"; and the behaviour of etcd's Raft.
"""
