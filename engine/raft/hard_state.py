"""What a member must remember whatever happens."""

import msgspec


class HardState(msgspec.Struct, frozen=True):
    """Durable before any message that rests on it leaves (the paper, figure 2: "persistent state").

    ``voted_for`` is the node that got this member's vote in ``term``, 0 if none did. ``barred``: this disk may have
    lost entries that it acknowledged, so the member neither votes nor campaigns until it has caught up. It is set by a
    repair that cuts such entries, and at first on every disk: one that is blank may have been wiped.
    """

    term: int = 0
    voted_for: int = 0
    barred: bool = False
