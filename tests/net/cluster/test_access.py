"""Claim: real nodes with certificates and tokens work as nodes without do, and let nobody else in: neither where
clients connect, nor where nodes do, nor at the reader; and none of them writes a token anywhere."""

import asyncio
import contextlib
import os
import secrets
import ssl
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

import bezant
from bezant.cli.node_process import NodeProcess
from bezant.net.access.credentials import NO_CREDENTIALS, make_credentials, use_credentials
from bezant.net.access.tls import dialling_context
from bezant.net.client.connection import TcpChannel
from bezant.net.peers.identity import NO_PROOF
from bezant.protocol.access import ChangeTokens, Scope, Token, digest_of, token_text
from bezant.protocol.errors import AccessDenied, BezantError, ConnectionFailed
from bezant.protocol.frames import Operation, encode_frame
from bezant.protocol.messages import Hello, encode_message

from ..access.authority import Authority, Signed
from .nodes import Nodes

WAIT_S = 30.0
CLUSTER = token_text("cccccccccccc", secrets.token_urlsafe(32))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Who signs for the cluster."""
    return Authority(tmp_path / "certificates")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """What a test has this process show, it shows no longer afterwards."""
    yield
    use_credentials(NO_CREDENTIALS)


@pytest.fixture
def cluster_file(tmp_path: Path) -> Path:
    file = tmp_path / "cluster-token"
    file.write_text(CLUSTER)
    return file


def options(authority: Authority, shown: Signed, cluster_file: Path) -> tuple[str, ...]:
    return (
        f"--tls-cert={shown.certificate}",
        f"--tls-key={shown.key}",
        f"--tls-ca={authority.file}",
        f"--cluster-token-file={cluster_file}",
    )


@pytest.fixture
async def group(tmp_path: Path, authority: Authority, cluster_file: Path) -> AsyncIterator[Nodes]:
    """Three nodes that know each other by their certificates."""
    nodes = Nodes(tmp_path)
    for number in nodes.places:
        nodes.start(number, arguments=options(authority, authority.sign(f"n{number}"), cluster_file))
    use_credentials(make_credentials(token=CLUSTER, ca=authority.file))
    try:
        await nodes.ready()
        yield nodes
    finally:
        nodes.close()
    for number in nodes.places:
        assert CLUSTER not in nodes.log(number)
        assert CLUSTER.split("_", 2)[2] not in nodes.log(number)


async def made(channel: TcpChannel, *scopes: Scope) -> tuple[str, str]:
    """A token that counts, and its id."""
    text = token_text(secrets.token_hex(6), secrets.token_urlsafe(32))
    token = Token(text.split("_")[1], digest_of(text), list(scopes))
    await channel.request(Operation.CHANGE_TOKENS, encode_message(ChangeTokens(create=token)), WAIT_S)
    return text, token.token_id


async def end_of(address: str, context: ssl.SSLContext | None, *frames: bytes) -> bytes:
    """All that a node says until it closes the connection, or why none came to be."""
    host, port = address.split(":")
    arguments = {} if context is None else {"ssl": context, "server_hostname": host}
    try:
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection(host, int(port), **arguments)  # type: ignore[arg-type]
            writer.write(b"".join(frames))
            said = await reader.read()
            writer.transport.abort()
            return said
    except (OSError, ssl.SSLError) as error:
        return str(error).encode()


async def test_a_group_of_private_nodes(group: Nodes, authority: Authority, tmp_path: Path) -> None:
    addresses = ",".join(group.addresses)
    async with bezant.connect(addresses, token=CLUSTER, ca=authority.file, timeout_s=WAIT_S) as wallet:
        await wallet.open_account("world", "EUR", limit=bezant.UNLIMITED)
        await wallet.open_account("ann", "EUR")
        assert (await wallet.transfer("world", "ann", "5.00", "EUR")).code == bezant.ResultCode.COMMITTED
    channel = await TcpChannel.open(addresses, WAIT_S)
    text, token_id = await made(channel, Scope.TRANSFER)

    # The token counts wherever it is shown, also where another node leads later.
    leader = await group.leader()
    await group.change("transfer", next(number for number in group.places if number != leader))
    client = bezant.connect(addresses, token=text, ca=authority.file, timeout_s=WAIT_S)
    async with client as wallet:
        assert (await wallet.transfer("world", "ann", "1.00", "EUR")).code == bezant.ResultCode.COMMITTED
        with pytest.raises(AccessDenied, match="LOOKUP_ACCOUNTS takes the scope read"):
            await wallet.account("ann", "EUR")
        await channel.request(Operation.CHANGE_TOKENS, encode_message(ChangeTokens(revoke=token_id)), WAIT_S)
        with contextlib.suppress(AccessDenied):  # Or it is on its way when the node puts this client out.
            assert not (await wallet.transfer("world", "ann", "1.00", "EUR", timeout_s=5.0)).committed
    with pytest.raises(AccessDenied):
        await bezant.connect(group.addresses[0], token=text, ca=authority.file, timeout_s=WAIT_S)
    await channel.close()

    # Nobody else gets in, be it where clients connect or where nodes do.
    other = Authority(tmp_path / "other", "other")
    peer = group.places[1][0]
    for context in (None, dialling_context(authority.file), dialling_context(authority.file, *other.sign("n9"))):
        said = await end_of(peer, context, encode_frame(Operation.PEER_HELLO, 0, b"\x80"))
        assert b"HELLO" not in said
        assert len(said) < 200
    with pytest.raises(ConnectionFailed, match="certificate"):
        await bezant.connect(group.addresses[0], token=CLUSTER, ca=other.file, timeout_s=5.0)
    with pytest.raises(BezantError):
        await bezant.connect(group.addresses[0], token=CLUSTER, timeout_s=5.0)
    with pytest.raises(AccessDenied):
        await bezant.connect(group.addresses[0], ca=authority.file, timeout_s=5.0)
    for number in group.places:
        assert text not in group.log(number)

    # Where a node shows its certificate to another one's clients' address it is a node, and no more.
    shown = authority.sign("n8")
    node = make_credentials(ca=authority.file, certificate=shown.certificate, key=shown.key)
    as_node = await TcpChannel.open(addresses, WAIT_S, credentials=node)
    assert await as_node.request(Operation.MEMBERS, b"", WAIT_S)
    with pytest.raises(AccessDenied):
        await as_node.request(Operation.TOKENS, b"", WAIT_S)
    await as_node.close()


async def test_a_group_without_certificates_knows_its_nodes_by_the_token(tmp_path: Path, cluster_file: Path) -> None:
    """And one of its nodes that comes with another token is none."""
    other = tmp_path / "other-token"
    other.write_text(token_text("dddddddddddd", secrets.token_urlsafe(32)))
    nodes = Nodes(tmp_path)
    use_credentials(make_credentials(token=CLUSTER))
    first, second, third = nodes.places
    try:
        nodes.start(arguments=(f"--cluster-token-file={cluster_file}",))
        await nodes.leader()
        await nodes.stop(third)
        nodes.start(third, arguments=(f"--cluster-token-file={other}",))
        await nodes.ready()
        both = ",".join(nodes.places[number][1] for number in (first, second))
        async with bezant.connect(both, token=CLUSTER, timeout_s=WAIT_S) as wallet:
            assert (await wallet.open_account("ann", "EUR")).code == bezant.ResultCode.COMMITTED
        async with asyncio.timeout(WAIT_S):
            while NO_PROOF not in (told := (await nodes.status(first, second)).members[third - 1]).problem:
                await asyncio.sleep(0.1)
        assert not told.active
    finally:
        nodes.close()


async def test_a_node_alone_and_its_reader(tmp_path: Path, authority: Authority, cluster_file: Path) -> None:
    shown = authority.sign("alone")
    node = NodeProcess(
        tmp_path / "data",
        log_path=tmp_path / "node.log",
        listen="127.0.0.1:0",
        arguments=("--segment-size-mib", "8", "--ids-memory-mib", "64", *options(authority, shown, cluster_file)),
        command=(sys.executable, "-m", "bezant", "serve"),
    )
    node.start()
    try:
        await node.ready(WAIT_S)
        channel = await TcpChannel.open(
            node.address, WAIT_S, credentials=make_credentials(token=CLUSTER, ca=authority.file)
        )
        text, token_id = await made(channel, Scope.READ, Scope.TRANSFER, Scope.ADMIN)
        async with bezant.connect(
            f"bezant+tls://{node.address}", token=text, ca=authority.file, timeout_s=WAIT_S
        ) as one:
            await one.open_account("world", "EUR", limit=bezant.UNLIMITED)
            await one.open_account("ann", "EUR")
            subscription = one.subscribe(accounts=[("ann", "EUR")], after=0)
            await one.transfer("world", "ann", "5.00", "EUR")
            async with asyncio.timeout(WAIT_S):
                events = [await anext(subscription) for _ in range(2)]
            assert [event.kind for event in events] == [1, 2]
            assert len([event async for event in one.history.statement("ann", "EUR")]) == 2
            # At the reader, too, a token is asked for, and counts no more when it is revoked.
            reader = subscription.address
            stranger = encode_frame(Operation.HELLO, 1, encode_message(Hello("test", 1)))
            said = await end_of(reader, dialling_context(authority.file), stranger)
            assert b"lets nobody in" in said
            await channel.request(Operation.CHANGE_TOKENS, encode_message(ChangeTokens(revoke=token_id)), WAIT_S)
            with pytest.raises(BezantError):
                async with asyncio.timeout(WAIT_S):
                    await anext(subscription)
        await channel.close()
        await node.stop()
    finally:
        node.end()
    written = (tmp_path / "node.log").read_text()
    assert CLUSTER not in written
    assert text not in written
    for file in (tmp_path / "data").rglob("*"):
        if file.is_file():
            assert text.split("_", 2)[2].encode() not in file.read_bytes(), file


@pytest.mark.parametrize("secured", [False, True])
async def test_nobody_is_listened_to_from_elsewhere_without_both(
    tmp_path: Path, authority: Authority, secured: bool
) -> None:
    shown = authority.sign("alone", host="0.0.0.0")
    arguments = (f"--tls-cert={shown.certificate}", f"--tls-key={shown.key}") if secured else ()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bezant", "serve", "--data", str(tmp_path / "data"), "--listen", "0.0.0.0:0",
        "--no-reader", *arguments, stderr=asyncio.subprocess.PIPE, env=dict(os.environ),
    )  # fmt: skip
    _, told = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    assert b"--insecure-listen" in told
