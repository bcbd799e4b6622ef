"""The peers: wallets as they are built on PostgreSQL and Redis, measured in one run with Bezant; behind
`bezant bench compare`.

``programs`` finds the servers or fetches them from Debian's packages, ``servers`` runs them, ``wallets`` has a class
for each peer. The load is a process of its own (``load``), with a client for each peer (``postgres_client``,
``two_phase``, ``redis_client``, ``bezant_client``). ``comparing`` goes through all of it, ``report`` and ``plot`` tell.
"""
