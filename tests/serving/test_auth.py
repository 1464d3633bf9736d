import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from feature_repo.errors import InputError
from serving import auth
from serving.auth import ApiKeys


def test_keys_carry_scopes_and_are_kept_as_digests_only() -> None:
    keys = ApiKeys.parse(" abc , def:read,, ghi:admin,")
    assert keys is not None
    asked = {name: keys.scope(name) for name in ("abc", "def", "ghi", "xyz", "", "def:read")}
    assert asked == {
        "abc": "admin",
        "def": "read",
        "ghi": "admin",
        "xyz": None,
        "": None,
        "def:read": None,
    }
    assert set(keys.digests) == {hashlib.sha256(k).hexdigest() for k in (b"abc", b"def", b"ghi")}
    assert "abc" not in repr(vars(keys))


@pytest.mark.parametrize("text", [None, "", " ", ",", " , ,"])
def test_no_keys_are_none(text: str | None) -> None:
    assert ApiKeys.parse(text) is None


@pytest.mark.parametrize("text", ["secret:raed", ":read", "secret key", "sécret", "secret,secret"])
def test_what_cannot_be_meant_is_refused_without_showing_the_key(text: str) -> None:
    with pytest.raises(InputError, match="OPENFOUND_API_KEYS: key [12]") as caught:
        ApiKeys.parse(text)
    assert "cret" not in str(caught.value)


def test_one_key_with_two_scopes_is_refused() -> None:
    with pytest.raises(InputError, match="key 2 comes twice"):
        ApiKeys.parse("abc,abc:read")


def test_every_key_is_compared_and_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []
    real: Callable[[Any, Any], bool] = auth.hmac.compare_digest

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return real(one, other)

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    keys = ApiKeys.parse("first,second,third")
    assert keys is not None
    for key in ("first", "third", "unknown", "x" * 10_000, "\udcff"):
        compared.clear()
        keys.scope(key)
        assert len(compared) == 3 and {len(word) for pair in compared for word in pair} == {64}
