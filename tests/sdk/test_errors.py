"""The exception tree is the one its docstring draws, and each error says what to do."""

import copy
import inspect
import re

import pytest

from sdk import errors
from sdk.errors import ApiError, JobFailed, OpenFoundError, UsageError, from_problem, invalid
from sdk.types import FieldError, Problem

CLASSES = [one for _, one in inspect.getmembers(errors, inspect.isclass)
           if issubclass(one, OpenFoundError)]  # fmt: skip


def test_the_docstring_draws_every_class_below_its_parent() -> None:
    drawn = re.findall(r"^ *([│├└─ ]*)(\w+)(?:  |$)", errors.__doc__ or "", re.MULTILINE)
    tree = {name: len(branch) for branch, name in drawn if name in vars(errors)}
    assert set(tree) == {one.__name__ for one in CLASSES}
    for one in CLASSES:
        if one.__mro__[1] is ApiError:
            assert tree[one.__name__] == 8


@pytest.mark.parametrize("kind", CLASSES)
def test_errors_survive_a_copy_between_processes(kind: type[OpenFoundError]) -> None:
    error = kind("What happened.", remedy="Do this.")
    back = copy.deepcopy(error)
    assert type(back) is kind
    assert (str(back), vars(back)) == ("What happened. Do this.", vars(error))


@pytest.mark.parametrize(
    "kind", [one for one in CLASSES if one not in (OpenFoundError, UsageError)]
)
def test_each_kind_has_a_remedy_of_its_own(kind: type[OpenFoundError]) -> None:
    assert kind.remedy.endswith(".")
    assert str(kind("What happened.")) == f"What happened. {kind.remedy}"


def test_a_usage_error_is_a_value_error() -> None:
    assert issubclass(UsageError, ValueError)


def test_the_message_is_the_detail_with_the_fields() -> None:
    fields = [FieldError(field="size", message="got 0"), FieldError(field="text", message="empty")]
    assert invalid(fields).message == "The request is invalid: size: got 0; text: empty."
    assert from_problem(Problem(status=418)).message == "HTTP status 418."
    assert from_problem(Problem(status=404, title="Not Found")).message == "Not Found."
    told = Problem(status=422, detail="Sizes: size: got 0!", errors=fields[:1])
    assert from_problem(told).message == "Sizes: size: got 0!"


def test_a_failed_job_carries_its_id_and_status() -> None:
    error = JobFailed("Job x was stopped.", submission_id="x", status="STOPPED")
    assert (error.submission_id, error.status) == ("x", "STOPPED")
