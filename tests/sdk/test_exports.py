"""The public surface: sorted, complete, light to import, and without side effects."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import sdk
from sdk import errors
from sdk.errors import AuthenticationError, OpenFoundError

# Not rich and numpy: httpx and pyarrow load them where they are installed.
HEAVY = ("torch", "ray", "feast", "pandas", "typer", "duckdb", "fastapi")


def test_all_is_sorted_and_everything_in_it_exists() -> None:
    assert sdk.__all__ == sorted(sdk.__all__)
    assert [name for name in sdk.__all__ if not hasattr(sdk, name)] == []


def test_every_error_is_exported() -> None:
    named = {
        n for n, v in vars(errors).items() if isinstance(v, type) and issubclass(v, OpenFoundError)
    }
    assert named <= set(sdk.__all__)


def test_everything_public_is_documented() -> None:
    assert [name for name in sdk.__all__ if not getattr(sdk, name).__doc__] == []


def test_the_package_is_typed() -> None:
    assert Path(sdk.__file__).with_name("py.typed").exists()


def test_importing_is_light_and_reads_no_environment() -> None:
    code = (
        "import os, sys\n"
        "seen = []\n"
        "real = os._Environ.__getitem__\n"
        "os._Environ.__getitem__ = lambda self, key: (seen.append(key), real(self, key))[1]\n"
        "import sdk, sdk.arrow, sdk.types\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "ours = [key for key in seen if key.startswith(('OPENFOUND', 'RAY'))]\n"
        "print(heavy, ours)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"OPENFOUND_URL": "not an address"},
        cwd=Path(sdk.__file__).parents[1],
    )
    assert run.stdout.strip() == "[] []"


def test_the_functions_use_a_client_made_at_the_first_call(service: Any) -> None:
    assert len(sdk.target("diapers", size=3)) == 3
    made = sdk.tune("diapers", ["1", "2", "3"], ["4", "5", "6"], method="tokens")
    assert made.method == "tokens"
    assert len(sdk.target(prompt=made, size=3)) == 3
    assert sdk.embeddings(["1", "x"]).missing == ["x"]
    assert sdk.snapshots().live == "b_2"
    assert sdk.activate("a_1").live == "a_1"
    assert sdk.rollback().live == "b_2"
    assert sdk.health().status == "ok"


def test_the_default_client_is_kept_until_the_environment_changes(
    service: Any, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFOUND_API_KEY", "wrong")
    with pytest.raises(AuthenticationError):
        sdk.snapshots()
    monkeypatch.setenv("OPENFOUND_API_KEY", key)
    sdk.snapshots()
    first = sdk._client()
    assert sdk._client() is first
    made: list[object] = []
    threads = [threading.Thread(target=lambda: made.append(sdk._client())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [first] * 8
