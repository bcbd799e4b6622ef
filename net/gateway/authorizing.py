"""Who asks. The one place that will look at tokens and certificates: every request and every push passes `authorize`.

For now everybody who reaches the gateway may do everything, and `process.py` lets nobody reach it from elsewhere.
"""

import msgspec

from bezant.net.gateway.asgi import Scope

PRINCIPAL = "bezant.principal"
"""Where the scope of a request has its `Principal`."""


class Principal(msgspec.Struct, frozen=True):
    """Who asks: ``name`` is what limits are kept by, and what is told in logs."""

    name: str


def authorize(request: Scope) -> Principal:
    """Say who asks, by the ASGI scope of a request (its type, path, headers and client).

    Raises `ProblemRaised` if they may not.
    """
    client = request.get("client")
    return Principal(client[0] if client else "")
