"""What is written by users or lies in the data stays text, and the policy is never breached."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

import sdk

ATTACK = "<img src=x onerror=\"window.hacked='yes'\"><script>window.hacked='yes'</script>"


@pytest.mark.browser
def test_injections_are_inert(visit: Any, shop: Any) -> None:
    """Through sentence, rule, audience name, catalogue text, user id and report."""
    with sdk.Client(visit.address, api_key="the-key") as client:
        client.save(f"{ATTACK} one", "will buy cat food", size=50)
    page = visit.open()
    visit.ask(f"will buy tea {ATTACK}")
    page.fill("#soft", f"tea {ATTACK}")
    page.get_by_role("button", name="Apply").click()
    page.get_by_role("button", name="Add a rule").click()
    page.fill("#rule-subject", f"TEA {ATTACK}")
    page.click("#rule-done")
    page.wait_for_selector("#rules .chip:has-text('<img src=x')")
    page.locator("#common-card").scroll_into_view_if_needed()
    page.wait_for_selector("#common:has-text('<img src=x')")
    page.fill("#size-number", "200")
    page.locator("#size-number").press("Enter")
    page.wait_for_selector("#status:has-text('200 users of')")
    page.click("#reveal")
    page.wait_for_selector(".member .id:has-text('<img src=x')")
    page.get_by_role("button", name="Why number 1?").click()
    page.wait_for_selector(".reasons li:has-text('<img src=x')")
    page.fill("#name", ATTACK)
    page.get_by_role("button", name="Save").click()
    page.wait_for_selector("#saved h3:has-text('<img src=x')")
    page.wait_for_selector("#saved table:has-text('<img src=x')")
    page.goto(f"{visit.address}/audiences")
    for box in page.locator("input[name=audience]").all():
        box.check()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector("#overlap table:has-text('<img src=x')")
    page.get_by_role("button", name="Delete").first.click()
    page.wait_for_selector("#sure .name:has-text('<img src=x')")
    page.keyboard.press("Escape")
    page.goto(f"{visit.address}/snapshots")
    page.get_by_role("link", name="report.md").click()
    page.wait_for_selector("pre:has-text('<img src=x')")
    visit.check()


PAGES = ("/", "/audiences", "/snapshots", "/sign-in")


def test_every_answer_carries_the_policy(address: str) -> None:
    with httpx.Client(base_url=address, trust_env=False) as client:
        files = ("/console/static/console.css", "/console/d3/d3.v5.min.js")
        for path in (*PAGES, *files, "/console/map"):
            policy = client.get(path).headers["content-security-policy"]
            assert policy.startswith("default-src 'none'"), path
            assert "unsafe" not in policy and "*" not in policy and "http" not in policy


def test_data_on_a_page_is_json_not_markup(address: str) -> None:
    with httpx.Client(base_url=address, trust_env=False) as client:
        answer = client.post("/console/preview", content=json.dumps({"target": ATTACK}))
        assert answer.status_code == 401
        assert answer.headers["content-type"] == "application/problem+json"
