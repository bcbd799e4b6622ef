"""Fixtures of the console's tests: a real Chromium, and pages of it that nothing was wrong with.

Chromium is that of Debian's packages, fetched once into the cache folder; where it cannot be had the tests are skipped,
unless BEZANT_BROWSER=required says that this is a failure. Playwright brings no browser of its own.
"""

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from bezant.cli.local_shards import LocalShards, Plan, init_shards
from bezant.perf.peers.programs import CHROMIUM, PeerUnavailable, Programs, have_programs

from ..conftest import START_S, WARM_S, WORLD, Bank, GatewayProcess

WAIT_MS = 20_000
REQUIRED = "required"
LOAD_FAILED = "Failed to load resource"
"""What a browser says of every answer that is a problem; nothing is wrong with the page."""


@pytest.fixture(scope="session")
def chromium() -> Programs:
    """The browser's programs."""
    try:
        return have_programs(CHROMIUM, print)
    except PeerUnavailable as error:
        if os.environ.get("BEZANT_BROWSER") == REQUIRED:
            raise
        pytest.skip(f"there is no Chromium: {error}")


@pytest.fixture(scope="module")
def browser(chromium: Programs) -> Iterator[Browser]:
    """A browser for the tests of one file: while it runs, no other test of this process may run an event loop."""
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        executable = chromium.folder / CHROMIUM.programs[0]
        # Its sandbox wants rights that tests do not have everywhere; it sees our own page alone.
        opened = playwright.chromium.launch(
            executable_path=str(executable), args=["--no-sandbox"], env=dict(chromium.environment())
        )
        yield opened
        opened.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """What a person has who begins anew; pages in it keep to their policy and log no errors."""
    opened = browser.new_context(viewport={"width": 1280, "height": 800})
    opened.set_default_timeout(WAIT_MS)
    wrong: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and not message.text.startswith(LOAD_FAILED):
            wrong.append(message.text)

    opened.on("console", on_console)
    opened.on("weberror", lambda error: wrong.append(str(error.error)))
    opened.on("dialog", lambda dialog: wrong.append(f"a dialog: {dialog.message}"))
    yield opened
    opened.close()
    assert wrong == []


@pytest.fixture
def page(context: BrowserContext) -> Page:
    return context.new_page()


class _Shards(threading.Thread):
    """Two shards of one node each, with readers, until they are told to stop."""

    def __init__(self, folder: Path) -> None:
        super().__init__(daemon=True)
        self.addresses = ""
        self.failure: BaseException | None = None
        self.ready = threading.Event()
        self._folder = folder
        self._loop = asyncio.new_event_loop()
        self._end = asyncio.Event()

    def run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        except BaseException as error:
            self.failure = error
        finally:
            self.ready.set()
            self._loop.close()

    async def _serve(self) -> None:
        init_shards(self._folder, Plan(2, 1, 0))
        async with LocalShards(self._folder, lambda _words, _fields: None, arguments=("--segment-size-mib", "8")) as up:
            self.addresses = ",".join(up.addresses)
            self.ready.set()
            await self._end.wait()
            await up.stop()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self.join(START_S)
        assert not self.is_alive()
        assert self.failure is None


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, Bank]]:
    """A gateway before two shards, and a bank there."""
    folder = tmp_path_factory.mktemp("shards")
    up = _Shards(folder / "data")
    (folder / "data").mkdir()
    up.start()
    assert up.ready.wait(WARM_S)
    assert up.addresses, up.failure
    try:
        with (
            GatewayProcess(up.addresses, folder / "log") as process,
            httpx.Client(base_url=process.url, timeout=30) as client,
        ):
            bank = Bank(client, "over shards")
            opened = bank.post("/v1/accounts", name=WORLD, currency="EUR", limit="unlimited")
            assert opened.status_code == 200, opened.text
            yield process, bank
    finally:
        up.stop()
