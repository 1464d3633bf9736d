"""The wire models refuse what the contract refuses, and describe every field."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from sdk import types
from sdk.types import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    Problem,
    SnapshotInfo,
    TargetRequest,
    TargetResponse,
    field_errors,
)

ANSWER: dict[str, Any] = {
    "snapshot": "s",
    "space": "p",
    "as_of": "2017-11-06T00:00:00Z",
    "horizon_days": 28,
    "engine": "milvus",
    "population": 2,
    "users": [{"user_id": "12", "score": 0.93}],
    "notes": [],
}


def test_a_target_request_has_the_contract_s_defaults_and_strips_its_text() -> None:
    request = TargetRequest(text="  will buy diapers \n")
    assert request.model_dump(exclude_defaults=True) == {"text": "will buy diapers", "size": 100}
    assert request.model_dump() == {
        "prompt": None,
        "text": "will buy diapers",
        "size": 100,
        "exact": False,
        "kind": "fused",
        "rewrite": True,
        "split": True,
        "rules": None,
        "min_score": None,
        "min_probability": None,
        "share": None,
        "expected_buyers": None,
        "include": None,
        "exclude": None,
        "exclude_audiences": None,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("text", ""),
        ("text", " \n\t "),
        ("text", "x" * 2_001),
        ("text", "x" * 10_000),
        ("text", 7),
        ("text", "\ud800"),
        ("size", 0),
        ("size", -1),
        ("size", 1.5),
        ("size", "5"),
        ("size", True),
        ("exact", "yes"),
        ("kind", ""),
        ("sise", 5),
    ],
)
def test_a_wrong_target_request_names_the_field(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        TargetRequest.model_validate({"text": "diapers"} | {field: value})
    assert [error.field for error in field_errors(caught.value.errors())] == [field]


def test_the_longest_text_and_the_largest_size_pass() -> None:
    assert len(TargetRequest(text=" " + "x" * 2_000 + " ").text) == 2_000
    assert TargetRequest(text="x", size=10**12).size == 10**12


@pytest.mark.parametrize("ids", [[], [""], ["x" * 257], [12], ["1"] * 10_001, "12", None])
def test_wrong_user_ids_are_refused(ids: object) -> None:
    with pytest.raises(ValidationError):
        EmbeddingsRequest.model_validate({"user_ids": ids})


def test_ten_thousand_ids_pass_and_repeated_ones_count_once() -> None:
    assert len(EmbeddingsRequest(user_ids=[str(i) for i in range(10_000)]).user_ids) == 10_000
    assert EmbeddingsRequest(user_ids=["b", "a", "b"]).user_ids == ["b", "a"]


def test_the_contract_s_answer_is_read_and_unknown_fields_are_ignored() -> None:
    answer = TargetResponse.model_validate(ANSWER | {"later": 1})
    assert answer.users[0].user_id == "12"
    assert answer.as_of == datetime(2017, 11, 6, tzinfo=UTC)


@pytest.mark.parametrize(
    "change",
    [{"engine": "guess"}, {"population": -1}, {"users": [{"user_id": "1", "score": float("nan")}]}],
)
def test_a_wrong_answer_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TargetResponse.model_validate(ANSWER | change)


@pytest.mark.parametrize(
    "written",
    [
        "2017-11-06",
        "2017-11-06T00:00:00",
        "2017-11-06T02:00:00+02:00",
        datetime(2017, 11, 6),
        datetime(2017, 11, 6, 1, tzinfo=timezone(timedelta(hours=1))),
    ],
)
def test_times_are_utc_however_they_are_written(written: object) -> None:
    answer = TargetResponse.model_validate(ANSWER | {"as_of": written})
    assert answer.as_of == datetime(2017, 11, 6, tzinfo=UTC)
    assert '"as_of":"2017-11-06T00:00:00Z"' in answer.model_dump_json()


def test_vectors_must_have_the_dimension_they_claim() -> None:
    row = {"user_id": "1", "embedding": [1.0, 2.0]}
    fields = {"snapshot": "s", "space": "p", "as_of": "2017-11-06", "kind": "fused"}
    EmbeddingsResponse.model_validate(fields | {"dim": 2, "embeddings": [row]})
    with pytest.raises(ValidationError, match="has 2 numbers, expected dim=3"):
        EmbeddingsResponse.model_validate(fields | {"dim": 3, "embeddings": [row]})


def test_field_errors_name_place_expectation_and_what_came() -> None:
    with pytest.raises(ValidationError) as caught:
        EmbeddingsRequest.model_validate({"user_ids": ["1", 5, "x" * 300]})
    first, second = field_errors(caught.value.errors())
    assert (first.field, first.message) == (
        "user_ids.1",
        "Input should be a valid string; got 5",
    )
    assert second.message.endswith("got 300 characters")


def test_field_errors_drop_fastapi_s_body_and_stop_at_twenty() -> None:
    many = [{"loc": ("body", "user_ids", i), "msg": "bad"} for i in range(50)]
    listed = field_errors(many)
    assert len(listed) == 21
    assert listed[0].field == "user_ids.0"
    assert listed[-1].message == "and 30 more like these"


def test_a_problem_is_titled_by_its_status() -> None:
    assert Problem.of(404, "no such snapshot").model_dump() == {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": "no such snapshot",
        "errors": [],
    }


def test_every_field_of_every_model_is_described() -> None:
    models = [
        one
        for one in vars(types).values()
        if isinstance(one, type) and issubclass(one, BaseModel) and one.__module__ == types.__name__
    ]
    named = [(m.__name__, n, f) for m in models for n, f in m.model_fields.items()]
    assert len(named) > 40
    assert [(model, name) for model, name, field in named if not field.description] == []


def test_openapi_knows_the_limits() -> None:
    schema = TargetRequest.model_json_schema()["properties"]
    text = schema["text"]["anyOf"][0]  # or a prompt
    assert (text["minLength"], text["maxLength"]) == (1, 2_000)
    assert schema["size"]["anyOf"][0]["minimum"] == 1
    ids = EmbeddingsRequest.model_json_schema()["properties"]["user_ids"]
    assert (ids["minItems"], ids["maxItems"], ids["items"]["maxLength"]) == (1, 10_000, 256)
    assert "report" not in SnapshotInfo.model_json_schema()["required"]
