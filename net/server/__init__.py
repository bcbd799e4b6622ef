"""The node's side of the network. Start with ``serve.py`` (one process), then ``reactor.py`` (how batches flow).

``connection.py`` is one client, ``requests.py`` answers everything that is not a command, ``frame_kernels.py`` takes
frames apart and puts replies together, ``batch.py`` is what travels from the sockets to the log and back, ``syncing.py``
the helper thread that waits for the disk.
"""
