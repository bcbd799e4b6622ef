"""Fixtures of the console's tests: a real Chromium, and pages of it that nothing was wrong with.

Chromium is that of Debian's packages, fetched once into the cache folder, without being root; where it cannot be had
the tests are skipped, and the last lines of the output say so, unless BEZANT_BROWSER=required says that this
is a failure. Playwright brings no browser of its own.
"""

import os
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from bezant.perf.peers.programs import CHROMIUM, PeerUnavailable, Programs, have_programs

from ..conftest import Bank, GatewayProcess
from ..sharded import Sharded, open_world

WAIT_MS = 20_000
REQUIRED = "required"
LOAD_FAILED = "Failed to load resource"
"""What a browser says of every answer that is a problem; nothing is wrong with the page."""


_missing: list[str] = []
"""Why there was no browser."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say at the end, whatever else is quiet, that the console was not tested."""
    for reason in _missing:
        terminalreporter.section("THE CONSOLE WAS NOT TESTED", sep="!", red=True, bold=True)
        terminalreporter.line(f"There is no Chromium: {reason}. BEZANT_BROWSER=required makes this a failure.")


@pytest.fixture(scope="session")
def chromium() -> Programs:
    """The browser's programs."""
    try:
        return have_programs(CHROMIUM, print)
    except PeerUnavailable as error:
        if os.environ.get("BEZANT_BROWSER") == REQUIRED:
            raise
        _missing.append(str(error))
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


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayProcess, Bank]]:
    """A gateway before two shards, and a bank there."""
    folder = tmp_path_factory.mktemp("shards")
    with (
        Sharded(folder) as up,
        GatewayProcess(up.addresses, folder / "log") as process,
        httpx.Client(base_url=process.url, timeout=30) as client,
    ):
        bank = Bank(client, "over shards")
        open_world(bank)
        yield process, bank
