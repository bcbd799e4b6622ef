"""The client SDK. Start with ``opening.py`` (`connect`, `open`), then ``wallet.py`` (what can be asked of a ledger).

A `Wallet` stands over a `Channel` (``channel.py``), the one thing that differs between nodes across TCP
(``connection.py``, with its bookkeeping in ``pipeline.py``, its choice of a node in ``route.py``, its suspicion of a
silent one in ``silence.py`` and its socket in ``link.py``) and an engine in the same process. ``coalescer.py`` turns
concurrent awaits into frames, ``batches.py`` cuts NumPy arrays into them, ``prepared.py`` makes commands before they
are sent, ``commands.py`` and ``results.py`` convert what people write to records and back, ``lookups.py`` reads,
``blocking.py`` is the same without await.

``sharding.py`` is a channel to the leaders of several shards, with ``sharding_readers.py`` and
``sharding_subscribing.py`` for what their readers answer and tell.
"""
