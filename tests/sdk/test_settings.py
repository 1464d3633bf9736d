"""Where the service and the cluster are: arguments, environment, and what is refused."""

from pathlib import Path

import pytest

from sdk.errors import UsageError
from sdk.settings import (
    DEFAULT_RAY,
    DEFAULT_URL,
    Settings,
    http_options,
    proxy_for,
    ray_address,
    ray_token,
)

SECRET = "s3cret-key"


def test_arguments_go_before_the_environment_and_that_before_the_default() -> None:
    env = {"OPENFOUND_URL": "http://env:1/", "OPENFOUND_API_KEY": f" {SECRET}\n"}
    assert Settings.resolve(environ={}) == Settings(DEFAULT_URL, None, 60.0)
    assert Settings.resolve(environ=env) == Settings("http://env:1", SECRET, 60.0)
    chosen = Settings.resolve("https://arg", "other", 5, environ=env)
    assert chosen == Settings("https://arg", "other", 5.0)
    assert Settings.resolve(environ={"OPENFOUND_URL": ""}).url == DEFAULT_URL


def test_the_key_is_in_no_repr() -> None:
    settings = Settings.resolve(environ={"OPENFOUND_API_KEY": SECRET})
    assert SECRET not in repr(settings)
    assert http_options(settings)["headers"]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://host", "http://", "host", "http://a b", "http://h?x=1", "http://h:x"],
)
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match=r"url \(OPENFOUND_URL\).*Write it like http://"):
        Settings.resolve(url, environ={})


def test_a_password_in_the_address_is_refused_and_not_shown() -> None:
    with pytest.raises(UsageError, match="must not carry") as caught:
        Settings.resolve(f"http://me:{SECRET}@host", environ={})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "key", [f"{SECRET} x", f"{SECRET}\nX-Evil: 1", f"{SECRET}é", f"{SECRET}\0"]
)
def test_a_key_that_cannot_be_a_header_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(UsageError, match="api_key") as caught:
        Settings.resolve(api_key=key, environ={})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5"])
def test_a_timeout_is_a_positive_number(timeout: float) -> None:
    with pytest.raises(UsageError, match="timeout: expected seconds above 0"):
        Settings.resolve(timeout=timeout, environ={})


def test_proxies_of_the_environment_serve_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy:3128")
    assert proxy_for("http://host") == "http://proxy:3128"
    assert proxy_for("http://127.0.0.1:8000") is None
    assert proxy_for("http://localhost:8000") is None
    monkeypatch.setenv("no_proxy", "host")
    assert proxy_for("http://host") is None


def test_the_cluster_s_address_follows_ray_s_own_order() -> None:
    env = {"RAY_ADDRESS": "http://a:1", "RAY_API_SERVER_ADDRESS": "http://b:2/"}
    assert ray_address(environ={}) == DEFAULT_RAY == "http://127.0.0.1:8265"
    assert ray_address(environ={"RAY_ADDRESS": "http://a:1"}) == "http://a:1"
    assert ray_address(environ=env) == "http://b:2"
    assert ray_address("https://c", environ=env) == "https://c"


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "ray://head:10001", "local"])
def test_addresses_that_only_ray_understands_are_explained(address: str) -> None:
    with pytest.raises(UsageError, match="RAY_ADDRESS: expected the dashboard's"):
        ray_address(environ={"RAY_ADDRESS": address})


def test_the_cluster_s_token_follows_ray_s_own_order(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text("from-home")
    both = {"RAY_AUTH_TOKEN": "from-env", "RAY_AUTH_TOKEN_PATH": str(file), "HOME": str(home)}
    only_path = {"RAY_AUTH_TOKEN_PATH": str(file)}
    only_home = {"HOME": str(home)}
    assert ray_token("http://far:8265", both) == "from-env"
    assert ray_token("http://far:8265", only_path) == "from-file"
    assert ray_token("http://127.0.0.1:8265", only_home) == "from-home"
    assert ray_token("http://far:8265", only_home) is None
    assert ray_token("http://127.0.0.1:8265", both | {"RAY_AUTH_MODE": "disabled"}) is None
    assert ray_token("http://127.0.0.1:8265", {"HOME": str(tmp_path)}) is None


def test_a_token_file_that_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match="RAY_AUTH_TOKEN_PATH: /nowhere/token cannot be read"):
        ray_token("http://far", {"RAY_AUTH_TOKEN_PATH": "/nowhere/token"})
