"""What a node is told of its own security: files with its certificate and with the token of its cluster.

As paths, so that a node can hand them on to the process of its reader.
"""

import ipaddress
import socket
import ssl
from collections.abc import Iterable
from typing import Final

import msgspec

from bezant.net.access.credentials import Credentials, make_credentials, read_token_file
from bezant.net.access.tls import PeerTls, dialling_context, listening_context
from bezant.protocol.errors import UsageError

INSECURE_OPTION: Final = "--insecure-listen"


class NodeSecurity(msgspec.Struct, frozen=True):
    """What `bezant serve` was told. Without a certificate there is no TLS; without a file only the log has tokens.

    ``tls_ca`` vouches for nodes, and for nothing else: whoever has a certificate of it is a node.
    """

    tls_certificate: str = ""
    tls_key: str = ""
    tls_ca: str = ""
    cluster_token_file: str = ""
    insecure_listen: bool = False

    @property
    def has_tls(self) -> bool:
        """Whether the wire is private."""
        return bool(self.tls_certificate)

    def check(self, *, in_group: bool) -> None:
        """Raise `UsageError` for files that are none, or do not make sense together."""
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise UsageError("--tls-cert and --tls-key belong together")
        if self.tls_ca and not self.has_tls:
            raise UsageError("--tls-ca is whose certificates nodes show each other: it needs --tls-cert and --tls-key")
        if in_group and self.has_tls and not self.tls_ca:
            raise UsageError("the nodes of a group know each other by their certificates: say whose, with --tls-ca")
        self.clients_context()
        self.peer_tls()
        self.credentials()

    def clients_context(self) -> ssl.SSLContext | None:
        """For the address of clients, of whom nodes alone have certificates to show; None without TLS."""
        if not self.has_tls:
            return None
        verify = ssl.CERT_OPTIONAL if self.tls_ca else ssl.CERT_NONE
        return listening_context(self.tls_certificate, self.tls_key, self.tls_ca or None, verify)

    def peer_tls(self) -> PeerTls | None:
        """For connections with other nodes, all of whom must show a certificate; None without TLS."""
        if not self.has_tls or not self.tls_ca:
            return None
        return PeerTls(
            listening_context(self.tls_certificate, self.tls_key, self.tls_ca, ssl.CERT_REQUIRED),
            dialling_context(self.tls_ca, self.tls_certificate, self.tls_key),
        )

    def cluster_token(self) -> str:
        """The token that all nodes of the cluster share; "" if they have none."""
        return read_token_file(self.cluster_token_file) if self.cluster_token_file else ""

    def credentials(self) -> Credentials:
        """What the node shows to other nodes."""
        if not self.has_tls:
            return make_credentials(token=self.cluster_token(), insecure=self.insecure_listen)
        return make_credentials(
            token=self.cluster_token(),
            tls=True,
            ca=self.tls_ca or None,
            certificate=self.tls_certificate,
            key=self.tls_key,
        )


OPEN: Final = NodeSecurity()
"""No TLS and no token: for addresses of this machine alone."""


def check_listening(sockets: Iterable[socket.socket], security: NodeSecurity, *, has_tokens: bool) -> None:
    """Raise `UsageError` if others than this machine could connect without TLS, or without a token."""
    if security.insecure_listen or (security.has_tls and has_tokens):
        return
    for bound in sockets:
        host = str(bound.getsockname()[0])
        if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
            lacks = "no token lets anybody in or keeps anybody out" if security.has_tls else "the wire is not private"
            raise UsageError(
                f"{host} can be reached from elsewhere, and {lacks}: give --tls-cert, --tls-key and "
                f"--cluster-token-file or, if the network is trusted, {INSECURE_OPTION}"
            )
