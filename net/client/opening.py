"""Ways to get a wallet: over TCP, awaited or blocking, or over an engine in the same process."""

from collections.abc import Awaitable, Callable, Generator
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any

from bezant.net.access.credentials import make_credentials, split_scheme
from bezant.net.client.blocking import BlockingWallet
from bezant.net.client.channel import Channel
from bezant.net.client.sharding import open_channel
from bezant.net.client.wallet import TIMEOUT_S_DEFAULT, Wallet


class Opening:
    """A wallet about to be opened: await it for the `Wallet`, or use it in ``async with``, which closes it."""

    def __init__(self, open_channel: Callable[[], Awaitable[Channel]], timeout_s: float) -> None:
        self._open_channel = open_channel
        self._timeout_s = timeout_s
        self._wallet: Wallet | None = None

    def __await__(self) -> Generator[Any, None, Wallet]:
        return self._open().__await__()

    async def __aenter__(self) -> Wallet:
        self._wallet = await self._open()
        return self._wallet

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wallet is not None:
            await self._wallet.close()

    async def _open(self) -> Wallet:
        return await Wallet.open_over(await self._open_channel(), self._timeout_s)


def connect(
    addresses: str,
    *,
    timeout_s: float = TIMEOUT_S_DEFAULT,
    token: str = "",
    ca: str | PathLike[str] | None = None,
    certificate: str | PathLike[str] | None = None,
    key: str | PathLike[str] | None = None,
    insecure: bool = False,
) -> Opening:
    """Connect to the node at "host:port", or to the leader of a group of nodes at "host:port,host:port,...".

    ``await`` the outcome or use it in ``async with``. Any of a group's addresses will do, and more of them help while
    nodes are away; the wallet learns the others and follows the leader, so that every call goes on until its deadline.

    If the accounts are spread over several shards, the address of any node of any shard will do likewise.

    `timeout_s` bounds the connecting and is the deadline of every call that names none. `token` says who we are, where
    nodes ask for that. Addresses that begin with "bezant+tls://" are connected to by TLS, and so are any with `ca`, the
    file with the certificate of the authority that vouches for the nodes (without it the system's vouch for them);
    `certificate` and `key` are files with what we show in turn, should nodes want it. Without TLS a token is shown on
    this machine alone, or with `insecure` to whoever can read along on the network.

    Raises `ConnectionFailed` if nobody answers or nobody leads, or is not shown the token for want of TLS,
    `AccessDenied` if the token lets nobody in, `RequestRefused` or `RemoteProtocolError` if whoever answers at the only
    address will not have us, `UsageError` if an address, a token or a file is not one.
    """
    bare, asks_for_tls = split_scheme(addresses)
    if not (token or asks_for_tls or ca or certificate or key):
        return Opening(lambda: open_channel(bare, timeout_s), timeout_s)
    credentials = make_credentials(
        token=token, tls=asks_for_tls, ca=ca, certificate=certificate, key=key, insecure=insecure
    )
    return Opening(lambda: open_channel(bare, timeout_s, credentials), timeout_s)


def connect_blocking(
    addresses: str,
    *,
    timeout_s: float = TIMEOUT_S_DEFAULT,
    token: str = "",
    ca: str | PathLike[str] | None = None,
    certificate: str | PathLike[str] | None = None,
    key: str | PathLike[str] | None = None,
    insecure: bool = False,
) -> BlockingWallet:
    """Connect to a node or a group of nodes from code that does not await; see `connect`, also for what it raises."""
    return BlockingWallet(
        connect(addresses, timeout_s=timeout_s, token=token, ca=ca, certificate=certificate, key=key, insecure=insecure)
    )


def open(path: str | PathLike[str], *, timeout_s: float = TIMEOUT_S_DEFAULT) -> Opening:  # noqa: A001 - as in bezant.open
    """Open the ledger in the data folder `path` in this process and event loop, with no node and no socket.

    ``await`` the outcome or use it in ``async with``. Raises `StorageError` if the folder does not let us.
    """

    async def open_embedded() -> Channel:
        # The engine brings compiled kernels with it; a client of a node must not wait for them.
        from bezant.net.embedded import open_channel as open_engine

        return await open_engine(Path(path))

    return Opening(open_embedded, timeout_s)
