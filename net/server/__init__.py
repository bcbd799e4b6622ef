"""The node's side of the network. Start with ``serve.py`` (one process), then ``reactor.py`` (how batches flow).

``starting.py`` is what comes before and after a data folder is opened, ``warm.py`` compiles the kernels.
``clients.py`` has all connections, ``connection.py`` is one, ``inbox.py`` the bytes that it cannot take yet;
``requests.py`` answers everything that is not a command, ``statistics.py`` counts, ``frame_kernels.py`` takes frames
apart and puts replies together, ``chain_kernels.py`` finds chains that have no end, ``batch.py`` is what travels from
the sockets to the log and back, ``syncing.py`` the helper thread that waits for the disk, ``expiry.py`` lets holds
expire when nothing comes in, ``peering.py`` is the node's part in its group and ``group.py`` tells of it,
``checkpointing.py`` has checkpoints made by a child process, ``checkpoint_child.py``, ``dropping.py`` lets segments go
that an archive has, ``leg_kernels.py`` finds what clients must not send, ``failure.py`` is how a node ends that must
not go on, and ``echo.py`` answers every byte with
itself, to be measured against.
"""
