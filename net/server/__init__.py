"""The node's side of the network. Start with ``serve.py`` (one process), then ``reactor.py`` (how batches flow).

``clients.py`` has all connections, ``connection.py`` is one, ``inbox.py`` the bytes that it cannot take yet;
``requests.py`` answers everything that is not a command, ``frame_kernels.py`` takes frames apart and puts replies
together, ``batch.py`` is what travels from the sockets to the log and back, ``syncing.py`` the helper thread that waits
for the disk, ``expiry.py`` lets holds expire when nothing comes in, ``failure.py`` is how a node ends that must not go
on.
"""
