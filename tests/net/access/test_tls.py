"""Claim: nobody talks to a node by TLS who does not show what it asks for, nor to one that is not who it should be; and
whoever does not get on with the handshake takes nothing from others."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bezant.net.access import tls
from bezant.net.access.credentials import (
    NO_CREDENTIALS,
    Credentials,
    make_credentials,
    read_token_file,
    split_scheme,
)
from bezant.net.access.settings import NodeSecurity, check_listening
from bezant.net.access.tls import TlsListener, dialling_context, is_private, listening_context, name_of_peer
from bezant.net.server.listening import bind_address
from bezant.protocol.errors import UsageError

from .authority import Authority, Signed

WAIT_S = 10.0
TOKEN = "bezant_abcdef012345_" + "s" * 43


class Echo(asyncio.Protocol):
    """Says who it thinks is there, and then what it hears."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        assert is_private(transport)
        transport.write(f"{name_of_peer(transport)}\n".encode())  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[attr-defined]


class Served:
    """Where an echo listens, and how."""

    def __init__(self, listener: TlsListener, port: int) -> None:
        self.listener = listener
        self.port = port

    async def talk(self, context: ssl.SSLContext | None, host: str = "127.0.0.1") -> str:
        """Who the other side says that we are, once it has echoed. Raises what kept us from it."""
        arguments = {} if context is None else {"ssl": context, "server_hostname": host}
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port, **arguments)  # type: ignore[arg-type]
            try:
                told = (await reader.readline()).decode().strip()
                if not told:
                    raise ConnectionResetError("the other side has closed the connection")
                writer.write(b"hello\n")
                assert await reader.readline() == b"hello\n"
            finally:
                writer.transport.abort()
        return told


@asynccontextmanager
async def serving(context: ssl.SSLContext) -> AsyncIterator[Served]:
    bound = socket.create_server(("127.0.0.1", 0))
    served = Served(TlsListener(Echo, bound, context), bound.getsockname()[1])
    try:
        yield served
    finally:
        served.listener.close()
        await served.listener.wait_closed()


def listening(authority: Authority, shown: Signed, verify: ssl.VerifyMode) -> ssl.SSLContext:
    return listening_context(shown.certificate, shown.key, authority.file, verify)


def dialling(authority: Authority, shown: Signed | None = None) -> ssl.SSLContext:
    return dialling_context(authority.file) if shown is None else dialling_context(authority.file, *shown)


async def test_who_trusts_the_authority_gets_through(authority: Authority) -> None:
    async with serving(listening(authority, authority.sign("n1"), ssl.CERT_OPTIONAL)) as served:
        assert await served.talk(dialling(authority)) == "None"
        assert await served.talk(dialling(authority, authority.sign("n2"))) == "n2"


async def test_who_must_show_a_certificate_of_the_authority_does(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "other")
    async with serving(listening(authority, authority.sign("n1"), ssl.CERT_REQUIRED)) as served:
        assert await served.talk(dialling(authority, authority.sign("n2"))) == "n2"
        for shown in (None, other.sign("n3"), authority.sign("n4", expired=True)):
            with pytest.raises((OSError, ssl.SSLError)):
                await served.talk(dialling(authority, shown))


async def test_a_certificate_that_is_wrong_is_refused_even_where_none_is_needed(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "other")
    async with serving(listening(authority, authority.sign("n1"), ssl.CERT_OPTIONAL)) as served:
        with pytest.raises((OSError, ssl.SSLError)):
            await served.talk(dialling(authority, other.sign("n3")))


async def test_a_node_that_is_not_who_it_should_be_is_not_talked_to(authority: Authority, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", "other")
    shown = {
        "of another authority": other.sign("n1"),
        "expired": authority.sign("n2", expired=True),
        "for another host": authority.sign("n3", host="10.9.8.7"),
    }
    for reason, certificate in shown.items():
        async with serving(listening(authority, certificate, ssl.CERT_OPTIONAL)) as served:
            with pytest.raises(ssl.SSLCertVerificationError):
                await served.talk(dialling(authority))
            assert reason


async def test_nothing_older_than_tls_1_3_is_spoken(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_S_MAX", 0.5)
    old = dialling(authority)
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2
    async with serving(listening(authority, authority.sign("n1"), ssl.CERT_NONE)) as served:
        with pytest.raises((OSError, ssl.SSLError)):
            await served.talk(old)
        with pytest.raises((OSError, ssl.SSLError)):
            await served.talk(None)  # what is not private at all
        assert await served.talk(dialling(authority)) == "None"


async def test_who_does_not_get_on_with_the_handshake_is_left(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "HANDSHAKE_S_MAX", 0.2)
    async with serving(listening(authority, authority.sign("n1"), ssl.CERT_NONE)) as served:
        slow_reader, slow_writer = await asyncio.open_connection("127.0.0.1", served.port)
        slow_writer.write(b"\x16\x03\x01")
        assert await served.talk(dialling(authority)) == "None"  # nobody waits for it
        async with asyncio.timeout(WAIT_S):
            assert await slow_reader.read() == b""
        slow_writer.close()
        assert served.listener.failed_count == 1


async def test_handshakes_under_way_are_bounded(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, and those of one address to a part, so that others get in."""
    monkeypatch.setattr(tls, "HANDSHAKES_MAX", 4)

    async def come(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", served.port, local_addr=(address, 0))

    async with serving(listening(authority, authority.sign("n1"), ssl.CERT_NONE)) as served:
        waiting = [await come("127.0.0.1") for _ in range(2)]
        turned_away = [await come("127.0.0.1")]
        async with asyncio.timeout(WAIT_S):
            assert await turned_away[0][0].read() == b""
        waiting += [await come("127.0.0.2"), await come("127.0.0.3")]
        turned_away.append(await come("127.0.0.4"))
        async with asyncio.timeout(WAIT_S):
            assert await turned_away[1][0].read() == b""
        for _, other in [*waiting, *turned_away]:
            other.transport.abort()
        async with asyncio.timeout(WAIT_S):
            while served.listener.failed_count < 6:
                await asyncio.sleep(0.01)
        assert await served.talk(dialling(authority)) == "None"
        assert not served.listener._handshakes_of


async def test_who_listens_no_more_lets_go_of_the_address(authority: Authority) -> None:
    async with serving(listening(authority, authority.sign("n1"), ssl.CERT_NONE)) as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        served.listener.close()
        await served.listener.wait_closed()
        async with asyncio.timeout(WAIT_S):
            assert await reader.read() == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", served.port)


# ---- what an operator or a program says ----


def test_files_that_are_none_are_refused_in_words(authority: Authority, tmp_path: Path) -> None:
    shown, other = authority.sign("n1"), authority.sign("n2")
    nothing = tmp_path / "nothing"
    for attempt in (
        lambda: dialling_context(nothing),
        lambda: dialling_context(shown.key),
        lambda: dialling_context(authority.file, shown.certificate),
        lambda: dialling_context(authority.file, shown.certificate, other.key),
        lambda: listening_context(nothing, shown.key, None, ssl.CERT_NONE),
        lambda: listening_context(*shown, None, ssl.CERT_REQUIRED),
        lambda: make_credentials(certificate=shown.certificate, key=shown.key),
        lambda: make_credentials(token="nonsense"),
        lambda: NodeSecurity(tls_certificate=str(shown.certificate)).check(in_group=False),
        lambda: NodeSecurity(tls_ca=str(authority.file)).check(in_group=False),
        lambda: NodeSecurity(str(shown.certificate), str(shown.key)).check(in_group=True),
        lambda: NodeSecurity(cluster_token_file=str(nothing)).check(in_group=False),
    ):
        with pytest.raises(UsageError):
            attempt()
    NodeSecurity(str(shown.certificate), str(shown.key), str(authority.file)).check(in_group=True)


def test_a_key_that_is_locked_asks_nobody(authority: Authority, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    shown = authority.sign("n1")
    key = serialization.load_pem_private_key(shown.key.read_bytes(), None)
    locked = tmp_path / "locked"
    lock = serialization.BestAvailableEncryption(b"secret")
    locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))
    with pytest.raises(UsageError, match="password"):
        dialling_context(authority.file, shown.certificate, locked)


def test_a_token_in_a_file_is_that_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f" {TOKEN}\n")
    assert read_token_file(file) == TOKEN
    for content in (TOKEN[:-1], f"{TOKEN} {TOKEN}", "", "\xff"):
        file.write_text(content)
        with pytest.raises(UsageError) as told:
            read_token_file(file)
        assert "sss" not in str(told.value)
    with pytest.raises(UsageError):
        read_token_file(tmp_path / "nothing")


def test_addresses_say_whether_they_are_private() -> None:
    assert split_scheme("bezant+tls://a:1,b:2") == ("a:1,b:2", True)
    assert split_scheme("bezant://a:1") == ("a:1", False)
    assert split_scheme("a:1") == ("a:1", False)
    assert NO_CREDENTIALS.dial_arguments("a", 1.0) == {}
    assert TOKEN not in repr(Credentials(TOKEN))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "127.9.8.7:0", "[::1]:0", "localhost:0"])
def test_addresses_of_this_machine_need_nothing(address: str) -> None:
    sockets = bind_address(address)
    check_listening(sockets, NodeSecurity(), has_tokens=False)
    for bound in sockets:
        bound.close()


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_other_addresses_need_both_or_an_operator_who_insists(address: str, authority: Authority) -> None:
    shown = authority.sign("n1")
    private = NodeSecurity(str(shown.certificate), str(shown.key))
    sockets = bind_address(address)
    for security, has_tokens, why in ((NodeSecurity(), True, "not private"), (private, False, "no token")):
        with pytest.raises(UsageError, match=f"{why}.*--insecure-listen"):
            check_listening(sockets, security, has_tokens=has_tokens)
    check_listening(sockets, private, has_tokens=True)
    check_listening(sockets, NodeSecurity(insecure_listen=True), has_tokens=False)
    for bound in sockets:
        bound.close()
