"""The node's side of the network. Start with ``serve.py`` (one process), then ``reactor.py`` (how batches flow).

``starting.py`` is what comes before and after a data folder is opened, ``warm.py`` compiles the kernels.
``listening.py`` takes addresses; ``clients.py`` has all connections, ``open_connections.py`` what they share,
``connection.py`` is one, ``greeting.py`` what is looked at before its HELLO, ``inbox.py`` the bytes that it cannot take
yet; ``requests.py`` answers everything that is not a command, ``guarding.py`` looks at who may have it done and
``acts.py`` puts that into words, ``closing.py`` is CLOSE_TIME. ``frame_kernels.py`` takes frames apart and puts replies
together, ``scan_errors.py`` is for what is none, ``chain_kernels.py`` finds chains that have no end, ``batch.py`` is
what travels from the sockets to the log and back, ``telling.py`` tells everybody what became of it, ``batch_times.py``
and ``statistics.py`` count, ``reporting.py`` and ``watchers.py`` tell how all is, ``syncing.py`` is the helper thread
that waits for the disk, ``expiry.py`` lets holds expire when nothing comes in, ``peering.py`` is the node's part in its
group, ``joining.py`` finds it and ``group.py`` tells of it, ``checkpointing.py`` has checkpoints made by a child
process, ``checkpoint_child.py``, ``reading.py`` runs the reader, ``dropping.py`` lets segments go that an archive has,
``failure.py`` is how a node ends that must not go on, ``allocation.py`` what becomes of memory that is freed, and
``echo.py`` answers every byte with itself, to be measured against.

Of several shards: ``placing.py`` and ``placing_kernels.py`` say whose a slot is, ``following_map.py`` keeps up with the
map, ``moving.py`` and ``moving_out.py`` move slots. Start with ``coordinating.py`` for transfers between shards:
``flights.py`` and ``flight_kernels.py`` are those on their way, ``transits.py`` the accounts that they go through,
``riders.py`` what the other shard is still to be told, ``ending.py`` has that done which nothing took along,
``orphans.py`` is for what nobody carries on, ``deferring.py`` lets tries wait for what is written next, ``silence.py``
knows who is not waited for long. ``legs.py`` is the lane for what coordinators ask, ``leg_kernels.py`` finds what
clients must not send, ``moved_legs.py`` what is another shard's by now, ``shard_links.py`` asks other shards.
``transacting.py`` and ``transacting_steps.py`` carry transactions of several legs.
"""
