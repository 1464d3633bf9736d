"""Audiences by SDK and command line; the service is a fake that keeps what came."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from typer.testing import CliRunner

import sdk
from feature_repo import rules as server_rules
from sdk.cli import app
from sdk.rules import Rule

FOOD: dict[str, Any] = {
    "type": "not",
    "rule": {"type": "behaviour", "verb": "bought", "subject": "CAT FOOD", "days": 30},
}


@pytest.mark.parametrize(
    "rule",
    [
        FOOD,
        {"type": "all", "rules": [FOOD, {"type": "profile", "column": "age", "op": "known"}]},
        {
            "type": "any",
            "rules": [{"type": "users", "ids": ["1"]}, {"type": "audience", "id": "a"}],
        },
        {"type": "profile", "column": "age", "op": "between", "value": [18, 35.5]},
        {"type": "profile", "column": "plan", "op": "in", "value": ["free", "plus"]},
        {"type": "behaviour", "verb": "paid", "measure": "amount", "at_least": 20, "at_most": 30.5},
    ],
)
def test_the_wire_s_rules_are_the_engine_s(rule: dict[str, Any]) -> None:
    read = TypeAdapter(Rule).validate_python(rule).model_dump(exclude_none=True)
    assert server_rules.parse(read) == server_rules.parse(rule)
    assert set(server_rules.TYPES) == {
        branch["properties"]["type"]["const"]
        for branch in TypeAdapter(Rule).json_schema()["$defs"].values()
    }


@pytest.mark.parametrize(
    "rule",
    [
        {"type": "nothing"},
        {"type": "profile", "column": "age", "op": "like", "value": "%"},
        {"type": "profile", "column": "age", "op": "is", "value": True},
        {"type": "behaviour", "verb": "bought", "days": 0},
        {"type": "behaviour", "verb": "bought", "at_least": -1},
        {"type": "behaviour", "verb": "bought", "sql": "1=1"},
        {"type": "all", "rules": []},
    ],
)
def test_wrong_rules_never_leave(rule: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Rule).validate_python(rule)
    with sdk.Client("http://127.0.0.1:9") as client, pytest.raises(sdk.InvalidRequest):
        client.target("x", rules=rule)


def test_two_cuts_and_one_string_are_refused_before_sending() -> None:
    with sdk.Client("http://127.0.0.1:9") as client:
        with pytest.raises(sdk.InvalidRequest, match="exactly one way to choose"):
            client.target("x", size=3, share=0.1)
        with pytest.raises(sdk.UsageError, match="include: expected a list"):
            client.target("x", include="12")
        with pytest.raises(sdk.UsageError, match="audience: expected an id"):
            client.get_audience("../../etc")
        with pytest.raises(sdk.UsageError, match="part: expected all"):
            client.members("a1", "some")  # type: ignore[arg-type]


class Fake:
    """Answers each path with what was put there; keeps what came."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str, Any]] = []

    def __call__(self, request: Any) -> Any:
        import httpx

        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, request.url.raw_path.decode(), body))
        answer = self.answers[request.url.path]
        if isinstance(answer, bytes):
            return httpx.Response(200, content=answer)
        return httpx.Response(200, json=answer)


RUN = {
    "run": 3, "size": 2, "created_at": "2017-09-11T00:00:00Z", "snapshot": "s", "space": "p",
    "as_of": "2017-09-11T00:00:00Z", "horizon_days": 28, "engine": "scan", "population": 9,
}  # fmt: skip
SAVED = {
    "id": "a1", "name": "Cats", "owner": "me", "target": {"text": "cats"}, "holdout": 0.1,
    "holdout_key": "a1", "created_at": "2017-09-11T00:00:00Z", "num_runs": 1, "latest": RUN,
}  # fmt: skip
CHANGE = {
    "audience": SAVED, "before": RUN, "entered": 1, "left": 0, "stayed": 2, "jaccard": 0.66,
    "entered_ids": ["7"], "left_ids": [], "warnings": ["The size went from 2 to 3."],
}  # fmt: skip
OVERLAP = {
    "ids": ["a1", "a2"], "names": ["Cats", "Dogs"], "sizes": [2, 2],
    "shared": [[2, 1], [1, 2]], "jaccard": [[1, 0.33], [0.33, 1]],
}  # fmt: skip
REACH = {
    **{k: RUN[k] for k in ("snapshot", "space", "as_of", "horizon_days", "population")},
    "eligible": 9, "edges": [0, 1, 2], "counts": [4, 5],
    "points": [{"size": 9, "min_score": 0.1, "share": 1.0, "expected_buyers": 3.2, "low": 1,
                "high": 5, "precision": 0.35, "lift": 1.0}],
    "base_rate": 0.35, "useful_size": 4, "notes": ["n"],
}  # fmt: skip

PLAN = {
    "demand": "cats, not bought in 9 days", "text": "cats", "rules": FOOD,
    "rules_in_words": "not bought", "horizon_days": None, "not_understood": ["x"], "notes": [],
}  # fmt: skip

PART = {
    "words": "bought cats", "modality": "behaviour", "name": "CATS", "verb": "bought",
    "week_end": "2017-09-11T00:00:00Z", "weeks": 1, "contribution": 0.4,
}  # fmt: skip
WHY = {
    **{k: RUN[k] for k in ("snapshot", "space", "as_of", "horizon_days")},
    "weeks": 52, "tolerance": 0.001, "missing": ["9"], "notes": ["n"],
    "users": [{"user_id": "4", "score": 0.5, "base": 0.1, "eligible": False,
               "modalities": {"behaviour": 0.4}, "contributions": [PART], "rest": 0.0,
               "unexplained": 0.0, "decisive": [PART], "score_without": 0.1,
               "latest": [{"words": "bought cats", "verb": "bought", "subject": "CATS",
                           "week_end": "2017-09-11T00:00:00Z"}],
               "sentences": [{"text": "will buy cats", "deviations": 2.0}]}],
}  # fmt: skip
PORTRAIT = {
    "snapshot": "s", "as_of": RUN["as_of"], "size": 2, "population": 9, "days": 84, "notes": [],
    "behaviour": [{"verb": "bought", "subject": "CATS", "share": 0.5, "everybody": 0.1,
                   "lift": 4.8, "deviations": 3.0}],
    "profile": [{"column": "plan", "value": None, "share": 1.0, "everybody": 0.4, "lift": 2.0}],
}  # fmt: skip


@pytest.fixture
def fake() -> Fake:
    fake = Fake()
    fake.answers = {
        "/v1/audiences": SAVED, "/v1/audiences/a1": SAVED, "/v1/audiences/a1/run": CHANGE,
        "/v1/audiences/overlap": OVERLAP, "/v1/audiences/a1/export": b"user_id,score\n1,2\n",
        "/v1/audiences/a1/send": {"audience": "a1", "users": 2, "requests": 1, "attempts": 1},
        "/v1/reach": REACH,
        "/v1/plan": PLAN, "/v1/explain": WHY, "/v1/portrait": PORTRAIT,
        "/v1/lookalike": {**RUN, "users": [{"user_id": "4", "score": 0.5}], "notes": []},
        "/v1/audiences/a1/members": {**RUN, "users": [{"user_id": "4", "score": 0.5}]},
    }  # fmt: skip
    return fake


def test_both_clients_send_and_read_the_same(fake: Fake, tmp_path: Path) -> None:
    import httpx

    transport = httpx.MockTransport(fake)
    with sdk.Client("http://x", transport=transport) as client:
        blocking = [
            client.save("Cats", "cats", holdout=0.1, rules=FOOD, share=0.2),
            client.save("Alike", seeds=["1", "2"], size=3),
            client.get_audience("a1"), client.rerun("a1"), client.overlap(["a1", "a2"]),
            client.send("a1", "https://x.example/"), client.reach("cats", rules=FOOD),
            client.plan("cats, not bought in 9 days"),
            client.explain(["4", "9"], "cats", rules=FOOD), client.portrait(audience="a1"),
            client.portrait("cats", share=0.1, days=9),
            client.lookalike(["1", "2"], text="cats", min_score=0.1).ids,
            client.members("a1", "holdout").ids,
            client.export("a1", tmp_path / "a.csv", format="csv").read_bytes(),
        ]  # fmt: skip
    first, fake.asked = fake.asked, []

    async def ask() -> list[Any]:
        async with sdk.AsyncClient("http://x", transport=transport) as client:
            return [
                await client.save("Cats", "cats", holdout=0.1, rules=FOOD, share=0.2),
                await client.save("Alike", seeds=["1", "2"], size=3),
                await client.get_audience("a1"), await client.rerun("a1"),
                await client.overlap(["a1", "a2"]), await client.send("a1", "https://x.example/"),
                await client.reach("cats", rules=FOOD),
                await client.plan("cats, not bought in 9 days"),
                await client.explain(["4", "9"], "cats", rules=FOOD),
                await client.portrait(audience="a1"),
                await client.portrait("cats", share=0.1, days=9),
                (await client.lookalike(["1", "2"], text="cats", min_score=0.1)).ids,
                (await client.members("a1", "holdout")).ids,
                (await client.export("a1", tmp_path / "b.csv", format="csv")).read_bytes(),
            ]  # fmt: skip

    assert asyncio.run(ask()) == blocking and fake.asked == first
    assert first[1][2]["lookalike"]["seeds"] == ["1", "2"] and "target" not in first[1][2]
    method, path, body = first[0]
    assert (method, path, body["holdout"]) == ("POST", "/v1/audiences", 0.1)
    assert body["target"]["share"] == 0.2 and "size" not in body["target"]
    assert body["target"]["rules"] == FOOD | {"rule": FOOD["rule"] | {"measure": "count"}}
    assert first[12][1] == "/v1/audiences/a1/members?part=holdout"
    explain, saved, picked = (body for path, body in [one[1:] for one in first[8:11]])
    assert explain["user_ids"] == ["4", "9"] and explain["rules"]["type"] == "not"
    assert saved["audience"] == "a1" and "target" not in saved
    assert picked["target"]["share"] == 0.1 and picked["days"] == 9


@pytest.fixture
def command(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> Any:
    import httpx

    from sdk import cli_options

    def client(url: str | None, *, timeout: float) -> sdk.Client:
        return sdk.Client("http://x", timeout=timeout, transport=httpx.MockTransport(fake))

    monkeypatch.setattr(cli_options, "Client", client)

    def run(*words: str) -> Any:
        return CliRunner().invoke(app, list(words), env={"COLUMNS": "200"})

    return run


def test_commands_show_tables_and_json(command: Any, fake: Fake, tmp_path: Path) -> None:
    seeds = tmp_path / "seeds.txt"
    seeds.write_text("1\n2\n")
    for words, shown in [
        (("audience", "show", "a1"), "saved by me"),
        (("audience", "run", "a1"), "The size went from 2 to 3."),
        (("audience", "overlap", "a1", "a2"), "1 (33%)"),
        (("audience", "send", "a1", "https://x.example/"), "sent 2 users"),
        (("reach", "cats"), "chance does as well"),
        (("explain", "4", "9", "--text", "cats"), "without bought cats: 0.1000"),
        (("explain", "4", "--audience", "a1"), "hard rules keep this user out"),
        (("portrait", "cats", "--size", "2"), "4.8"),
        (("portrait", "--audience", "a1", "--json"), '"everybody": 0.1'),
        (("lookalike", "--seeds", str(seeds), "--size", "1"), "0.5000"),
        (("audience", "save", "Cats", "cats", "--holdout", "0.1"), "heldout 10%"),
        (("audience", "save", "Alike", "--seeds", str(seeds)), "saved by me"),
        (("audience", "export", "a1", str(tmp_path / "c.csv"), "--format", "csv"), "wrote"),
    ]:
        result = command(*words)
        assert result.exit_code == 0, result.output
        assert shown in result.stdout, (words, result.stdout)
    assert (tmp_path / "c.csv").read_bytes().startswith(b"user_id")
    assert json.loads(command("audience", "run", "a1", "--json").stdout)["entered"] == 1
    assert json.loads(command("reach", "cats", "--json").stdout)["useful_size"] == 4


def test_rules_come_from_the_command_line_or_a_file(
    command: Any, fake: Fake, tmp_path: Path
) -> None:
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(FOOD))
    for given in (json.dumps(FOOD), f"@{path}"):
        assert command("audience", "save", "Cats", "cats", "--rules", given).exit_code == 0
        assert fake.asked[-1][2]["target"]["rules"]["rule"]["subject"] == "CAT FOOD"
    wrong = command("audience", "save", "Cats", "cats", "--rules", "{")
    assert wrong.exit_code == 2 and "--rules:" in wrong.output
    assert "Example" in command("audience", "save", "--help").output
