"""Webhooks: what happens is sent to addresses that an administrator has registered, signed, in order, at least once.

``routes.py`` is the API. ``hooks.py`` follows the ledger for each hook by itself, so that one that is slow keeps no
other waiting, and tries again what was not taken. ``sending.py`` is one attempt: where it may go, how it is signed;
``resolving.py`` looks names up for it. ``store.py`` keeps hooks with their secrets, how far each has been told, and
what was given up, in a folder that one gateway holds at a time. How far a hook has been told is written down behind
each delivery: whatever was not written when a gateway ends is sent again, under the same webhook-id.
"""
