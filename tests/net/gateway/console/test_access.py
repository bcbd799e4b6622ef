"""Claim: every page can be read and used by those who do not see it, or not well, in either scheme and any width."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from ..conftest import WORLD, Bank, GatewayProcess

CONTRAST_MIN = 4.5
"""WCAG 2.2, 1.4.3, of text that is not large."""
WIDTHS = {"wide": 1600, "narrow": 360}

CHECKS = Path(__file__).with_name("checks.js").read_text().strip()


def visit(page: Page, gateway: GatewayProcess, account: str, transaction: str) -> list[str]:
    """Go to one page after the other; names of those that were seen."""
    checks = {
        "overview": "#shards .badge",
        f"account/{account}/EUR": "#statement tr",
        f"transaction/{transaction}": "#steps tr",
        "transfer": "#transfer-form",
    }
    page.goto(f"{gateway.url}/console")
    for path, shown in checks.items():
        page.evaluate("path => { location.hash = `#/${path}`; }", path)
        expect(page.locator(shown).first).to_be_visible()
        if path == "overview":
            expect(page.locator("#freshness")).to_contain_text("live")
        elif path.startswith("account"):
            expect(page.locator("#live")).to_have_text("live")
        checked, pale = page.evaluate(f"{CHECKS}.contrasts({CONTRAST_MIN})")
        assert checked > 10
        assert pale == [], path
        assert page.evaluate(f"{CHECKS}.nameless()") == [], path
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{path} is wider than the window"
        assert page.get_by_role("heading", level=1).count() == 1
        for landmark in ("banner", "navigation", "main"):
            assert page.get_by_role(landmark).count() == 1  # type: ignore[arg-type]
        assert page.locator(".bar nav [aria-current=page]").count() == 1
    return list(checks)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_are_named_and_can_be_read(
    gateway: GatewayProcess, browser: Browser, bank: Bank, scheme: str, width: str
) -> None:
    ann = bank.account("ann")
    text = bank.text()
    assert bank.transfer(WORLD, ann, "1.00", transaction_id=text).status_code == 200
    page = browser.new_page(
        color_scheme=scheme,  # type: ignore[arg-type]
        viewport={"width": WIDTHS[width], "height": 800},
        reduced_motion="reduce",
    )
    try:
        assert len(visit(page, gateway, ann, text)) == 4
        is_dark = page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches")
        assert is_dark == (scheme == "dark")
        before = page.evaluate("getComputedStyle(document.body).backgroundColor")
        other = "light" if is_dark else "dark"
        while other not in page.locator("#theme-button").inner_text():
            page.locator("#theme-button").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    finally:
        page.close()


def test_the_description_of_the_api_can_be_read(gateway: GatewayProcess, page: Page) -> None:
    page.goto(f"{gateway.url}/docs#balance_transfer")
    expect(page.locator("#balance_transfer")).to_have_attribute("open", "")
    expect(page.locator("#balance_transfer pre").first).to_contain_text("from_account")
    assert "`" not in page.locator("body").inner_text()
