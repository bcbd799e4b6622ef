"""Who a node is to the others of its group, and whom it lets in."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import randbits
from typing import Final

import blake3
import msgspec

from bezant.protocol.errors import UsageError
from bezant.protocol.frames import PROTOCOL_VERSION, FrameError
from bezant.protocol.messages import NODE_ID_MAX, PeerHello
from bezant.protocol.raft_messages import INDEX_MAX
from bezant.protocol.records import ENTRIES_VERSION

SERVER_SIZE_MAX: Final = 200
"""Characters of the name and version of a node; a greeting must fit into PEER_CONTROL_SIZE_MAX."""

NO_PROOF: Final = "this node takes no node in that does not prove that it has the token of the cluster"
_PROOF_CONTEXT: Final = "bezant: nodes know each other by the token of the cluster"
_PROVEN_FIELDS: Final = PeerHello.__struct_fields__[: PeerHello.__struct_fields__.index("proof")]

Refusal = tuple[FrameError, str]
"""What an ERROR frame says."""
Judge = Callable[[PeerHello], str | None]
"""Whether to take a node, as the group's configuration has it: None, or the reason why not, in words."""


def proof_of(cluster_token: str, hello: PeerHello) -> bytes:
    """What shows that whoever says a greeting has the token: BLAKE3 of its other fields, with a key made of the token.

    It does not tell the token, and is good for no other greeting. Who can read along can repeat this one.
    """
    told = (getattr(hello, name) for name in _PROVEN_FIELDS)
    text = "\n".join(value if isinstance(value, str) else str(int(value)) for value in told)
    key = blake3.blake3(cluster_token.encode(), derive_key_context=_PROOF_CONTEXT).digest()
    return blake3.blake3(text.encode(), key=key).digest()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a node is: fields as in `PeerHello`. `cluster_token` is that of all nodes of the cluster, or ""."""

    log_id: str
    node_id: int
    incarnation: int
    log_format_version: int
    rules_version_max: int
    server: str
    run_id: int = 0
    is_blank: Callable[[], bool] = lambda: False
    term: Callable[[], int] = lambda: 0
    cluster_token: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if not 0 < self.node_id <= NODE_ID_MAX:
            raise UsageError(f"a node id is a number from 1 to {NODE_ID_MAX}, not {self.node_id}")
        if len(self.server) > SERVER_SIZE_MAX or len(self.log_id) > SERVER_SIZE_MAX:
            raise UsageError(f"the names in a greeting have at most {SERVER_SIZE_MAX} characters")
        if not self.run_id:
            object.__setattr__(self, "run_id", randbits(62) + 1)

    def hello(self, receiver: int, receiver_incarnation: int, clock_ns: int) -> PeerHello:
        """What this node says to another, whose incarnation is 0 if it is not known."""
        hello = PeerHello(
            log_id=self.log_id,
            node_id=self.node_id,
            incarnation=self.incarnation,
            receiver=receiver,
            receiver_incarnation=receiver_incarnation,
            protocol_version=PROTOCOL_VERSION,
            log_format_version=self.log_format_version,
            rules_version_max=self.rules_version_max,
            clock_ns=clock_ns,
            server=self.server,
            run_id=self.run_id,
            blank=self.is_blank(),
            term=self.term(),
            entries_version=ENTRIES_VERSION,
        )
        if not self.cluster_token:
            return hello
        return msgspec.structs.replace(hello, proof=proof_of(self.cluster_token, hello))


class Gate:
    """Decides whether this node talks to another, the same way for who dials and who is dialled."""

    def __init__(self, identity: Identity, judge: Judge, *, has_tls: bool = False) -> None:
        """`has_tls`: who the other is was proven by its certificate, before it has said anything."""
        self.identity = identity
        self._asks_for_proof = identity.cluster_token != "" and not has_tls
        self._judge = judge
        self.incarnations: dict[int, int] = {}
        """Every other member: its incarnation, or 0 where it is not known."""

    def refusal_of(self, hello: PeerHello, expected: int | None = None) -> Refusal | None:
        """Why this node does not talk to the one that says `hello`, or None; `expected` is whom it dialled."""
        own = self.identity
        if self._asks_for_proof and not hmac.compare_digest(proof_of(own.cluster_token, hello), hello.proof):
            return FrameError.UNAUTHENTICATED, NO_PROOF
        known = self.incarnations.get(hello.node_id)
        us, them = f"node {own.node_id}", f"node {hello.node_id}"
        unsupported = FrameError.VERSION_UNSUPPORTED
        refused = FrameError.REQUEST_REFUSED
        table = (
            (
                hello.protocol_version != PROTOCOL_VERSION,
                unsupported,
                f"{them} speaks protocol version {hello.protocol_version}, and {us} {PROTOCOL_VERSION}",
            ),
            (
                hello.log_format_version != own.log_format_version,
                unsupported,
                f"{them} has log format {hello.log_format_version}, and {us} {own.log_format_version}",
            ),
            # Whoever asks is not told of which: who does not know it is a stranger.
            (hello.log_id != own.log_id, refused, f"{them} is of the group {hello.log_id}, and {us} of another one"),
            (hello.node_id == own.node_id, refused, f"two nodes have the id {own.node_id}"),
            (expected not in (None, hello.node_id), refused, f"{them} answers where node {expected} should"),
            (hello.receiver != own.node_id, refused, f"this is {us}, not node {hello.receiver}: a wrong address"),
            (
                hello.receiver_incarnation not in (0, own.incarnation),
                refused,
                f"this disk is not the one that the group knows as {us}",
            ),
            (
                not 0 <= hello.term < INDEX_MAX,
                refused,
                f"{them} says that it is in term {hello.term}, which no node ever is",
            ),
            (known is None, refused, f"{them} is no member that {us} knows of"),
            (
                known not in (None, 0, hello.incarnation),
                refused,
                f"the disk of {them} is not the one that the group knows as {them}",
            ),
        )
        for is_wrong, code, reason in table:
            if is_wrong:
                return code, reason
        verdict = self._judge(hello)
        return None if verdict is None else (refused, verdict)
