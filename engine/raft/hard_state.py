"""What a node of a group must never forget: the term that it is in, and whom it voted for in it."""

import msgspec


class HardState(msgspec.Struct, frozen=True):
    """Durable before any message that rests on it is sent; ``term`` never falls.

    ``voted_for`` is the node that got the vote in this term, 0 if none has; it does not change within the term.
    ``barred``: the log may have lost entries that this node acknowledged, so it neither votes nor campaigns.
    """

    term: int = 0
    voted_for: int = 0
    barred: bool = False
