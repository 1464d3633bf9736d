"""Everybody can use it: axe finds nothing serious on any page, in both colour schemes."""

from __future__ import annotations

from typing import Any

import pytest

import sdk

pytestmark = pytest.mark.browser
SERIOUS = ("serious", "critical")


def check_axe(page: Any) -> None:
    from axe_playwright_python.sync_playwright import Axe

    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        found = Axe().run(page).response["violations"]
        told = [
            f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes'][:3]]}"
            for one in found
            if one["impact"] in SERIOUS
        ]
        assert told == [], scheme


def test_axe_finds_nothing_serious(visit: Any) -> None:
    with sdk.Client(visit.address, api_key="the-key") as client:
        client.save("Some", "will buy diapers", size=200)
    page = visit.page
    page.goto(f"{visit.address}/sign-in")
    check_axe(page)
    visit.open()
    page.wait_for_selector(".example")
    check_axe(page)
    visit.ask("will buy cat food, not bought in the last 10 days")
    page.get_by_role("button", name="Why number 1?").click()
    page.wait_for_selector(".reasons li")
    page.locator("#common-card").scroll_into_view_if_needed()
    page.wait_for_selector("#common table")
    page.click("#exclusions summary")
    page.fill("#name", "Other")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("#saved table")
    check_axe(page)
    page.locator("#rules .edit").click()
    page.wait_for_selector("#rule[open]")
    check_axe(page)
    page.keyboard.press("Escape")
    page.goto(f"{visit.address}/audiences")
    for box in page.locator("input[name=audience]").all():
        box.check()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("#overlap table")
    check_axe(page)
    page.goto(f"{visit.address}/snapshots")
    check_axe(page)
    page.get_by_role("link", name="report.md").click()
    check_axe(page)


def test_axe_finds_nothing_serious_where_there_is_nothing_or_trouble(
    chromium: Any, shop: Any, serving: Any, visiting: Any
) -> None:
    with serving(shop.app()) as address, visiting(chromium, address) as visit:
        page = visit.page
        page.goto(f"{address}/sign-in")
        page.fill("#key", "no-such-key")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]")
        check_axe(page)
        page.fill("#key", "the-key")
        page.keyboard.press("Enter")
        page.wait_for_selector("pre:has-text('make demo')")
        for path in ("/", "/audiences", "/snapshots", "/snapshots/none/reports/0"):
            page.goto(address + path)
            check_axe(page)
        shop.publish()
        page.goto(address)
        page.fill("#sentence", "will buy cat food")
        page.context.set_offline(True)
        page.click("#find:enabled")
        page.wait_for_selector("#problem:has-text('does not answer')")
        check_axe(page)
        page.context.set_offline(False)
        expected = ("401", "404", "503", "ERR_INTERNET")  # which Chromium tells on its console
        visit.complaints = [
            one for one in visit.complaints if not any(each in one for each in expected)
        ]


def test_a_phone_never_scrolls_sideways(chromium: Any, address: str, visiting: Any) -> None:
    width = 320
    size = {"width": width, "height": 800}
    with visiting(chromium, address, viewport=size) as visit:
        with sdk.Client(address, api_key="the-key") as client:
            client.save("n" * 200, "will buy diapers", size=200)
        page = visit.open()
        visit.ask("will buy tea or cat food " + "w" * 120)
        for path in (None, "/audiences", "/snapshots", "/sign-in"):
            if path is not None:
                page.goto(address + path)
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, path
