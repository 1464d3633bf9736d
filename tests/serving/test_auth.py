import hashlib

import pytest

from feature_repo.errors import InputError
from sdk.access import SCOPES
from serving.auth import ANYBODY, ApiKeys, Principal


def test_keys_carry_scopes_and_are_kept_as_digests_only() -> None:
    keys = ApiKeys.parse(" abc , def:read,, ghi:admin,jkl:target+export,")
    assert keys is not None
    scopes = {
        b"abc": {"admin"},
        b"def": {"read"},
        b"ghi": {"admin"},
        b"jkl": {"target", "export"},
    }
    assert keys.digests == {hashlib.sha256(key).hexdigest(): s for key, s in scopes.items()}
    assert "abc" not in repr(vars(keys))
    for digest, principal in keys.principals().items():
        assert principal.name == f"key-{digest[:8]}" and principal.scopes == keys.digests[digest]


@pytest.mark.parametrize("text", [None, "", " ", ",", " , ,"])
def test_no_keys_are_none(text: str | None) -> None:
    assert ApiKeys.parse(text) is None


@pytest.mark.parametrize(
    "text",
    ["secret:raed", ":read", "secret key", "sécret", "secret,secret", "secret:", "secret:read+",
     "secret:read+read", "secret:target,secret:export", "secret:target|export"],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_without_showing_the_key(text: str) -> None:
    with pytest.raises(InputError, match="OPENFOUND_API_KEYS: key [12]") as caught:
        ApiKeys.parse(text)
    assert "cret" not in str(caught.value)


def test_one_key_with_two_scopes_is_refused() -> None:
    with pytest.raises(InputError, match="key 2 comes twice"):
        ApiKeys.parse("abc,abc:read")


def test_admin_may_everything_and_others_what_they_have() -> None:
    admin = Principal("a", frozenset({"admin"}))
    both = Principal("b", frozenset({"target", "export"}))
    for scope in SCOPES:
        assert admin.may(scope) and ANYBODY.may(scope)
        assert both.may(scope) == (scope in ("target", "export"))
    assert both.may("read", "target") and not both.may("read", "admin")
