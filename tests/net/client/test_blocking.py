"""Claim: the blocking wallet is the wallet without await, for any number of threads, and leaves nothing behind."""

import asyncio
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import bezant
from bezant.net.client.blocking import BlockingWallet
from bezant.net.client.wallet import Wallet
from bezant.protocol.errors import ConnectionFailed, InvalidAmountOrName, UsageError
from bezant.protocol.frames import Operation
from bezant.protocol.records import COMMAND

from .scripted import WELCOME, ScriptedServer, say_nothing

THREADS = 32


class ServerThread:
    """A scripted server on an event loop in a thread, since the tests here block their own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, name="scripted-server")
        self.thread.start()
        self.server = asyncio.run_coroutine_threadsafe(self._start(), self.loop).result()

    async def _start(self) -> ScriptedServer:
        server = ScriptedServer()
        await server.start()
        return server

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.server.stop(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


@pytest.fixture
def blocking_server() -> Iterator[ScriptedServer]:
    thread = ServerThread()
    yield thread.server
    thread.stop()


@pytest.fixture
def wallet(blocking_server: ScriptedServer) -> Iterator[BlockingWallet]:
    with bezant.connect_blocking(blocking_server.address) as opened:
        yield opened


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bezant-wallet"]


def public_methods(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(member)
        for name, member in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(member)
    }


def test_it_has_the_methods_of_the_wallet_with_the_same_arguments() -> None:
    ours, theirs = public_methods(BlockingWallet), public_methods(Wallet)
    assert set(ours) == set(theirs)
    assert {name: str(signature.parameters) for name, signature in ours.items()} == {
        name: str(signature.parameters) for name, signature in theirs.items()
    }


def test_every_method_works(wallet: BlockingWallet, blocking_server: ScriptedServer) -> None:
    assert (wallet.welcome, wallet.timeout_s) == (WELCOME, 5.0)
    assert wallet.open_account("ann", "EUR", limit=bezant.UNLIMITED).committed
    assert wallet.set_limit("ann", "EUR", "5").committed
    assert wallet.transfer("ann", "bob", "12.50", "EUR").amount_text == "12.50"
    assert wallet.submit(np.zeros(3, COMMAND))["position"].tolist() == [4, 5, 6]
    assert wallet.transfer_available("ann", "bob", "2.00", "EUR").committed
    hold = wallet.hold("ann", "bob", "2.00", "EUR", hold_timeout_ms=60_000)
    assert wallet.capture(hold.id, "ann", "bob", "EUR", amount="1.00", keep_open=True).amount_text == "1.00"
    assert wallet.release(hold.id, "ann", "EUR").committed
    assert wallet.freeze("ann", "EUR").committed
    assert wallet.unfreeze("ann", "EUR").committed
    assert wallet.close_account("ann", "EUR").committed
    assert wallet.resolve(hold.id, "ann", "EUR").committed
    commands = [wallet.command.transfer("ann", "bob", amount, "EUR") for amount in ("1.00", "2.00")]
    assert [result.id for result in wallet.linked(commands)] == [command.id for command in commands]
    assert wallet.account("ann", "EUR") is None
    assert wallet.accounts_by_id([bytes(16)]) == [None]
    assert list(wallet.accounts()) == []
    assert wallet.event(bytes(range(16)), "ann", "EUR") is None
    wallet.register_currency("POINTS", 0)
    assert wallet.currencies()["POINTS"] == 0
    assert wallet.statistics().uptime_s == 1.5
    assert wallet.ping() > 0
    assert len(blocking_server.peers) == 1


def test_exceptions_and_unknown_outcomes_come_through(wallet: BlockingWallet, blocking_server: ScriptedServer) -> None:
    with pytest.raises(InvalidAmountOrName):
        wallet.transfer("ann", "bob", "1.234", "EUR")
    blocking_server.handlers[Operation.COMMANDS] = say_nothing
    assert wallet.transfer("ann", "bob", "1", "EUR", timeout_s=0.02).outcome is bezant.Outcome.UNKNOWN


def test_threads_share_a_connection(wallet: BlockingWallet, blocking_server: ScriptedServer) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        results = list(pool.map(lambda number: wallet.transfer("ann", "bob", str(number + 1), "JPY"), range(200)))
    assert [result.amount for result in results] == list(range(1, 201))
    assert len(blocking_server.peers) == 1


def test_threads_that_make_commands_make_no_id_twice(wallet: BlockingWallet) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
        ids = list(pool.map(lambda _: wallet.command.freeze("ann", "EUR").id, range(5000)))
    assert len(set(ids)) == len(ids)


def test_closing_lets_go_of_the_thread_and_may_be_repeated(blocking_server: ScriptedServer) -> None:
    wallet = bezant.connect_blocking(blocking_server.address)
    assert len(own_threads()) == 1
    wallet.close()
    wallet.close()
    assert own_threads() == []
    with pytest.raises(UsageError, match="closed"):
        wallet.transfer("ann", "bob", "1", "EUR")
    with pytest.raises(UsageError, match="closed"):
        next(wallet.accounts())


def test_closing_while_others_wait_tells_them(blocking_server: ScriptedServer) -> None:
    blocking_server.handlers[Operation.COMMANDS] = say_nothing
    wallet = bezant.connect_blocking(blocking_server.address)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(wallet.transfer, "ann", "bob", "1", "EUR")
        while not blocking_server.frames(Operation.COMMANDS):
            wallet.ping()
        wallet.close()
        assert pending.result().outcome is bezant.Outcome.UNKNOWN


def test_threads_that_call_while_it_closes_are_all_told(blocking_server: ScriptedServer) -> None:
    wallet = bezant.connect_blocking(blocking_server.address)
    started = threading.Barrier(THREADS + 1)

    def call_until_closed(number: int) -> bool:
        started.wait()
        while True:
            try:
                wallet.transfer("ann", "bob", "1", "EUR")
            except UsageError:
                return True

    with ThreadPoolExecutor(THREADS) as pool:
        callers = [pool.submit(call_until_closed, number) for number in range(THREADS)]
        started.wait()
        wallet.close()
        assert all(caller.result() for caller in callers)
    assert own_threads() == []


def test_a_connection_that_fails_leaves_no_thread() -> None:
    with pytest.raises(UsageError):
        bezant.connect_blocking("nowhere")
    with pytest.raises(ConnectionFailed):
        bezant.connect_blocking("127.0.0.1:1")
    assert own_threads() == []
