"""What a reader is told when it is started."""

import msgspec

from bezant.engine.publication import NO_DESCRIPTOR
from bezant.net.access.settings import OPEN, NodeSecurity


class Setup(msgspec.Struct, frozen=True):
    """Whose log is read, and where clients are taken.

    ``node``, "host:port", is where clients of the node connect, "" if it is not to be asked for anything.
    ``address``, "host:port", is what clients are told; ``listening`` are descriptors of bound sockets, ``wake`` is the
    eventfd of the node that publishes, if this is its own reader. ``security`` is that of the node. ``metrics`` are
    descriptors of bound sockets where it tells how it is.
    """

    data_directory: str
    shard: int
    address: str
    listening: list[int] = []
    wake: int = NO_DESCRIPTOR
    node: str = ""
    security: NodeSecurity = OPEN
    metrics: list[int] = []
