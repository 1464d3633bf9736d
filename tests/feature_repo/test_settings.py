from pathlib import Path

import pytest

from feature_repo.errors import InputError, OpenFoundError, TimeError, UnknownSnapshot
from feature_repo.settings import Workspace, milvus_uri, redis_connection, redis_url


def test_paths_are_absolute_and_nothing_is_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    workspace = Workspace.from_env()
    assert workspace.root == (tmp_path / "workspace").resolve()
    assert workspace.live_file == workspace.root / "LIVE"
    assert workspace.dataset_file == workspace.root / "dataset.json"
    for name in ("tables", "features", "checkpoints", "cache", "snapshots", "staging", "feast",
                 "milvus", "reports"):  # fmt: skip
        assert getattr(workspace, name) == workspace.root / name
    assert list(tmp_path.iterdir()) == []


def test_argument_beats_environment_beats_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFOUND_WORKSPACE", str(tmp_path / "named"))
    assert Workspace.from_env().root == tmp_path / "named"
    assert Workspace.from_env(tmp_path / "given").root == tmp_path / "given"


def test_a_file_is_no_workspace(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="expected a directory, got the file .*file"):
        Workspace(tmp_path / "file")


def test_outer_stores_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert milvus_uri() is None and redis_url() is None
    monkeypatch.setenv("OPENFOUND_MILVUS_URI", "http://milvus:19530")
    monkeypatch.setenv("OPENFOUND_REDIS_URL", "redis://cache")
    assert (milvus_uri(), redis_url()) == ("http://milvus:19530", "redis://cache")


@pytest.mark.parametrize(
    ("url", "connection"),
    [
        ("redis://cache", "cache:6379,db=0"),
        ("redis://:secret@cache:6380/2", "cache:6380,db=2,password=secret"),
        ("rediss://me:secret@cache/1", "cache:6379,db=1,username=me,password=secret,ssl=True"),
    ],
)
def test_redis_url_in_the_spelling_of_feast(url: str, connection: str) -> None:
    assert redis_connection(url) == connection


def test_a_wrong_redis_url_is_named_without_its_password() -> None:
    with pytest.raises(InputError, match="OPENFOUND_REDIS_URL: expected redis://") as error:
        redis_connection("http://:secret@cache")
    assert "secret" not in str(error.value)


def test_errors_read_as_sentences() -> None:
    assert str(UnknownSnapshot("no 'such' one")) == "no 'such' one"
    assert issubclass(UnknownSnapshot, KeyError) and issubclass(TimeError, ValueError)
    assert issubclass(TimeError, OpenFoundError)
