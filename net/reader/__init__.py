"""A node's reader: follows the log in a process of its own, tells subscribers of events, answers questions about it.

Start with ``child.py`` and ``process.py`` (how it is started and ends) and ``server.py`` (its parts, and how they hang
together).

    published position --wake-up--> Feed      -> hub of subscriptions -> connections   (on the event loop)
    published position -----------> Projector -> projections                          (in a thread of its own)
                      connections -> queries  -> replies                              (in a few threads)

``connection.py`` is one client, ``feed.py`` follows the log for subscriptions, ``projecting.py`` for projections.

To add to what a reader keeps and answers, add to ``parts.py``:

- A *projection* (`projecting.Projection`) is handed every entry of the log, a batch at a time, in order, each once:
  ``take_in(entries)``. It says where it wants to begin, and so has its own idea of what it has saved.
- A *query* is a function from the body of a request, and the entry up to which the log was published when it came, to
  the body of its reply, listed under its operation. It runs in one of a few threads. It raises `RemoteProtocolError`
  for a body that is none, `UsageError` for what cannot be asked, and `projecting.Awaits` for what must wait until the
  projections have come so far.
"""
