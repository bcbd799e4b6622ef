"""What this side shows to a node that it dials: a token, a certificate, and whom it trusts to vouch for the node.

A program connects with what it gives to `connect`. A process that is one of ours, a node or a command, has one identity
for all that it dials, which is said once when it starts (`use_credentials`) and counts wherever nothing else is said.
"""

import logging
import os
import ssl
import stat
from pathlib import Path
from typing import Any, Final, NamedTuple

from bezant.net.access.addresses import is_of_this_machine
from bezant.net.access.tls import dialling_context
from bezant.protocol.access import token_id_of
from bezant.protocol.errors import ConnectionFailed, UsageError

TLS_SCHEME: Final = "bezant+tls://"
PLAIN_SCHEME: Final = "bezant://"
INSECURE_CONNECT_OPTION: Final = "--insecure-connect"
TOKEN_FILE_SIZE_MAX: Final = 4096
"""Bytes of a file with a token."""


class Credentials(NamedTuple):
    """What is shown to every node. `tls` is None where the wire is not private; then a token is shown on this machine
    alone, unless `insecure` says that it may be seen by whoever can read along."""

    token: str = ""
    tls: ssl.SSLContext | None = None
    insecure: bool = False

    def __repr__(self) -> str:
        """Without the token."""
        return f"Credentials({'with' if self.token else 'without'} a token, {'with' if self.tls else 'without'} TLS)"

    def dial_arguments(self, host: str, timeout_s: float) -> dict[str, Any]:
        """What `create_connection` must be given besides the address; none without TLS.

        Raises `TokenInClear`, which every way to a node comes by.
        """
        self.check_host(host)
        if self.tls is None:
            return {}
        return {"ssl": self.tls, "server_hostname": host, "ssl_handshake_timeout": timeout_s}

    def check_host(self, host: str) -> None:
        """Raise `TokenInClear` if the token would be shown to a host without TLS."""
        if self.token and self.tls is None and not (self.insecure or is_of_this_machine(host)):
            raise TokenInClear(
                f"a token is not shown in clear to {host}: connect by TLS or, if the network is trusted, say so"
                f" ({INSECURE_CONNECT_OPTION}, insecure=True)"
            )


class TokenInClear(ConnectionFailed):
    """A node was not connected to, because whoever reads along on the network would have our token."""


NO_CREDENTIALS: Final = Credentials()

_log = logging.getLogger("bezant")
_own = NO_CREDENTIALS
_warned_of: set[str] = set()
"""Paths of files that everybody can read; each that a process is told of once."""


def use_credentials(credentials: Credentials) -> None:
    """Have this process show these wherever nothing else is said."""
    global _own
    _own = credentials


def own_credentials() -> Credentials:
    """What this process shows wherever nothing else is said."""
    return _own


def make_credentials(
    *,
    token: str = "",
    tls: bool = False,
    ca: str | os.PathLike[str] | None = None,
    certificate: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    insecure: bool = False,
) -> Credentials:
    """What to show: TLS if asked for, or if `ca` says whose signature a node's certificate needs; else the system does.
    `insecure`: the token also without TLS, wherever a node is.

    Raises `UsageError` for a token or files that are none.
    """
    if token:
        token_id_of(token)
    if not (tls or ca is not None):
        if certificate is not None or key is not None:
            raise UsageError("a certificate is shown over TLS alone: say so, or name the authority that is trusted")
        return Credentials(token, insecure=insecure)
    return Credentials(token, dialling_context(ca, certificate, key), insecure)


def split_scheme(addresses: str) -> tuple[str, bool]:
    """Addresses without what they may begin with, "bezant://" or "bezant+tls://", and whether that asks for TLS."""
    for scheme, tls in ((TLS_SCHEME, True), (PLAIN_SCHEME, False)):
        if addresses.startswith(scheme):
            return addresses.removeprefix(scheme), tls
    return addresses, False


def read_token_file(path: str | os.PathLike[str]) -> str:
    """The token in a file that holds nothing else; warns once of one that everybody can read.

    Raises `UsageError`, which never repeats what it holds.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(TOKEN_FILE_SIZE_MAX + 1)
            is_open = os.fstat(file.fileno()).st_mode & stat.S_IROTH != 0
    except OSError as error:
        raise UsageError(f"the file with the token cannot be read: {error}") from error
    try:
        text = content.decode("ascii").strip()
        token_id_of(text)
    except (UnicodeDecodeError, UsageError):
        raise UsageError(f"{path} holds no token and nothing else: bezant_, 12 characters, _, 43 characters") from None
    if is_open and str(path) not in _warned_of:
        _warned_of.add(str(path))
        _log.warning("bezant: %s holds a token, and everybody on this machine can read it: chmod 600 it", path)
    return text
