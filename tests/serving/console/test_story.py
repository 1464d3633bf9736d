"""The whole story in a browser, by mouse and by keyboard alone."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest

import sdk

pytestmark = pytest.mark.browser
DEMAND = "will buy cat food, not bought in the last 10 days"
RULE = {
    "type": "not",
    "rule": {"type": "behaviour", "verb": "bought", "subject": "CAT FOOD", "days": 20},
}


def downloaded(page: Any, name: str, to: Path) -> list[dict[str, str]]:
    with page.expect_download() as waiting:
        page.get_by_role("link", name=name).press("Enter")
    waiting.value.save_as(to)
    with to.open(newline="") as file:
        return list(csv.DictReader(file))


def check_download(rows: list[dict[str, str]], address: str, size: int) -> None:
    """The file holds the audience that the SDK gets for the same plan."""
    with sdk.Client(address, api_key="the-key") as client:
        same = client.target("will buy cat food", rules=RULE, size=size)
    assert [row["user_id"] for row in rows] == same.ids and len(rows) == size
    assert [float(row["score"]) for row in rows] == pytest.approx(same.scores, rel=1e-6)


def test_the_story(visit: Any, tmp_path: Path) -> None:
    with sdk.Client(visit.address, api_key="the-key") as client:
        client.save("Diaper people", "will buy diapers", size=200)
    page = visit.open()
    visit.ask(DEMAND)
    chip = page.locator("#rules .chip")
    assert chip.count() == 1 and "in the last 10 days" in chip.inner_text()
    chip.locator(".edit").click()
    page.fill("#rule-days", "20")
    page.click("#rule-done")
    page.wait_for_selector("#rules .chip:has-text('20 days')")

    page.wait_for_selector("body:not(.busy)")
    before = page.inner_text("#buyers")
    page.locator("#size").press("ArrowRight")
    page.locator("#size").press("PageUp")
    follows = "before => document.querySelector('#buyers').innerText !== before"
    page.wait_for_function(follows, arg=before)
    page.fill("#size-number", "60")
    page.locator("#size-number").press("Enter")
    page.wait_for_selector("#status:has-text('60 users of')")
    assert page.locator("#curve .marker").count() == 1
    assert page.locator("#histogram .bar.lit").count() > 0
    assert "u" not in page.locator(".member .id").first.inner_text(), "ids are masked"

    page.get_by_role("button", name="Why number 1?").click()
    reason = ".reasons li:has-text('bought CAT FOOD')"
    page.wait_for_selector(reason)
    with page.expect_response("**/console/preview"):  # the same people in front of more
        page.locator("#size").press("PageUp")
    page.wait_for_selector("body:not(.busy)")
    page.wait_for_function("() => !document.querySelector('#status').innerText.startsWith('60 ')")
    assert page.locator(reason).count() == 1, "an explanation goes when the size changes"
    page.fill("#size-number", "60")
    page.locator("#size-number").press("Enter")
    page.wait_for_selector("#status:has-text('60 users of')")

    page.fill("#name", "Cat people")
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("#saved h3:has-text('Cat people')")
    assert "Diaper people" in page.inner_text("#saved table")
    rows = downloaded(page, "Download CSV", tmp_path / "a.csv")
    check_download(rows, visit.address, 60)


def test_the_story_by_keyboard_alone(visit: Any, tmp_path: Path) -> None:
    with sdk.Client(visit.address, api_key="the-key") as client:
        client.save("Diaper people", "will buy diapers", size=200)
    page, keys = visit.page, visit.page.keyboard
    page.goto(visit.address)

    def tab_to(selector: str) -> None:
        for _ in range(60):
            if page.evaluate("s => document.activeElement.matches(s)", selector):
                return
            keys.press("Tab")
        raise AssertionError(f"no way to {selector} by Tab")

    tab_to("#key")
    keys.type("the-key")
    keys.press("Enter")
    page.wait_for_selector("#find:enabled")
    tab_to("#sentence")
    keys.type(DEMAND)
    keys.press("Enter")
    page.wait_for_selector("#members .member")
    tab_to("#rules .edit")
    keys.press("Enter")
    page.wait_for_selector("#rule[open]")
    tab_to("#rule-days")
    keys.press("Control+A")
    keys.type("20")
    keys.press("Enter")
    page.wait_for_selector("#rules .chip:has-text('20 days')")
    page.wait_for_selector("body:not(.busy)")
    tab_to("#size-number")
    keys.press("Control+A")
    keys.type("40")
    keys.press("Enter")
    page.wait_for_selector("#status:has-text('40 users of')")
    tab_to("#size")
    for key in ("ArrowLeft", "ArrowRight"):
        keys.press(key)
    tab_to("#reveal")
    keys.press("Enter")
    page.wait_for_selector(".member .id:has-text('u')")
    tab_to("[aria-label='Why number 1?']")
    keys.press("Enter")
    page.wait_for_selector(".reasons li:has-text('bought CAT FOOD')")
    tab_to("#name")
    keys.type("By keyboard")
    keys.press("Enter")
    page.wait_for_selector("#saved h3:focus")
    assert "Diaper people" in page.inner_text("#saved table")
    size = int(page.inner_text("#saved p").split()[0])
    tab_to("#saved a")
    with page.expect_download() as waiting:
        keys.press("Enter")
    waiting.value.save_as(tmp_path / "b.csv")
    with (tmp_path / "b.csv").open(newline="") as file:
        check_download(list(csv.DictReader(file)), visit.address, size)
