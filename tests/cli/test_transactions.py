"""Claim: `bezant transactions` tells what is under way in the shards that answer, and which ones do not."""

import json

import pytest

from bezant.cli import transactions
from bezant.cli.main import main
from bezant.cli.shards import NoSlotMap
from bezant.engine.placement.maps import first_map
from bezant.net.client.connection import TcpChannel
from bezant.protocol.errors import ConnectionFailed
from bezant.protocol.frames import Operation
from bezant.protocol.messages import Currencies, Currency, encode_message
from bezant.protocol.placement import SlotMap
from bezant.protocol.transactions import TransactionsUnderWay, TransferUnderWay

PARKED = TransferUnderWay("01" * 16, "parked", 1, 1234, "EUR", 61_000)


class Channel:
    """To the leader of the one shard that answers."""

    async def request(self, operation: Operation, body: bytes) -> bytes:
        if operation is Operation.LIST_CURRENCIES:
            return encode_message(Currencies([Currency("EUR", 2)]))
        return encode_message(TransactionsUnderWay([PARKED], 1))

    async def close(self) -> None:
        pass


@pytest.fixture
def _shard_1_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask_map(nodes: list[str], timeout_s: float) -> SlotMap:
        return first_map({0: ["a:1"], 1: ["b:1"]})

    async def connect(addresses: str, timeout_s: float) -> Channel:
        if addresses == "b:1":
            raise ConnectionFailed("nobody is there")
        return Channel()

    monkeypatch.setattr(transactions, "ask_map", ask_map)
    monkeypatch.setattr(TcpChannel, "open", connect)


@pytest.mark.usefixtures("_shard_1_is_away")
def test_a_shard_that_is_away_hides_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["transactions", "--connect", "a:1"]) == 1
    told = capsys.readouterr()
    assert "what shard 1 has under way is missing here: nobody is there" in told.err
    assert "parked" in told.out
    assert told.out.splitlines()[-1] == "1 under way; in flight: 12.34 EUR"
    assert main(["transactions", "--connect", "a:1", "--json"]) == 1
    told_as_json = json.loads(capsys.readouterr().out)
    assert (told_as_json["unanswered"], told_as_json["in_flight"]) == ([1], {"EUR": "12.34"})


def test_of_a_group_that_has_every_slot_there_are_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def ask_map(nodes: list[str], timeout_s: float) -> SlotMap:
        raise NoSlotMap("this group has every slot: there is no slot map")

    monkeypatch.setattr(transactions, "ask_map", ask_map)
    assert main(["transactions", "--connect", "a:1"]) == 0
    told = capsys.readouterr()
    assert "this group has every slot" in told.err
    assert told.out.splitlines()[-1] == "0 under way; in flight: nothing"
    assert main(["transactions", "--connect", "a:1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["count"] == 0
