"""The HTTP gateway: any number of stateless processes in front of a ledger, for those who come by HTTP or a browser.

A request passes, from the outside in:

- ``connections.py``: the sockets: how many, how large the head of a request is and how long it may take;
- ``metering.py``: counts every answer, and tells probers whether the gateway lives and is ready;
- ``front.py``: for which host and from which page (``hosts.py``), over whose connections to the ledger
  (``authorizing.py``), how much of it at a time (``admission.py``); transfers whose body is there are answered from
  here (``transfers.py``), everything else goes on;
- ``application.py``: the routes, by Litestar: ``accounts.py``, ``holds.py``, ``transactions.py``, ``history.py``,
  ``ledger.py``; ``push.py`` for those who want to be told: server-sent events and WebSockets; and ``cluster.py``, of
  how the nodes are, for operators.

Whatever is not done is told as a problem (RFC 9457): ``problems.py`` has the table of them, result codes included.
``identity.py`` says which id a transaction id or an Idempotency-Key stands for, ``bodies.py`` what requests and answers
look like, ``conversions.py`` makes the answers, ``documentation.py`` describes all of it, and
``console.py`` serves people a page that shows it, both with files in ``static/``. ``process.py`` runs it.
``webhooks/`` tells others what happens.

Imports the client SDK, the protocol, what is shown to nodes and clients (``net/access``), and what metrics are written
with, and nothing else of ours.
"""
