"""Two shards of one node each, with readers, in a thread of their own, for the tests of gateways before them."""

import asyncio
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from bezant.cli.local_shards import LocalShards, Plan, init_shards
from bezant.net.access.credentials import NO_CREDENTIALS, make_credentials, use_credentials
from bezant.protocol.access import token_text

from ..shards.processes import SMALL
from .conftest import START_S, WARM_S, WORLD, Bank

SHARDS = 2
TOKEN_MODE = 0o600


class Sharded:
    """See the module; as a context manager it is never left running. With `guarded` its nodes ask for tokens."""

    def __init__(self, folder: Path, *, guarded: bool = False) -> None:
        self.addresses = ""
        self.token = token_text("cccccccccccc", secrets.token_urlsafe(32)) if guarded else ""
        self.file = folder / "cluster"
        self.failure: BaseException | None = None
        self._data = folder / "data"
        self._data.mkdir()
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self.failure = error
        finally:
            self._ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        init_shards(self._data, Plan(SHARDS, 1, 0))
        arguments: Sequence[str] = SMALL
        if self.token:
            arguments = (*arguments, f"--cluster-token-file={self.file}")
        async with LocalShards(self._data, lambda _words, _fields: None, arguments=arguments) as up:
            self.addresses = ",".join(up.addresses)
            self._ready.set()
            await self._end.wait()
            await up.stop()

    def __enter__(self) -> Self:
        if self.token:
            self.file.write_text(self.token)
            self.file.chmod(TOKEN_MODE)
            use_credentials(make_credentials(token=self.token))
        self._thread.start()
        assert self._ready.wait(WARM_S)
        assert self.addresses, self.failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(START_S)
        use_credentials(NO_CREDENTIALS)
        assert not self._thread.is_alive()
        assert self.failure is None


def open_world(bank: Bank) -> None:
    """The account that money comes from, once there are readers in all shards."""
    opened = bank.post("/v1/accounts", name=WORLD, currency="EUR", limit="unlimited")
    assert opened.status_code == 200, opened.text
    end_s = time.monotonic() + WARM_S
    while bank.client.get("/v1/totals", headers={"Request-Timeout": "30"}).status_code != 200:
        assert time.monotonic() < end_s, "the readers have not compiled their kernels"
        time.sleep(0.1)


def names_in_shards(bank: Bank, suffix: str) -> tuple[str, ...]:
    """An open account in each shard, the first one's first; names end as given."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < SHARDS:
        number += 1
        name = bank.name(f"{number}:{suffix}").replace(" ", "-")
        opened = bank.post("/v1/accounts", name=name, currency="EUR")
        assert opened.status_code == 200, opened.text
        found.setdefault(int(opened.json()["position"]) >> 52, name)
    return tuple(found[shard] for shard in range(SHARDS))
