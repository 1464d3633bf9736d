"""What a page shows when there is nothing, too much, trouble, or made-up data."""

from __future__ import annotations

from typing import Any

import pytest

from feature_repo.embedding_map import draw_map

pytestmark = pytest.mark.browser


def test_an_empty_installation_says_what_to_run(
    chromium: Any, shop: Any, serving: Any, visiting: Any
) -> None:
    with serving(shop.app()) as address, visiting(chromium, address) as visit:
        page = visit.page
        page.goto(f"{address}/sign-in")
        page.fill("#key", "the-key")
        page.keyboard.press("Enter")
        page.wait_for_selector("pre:has-text('make demo')")
        assert "ray_jobs.pipeline" in page.inner_text("main")
        page.goto(f"{address}/audiences")
        assert "None yet" in page.inner_text("main")
        page.goto(f"{address}/snapshots")
        assert "make demo" in page.inner_text("main")
        # Chromium says on its console that a page came with 503, which is what should come.
        visit.complaints = [one for one in visit.complaints if "503" not in one]


def test_synthetic_data_is_labelled(chromium: Any, shop: Any, serving: Any, visiting: Any) -> None:
    shop.publish(synthetic=True)
    with serving(shop.app()) as address, visiting(chromium, address) as visit:
        page = visit.open()
        assert "Synthetic data" in page.inner_text(".banner")
        page.goto(f"{address}/snapshots")
        assert "Synthetic data" in page.inner_text(".badge.warn")


def test_nobody_fits(visit: Any) -> None:
    page = visit.open()
    visit.ask("will buy cat food")
    for days, verb in (("1", ""), ("1", "not")):
        page.get_by_role("button", name="Add a rule").click()
        page.select_option("#rule-not", verb)
        page.fill("#rule-days", days)
        page.click("#rule-done")
    page.wait_for_selector("#status:has-text('Nobody fits')")
    assert page.inner_text("#members") == "Nobody."
    page.locator("#rules .away").first.click()
    page.wait_for_selector("#members .member")


def test_rules_alone_choose(visit: Any) -> None:
    page = visit.open()
    visit.ask("will buy cat food, not bought in the last 10 days")
    page.fill("#soft", "")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_selector("#notes:has-text('No sentence was given')")
    assert page.locator(".charts").is_hidden()


def test_errors_are_told(visit: Any) -> None:
    page = visit.open()
    visit.ask("will buy cat food")
    page.get_by_role("button", name="Add a rule").click()
    page.fill("#rule-subject", "cat fod")
    page.click("#rule-done")
    page.wait_for_selector("#rule-problem:has-text('CAT FOOD')")
    page.click("#rule-cancel")
    page.context.set_offline(True)
    page.click("#find")
    page.wait_for_selector("#problem:has-text('does not answer')")
    page.context.set_offline(False)
    page.click("#find")
    page.wait_for_selector("#problem", state="hidden")
    visit.complaints = [
        one for one in visit.complaints if "422" not in one and "ERR_INTERNET" not in one
    ]


def test_suggestions_may_fail_and_the_rule_is_still_taken(visit: Any) -> None:
    page = visit.open()
    visit.ask("will buy cat food")
    page.route("**/console/subjects**", lambda route: route.abort())
    page.get_by_role("button", name="Add a rule").click()
    with page.expect_event("requestfailed", lambda request: "part=CAT" in request.url):
        page.fill("#rule-subject", "CAT FOOD")
    page.click("#rule-done")
    page.wait_for_selector("#rules .chip:has-text('CAT FOOD')")
    visit.complaints = [one for one in visit.complaints if "ERR_FAILED" not in one]


def test_a_dialog_without_its_vocabulary_says_so(visit: Any) -> None:
    page = visit.open()
    visit.ask("will buy cat food")
    page.route("**/console/vocabulary", lambda route: route.abort())
    page.get_by_role("button", name="Add a rule").click()
    page.wait_for_selector("#problem:has-text('does not answer')")
    visit.complaints = [one for one in visit.complaints if "ERR_FAILED" not in one]


def test_a_slow_answer_is_waited_for(visit: Any) -> None:
    page = visit.open()
    held: list[Any] = []
    page.route("**/console/api/reach", lambda route: held.append(route))
    page.fill("#sentence", "will buy cat food")
    page.click("#find:enabled")
    page.wait_for_selector("body.busy")
    page.wait_for_selector("#status:has-text('Still looking')")
    held[0].continue_()
    page.wait_for_selector("#members .member")
    page.wait_for_selector("body:not(.busy)")


def test_the_map_lights_the_audience(chromium: Any, shop: Any, serving: Any, visiting: Any) -> None:
    shop.users = shop.users[:150]
    draw_map(shop.workspace, shop.publish(), "fused")
    with serving(shop.app()) as address, visiting(chromium, address) as visit:
        page = visit.open()
        visit.ask("will buy cat food")
        page.fill("#size-number", "50")
        page.locator("#size-number").press("Enter")
        page.wait_for_selector("#status:has-text('50 users of')")
        page.wait_for_selector("#map circle.lit")
        assert page.locator("#map .dots circle").count() == 150
        assert page.locator("#map circle.lit").count() == 50
        assert "Cat food" in page.inner_text("#clusters tbody tr:first-child")


def test_a_map_that_cannot_be_drawn_says_so(
    chromium: Any, shop: Any, serving: Any, visiting: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr("serving.console.maps._run", fails)
    shop.publish()
    with serving(shop.app()) as address, visiting(chromium, address) as visit:
        visit.open()
        visit.ask("will buy cat food").wait_for_selector("#map:has-text('could not be drawn')")
