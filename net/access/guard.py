"""Whom a node, or its reader, lets in: by the token of the HELLO, or by the certificate of another node.

While no token is known, neither in the log nor as the cluster's own, everybody is. That changes when the first one is
made, and whoever is there then is put out like one whose token is revoked.
"""

import hmac
from typing import Final

from bezant.engine.tokens.table import TokenTable
from bezant.protocol.access import (
    ANYBODY,
    CLUSTER_ID,
    EVERYBODY,
    OPERATIONS,
    Principal,
    Scope,
    operation_refusal,
    token_id_of,
)
from bezant.protocol.errors import UsageError

NOT_LET_IN: Final = "this node lets nobody in without a token that it knows, and that was not revoked"
PUT_OUT: Final = "the token of this connection does not count any more, or one is asked for from now on"
NODE_PREFIX: Final = "node:"
"""How who is known by a certificate is named where others have the ids of their tokens."""
_PEER_ALONE: Final = frozenset({Scope.PEER})
_CLUSTER = Principal(CLUSTER_ID, EVERYBODY)


class Guard:
    """See the module. Used on the loop."""

    def __init__(self, tokens: TokenTable, cluster_token: str = "", *, nodes_are_certified: bool = False) -> None:
        """`tokens` is the table of the ledger or one that is kept like it; `cluster_token` that of all nodes, or "".

        `nodes_are_certified`: nodes show each other certificates.
        """
        self.tokens = tokens
        self.nodes_get_in = bool(cluster_token) or nodes_are_certified
        """Whether other nodes do, once tokens are asked for."""
        self._cluster_token = cluster_token.encode()

    @property
    def asks_for_tokens(self) -> bool:
        """Whether nobody gets in without one."""
        return bool(self._cluster_token) or len(self.tokens) > 0

    @property
    def has_cluster_token(self) -> bool:
        """Whether somebody gets in without a token of the log."""
        return bool(self._cluster_token)

    def admit(self, text: str, node_name: str | None = None) -> Principal | None:
        """Who comes with this token, and this name in the certificate of a node; None if that is nobody to be let in.

        A node is known by its certificate also while it shows a token that is none here: that of its cluster may be
        replaced just now, a node after the other.
        """
        principal = self._holder_of(text) if text else None
        if principal is not None:
            is_named = principal.token_id == CLUSTER_ID and node_name is not None
            return principal._replace(token_id=f"{NODE_PREFIX}{node_name}") if is_named else principal
        if node_name is not None:
            scopes = _PEER_ALONE if self.asks_for_tokens else EVERYBODY
            return Principal(f"{NODE_PREFIX}{node_name}", scopes)
        # A client that always shows its token is let in as well where none is asked for.
        return None if self.asks_for_tokens else ANYBODY

    def _holder_of(self, text: str) -> Principal | None:
        """Whose token this is; None if it counts for nobody."""
        if self._cluster_token and hmac.compare_digest(text.encode(), self._cluster_token):
            return _CLUSTER
        try:
            token = self.tokens.find(token_id_of(text))
        except UsageError:
            return None
        return token.principal if token is not None and token.matches(text) and not token.revoked_ns else None

    def refusal_of(self, principal: Principal, operation: int) -> str:
        """Why a principal may not ask for an operation that there is; "" if it may."""
        return operation_refusal(principal, operation) if principal is not ANYBODY and operation in OPERATIONS else ""

    def counts(self, principal: Principal) -> bool:
        """Whether somebody who was let in would be now."""
        if not principal.token_id:
            return not self.asks_for_tokens
        if principal.token_id == CLUSTER_ID:
            return self.has_cluster_token
        if principal.token_id.startswith(NODE_PREFIX):
            # One that may do everything had the token of the cluster, or came when everybody might.
            return principal.scopes == _PEER_ALONE or self.has_cluster_token or not self.asks_for_tokens
        token = self.tokens.find(principal.token_id)
        return token is not None and not token.revoked_ns
