"""Claim: pictures of the console can be made of a ledger at work, small enough for a page that shows them.

Where BEZANT_PICTURES names a folder they are kept there, after BEZANT_PICTURES_S seconds of work for the chart to show.
"""

import asyncio
import itertools
import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, expect

import bezant

from ..conftest import WORLD, Bank, GatewayProcess

SIZE_MAX = 150_000
PNG = b"\x89PNG\r\n\x1a\n"
WORK_S = 3.0
LATE_S = 60
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
CUSTOMERS = 12
TRANSFERS = 300


async def pay(addresses: str, in_shards: list[list[str]], end: threading.Event) -> None:
    """Transfers within each shard, as many at a time as a tide has it, and some between them."""
    async with bezant.connect(addresses, timeout_s=30.0) as wallet:
        for turn in itertools.count():
            tide = TRANSFERS + int(TRANSFERS / 2 * (math.sin(turn / 9) + math.sin(turn / 23)))
            pairs = [
                (names[(number + turn) % len(names)], names[(number + 1) % len(names)])
                for names in in_shards
                for number in range(tide // 2)
            ]
            pairs += [(names[turn % len(names)], in_shards[0][turn % len(in_shards[0])]) for names in in_shards[1:]]
            paid = [wallet.transfer(*pair, "1.50", "EUR") for pair in pairs if pair[0] != pair[1]]
            await asyncio.gather(*paid)
            if end.is_set():
                return
            await asyncio.sleep(0.05)


@contextmanager
def at_work(addresses: str, in_shards: list[list[str]]) -> Iterator[None]:
    """Customers pay each other meanwhile, now more and now less."""
    end = threading.Event()
    working = threading.Thread(target=lambda: asyncio.run(pay(addresses, in_shards, end)), daemon=True)
    working.start()
    try:
        yield
    finally:
        end.set()
        working.join(LATE_S)
        assert not working.is_alive()


def test_pictures(shards: tuple[GatewayProcess, Bank], browser: Browser, tmp_path: Path) -> None:
    process, bank = shards
    in_shards: list[list[str]] = [[], []]
    for number in range(1001, 1001 + CUSTOMERS):
        opened = bank.post("/v1/accounts", name=f"wallet:{number}", currency="EUR").json()
        in_shards[int(opened["position"]) >> 52].append(f"wallet:{number}")
    names = in_shards[0] + in_shards[1]
    assert all(in_shards)
    for name in names:
        assert bank.transfer(WORLD, name, "500.00").status_code == 200
    ann, bob = in_shards[0][0], in_shards[1][0]
    text = "01920000-7000-7000-8000-000000000001"
    legs = [
        {"from_account": payer, "to_account": payee, "amount": amount, "currency": "EUR"}
        for payer, payee, amount in ((ann, bob, "40.00"), (ann, names[1], "12.50"), (names[-1], ann, "3.75"))
    ]
    done = bank.post("/v1/transactions", legs=legs, mode="tcc", answer_when="applied", transaction_id=text)
    assert done.status_code == 200, done.text
    folder = Path(os.environ.get("BEZANT_PICTURES") or tmp_path)
    seconds = float(os.environ.get("BEZANT_PICTURES_S") or WORK_S)
    shown = {
        "account": (f"#/account/{ann}/EUR", "#statement tr"),
        "transaction": (f"#/transaction/{text}", "#steps tr"),
        "transfer": ("#/transfer", "#transfer-form"),
    }
    pictures: dict[tuple[str, str, str], bytes] = {}
    pages: dict[tuple[str, str], Page] = {}
    arguments = [str(one) for one in process.process.args]
    with at_work(arguments[arguments.index("--connect") + 1], in_shards):
        for scheme, (width, (across, down)) in itertools.product(("light", "dark"), SIZES.items()):
            page = browser.new_page(color_scheme=scheme, viewport={"width": across, "height": down})  # type: ignore[arg-type]
            page.goto(f"{process.url}/console#/overview")
            expect(page.locator("#shards .badge").first).to_be_visible()
            pages[scheme, width] = page
        time.sleep(seconds)
        for (scheme, width), page in pages.items():
            pictures["overview", scheme, width] = page.screenshot(path=folder / f"overview-{scheme}-{width}.png")
    for what, (path, wanted) in shown.items():
        for (scheme, width), page in pages.items():
            page.evaluate("path => { location.hash = path; }", path)
            expect(page.locator(wanted).first).to_be_visible()
            page.wait_for_timeout(500)
            pictures[what, scheme, width] = page.screenshot(path=folder / f"{what}-{scheme}-{width}.png")
    for page in pages.values():
        page.close()
    for view, picture in pictures.items():
        assert picture.startswith(PNG)
        assert len(picture) < SIZE_MAX, (view, len(picture))
    assert len(set(pictures.values())) == len(pictures)
