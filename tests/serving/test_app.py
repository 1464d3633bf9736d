"""``python -m serving.app`` as a process, with real Ray, Milvus, Feast and text tower."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest

import sdk
from feature_repo.errors import InputError
from feature_repo.settings import Workspace
from feature_repo.store import FeatureStore
from serving import app

KEY, READER = "a-key-of-the-tests", "a-reader-of-the-tests"
TEXT = "households that will buy diapers"
START_SECONDS, STOP_SECONDS = 240, 20  # of a machine that does much else


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "serving.app", *arguments]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, **more}


def real_checkpoint(world: Any) -> Path:
    """A small but real alignment checkpoint: the language model, LoRA and projection."""
    import torch

    from encoders.alignment import AlignmentConfig, FoundModel
    from encoders.behaviour import BehaviourConfig
    from encoders.checkpoint import CheckpointInfo, save
    from encoders.text import TextConfig

    torch.manual_seed(0)
    config = AlignmentConfig(
        behaviour=BehaviourConfig(dim=16, heads=2, layers=1),
        text=TextConfig(dim=16, lora_rank=2),
        fusion_dim=16, fusion_layers=1, fusion_heads=2,
    )  # fmt: skip
    info = CheckpointInfo(
        model="alignment", config=asdict(config), trained_as_of="2017-09-11", horizon_days=28,
        feature_hash="0" * 64, seed=0, version="0", metrics={},
    )  # fmt: skip
    directory: Path = world.workspace.checkpoints / "alignment"
    save(directory, FoundModel(config), info)
    return directory


class Service:
    """The process, its log, and clients of it."""

    def __init__(self, workspace: Workspace, log: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        arguments = ["--workspace", str(workspace.root), "--port", str(self.port)]
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                command(*arguments),
                stdout=file,
                stderr=file,
                env=environment(OPENFOUND_API_KEYS=f"{KEY},{READER}:read"),
            )
        self.client = sdk.Client(self.url, api_key=KEY)

    def wait_for(self, condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def kill(self) -> None:
        for process in [*psutil.Process(self.process.pid).children(recursive=True), self.process]:
            process.kill()
        self.process.wait()


@pytest.fixture
def service(world: Any, tmp_path: Path) -> Iterator[Service]:
    service = Service(world.workspace, tmp_path / "log")
    yield service
    if service.process.poll() is None:
        service.kill()


@pytest.mark.ray
@pytest.mark.milvus
def test_the_service_from_start_to_stop(world: Any, service: Service) -> None:
    # Published while it starts: nothing is live yet.
    directory = real_checkpoint(world)
    first, second = (world.publish(week, checkpoint=directory) for week in (1, 2))
    store = FeatureStore(world.workspace)
    store.apply()
    for manifest in (first, second):
        for entry in manifest.kinds.values():
            store.materialize(entry.view, manifest.as_of)

    starts_without_a_live_snapshot(service)
    activates(service, first.id, second.id)
    answers_by_milvus_and_by_the_scan(service)
    serves_embeddings_from_the_online_store(service)
    follows_another_process(world, service, second.id)
    outlives_milvus(service)
    stops(service)


def starts_without_a_live_snapshot(service: Service) -> None:
    def says_what_to_run() -> bool:
        try:
            service.client.health()
        except (sdk.ConnectionFailed, sdk.Timeout, sdk.NotFound):  # nobody, then no app yet
            return False
        except sdk.Unavailable as error:
            return "ray_jobs.pipeline" in str(error)
        raise AssertionError("there is no live snapshot yet")

    service.wait_for(says_what_to_run)


def activates(service: Service, first: str, second: str) -> None:
    with sdk.Client(service.url, api_key=READER) as reader:
        with pytest.raises(sdk.PermissionDenied):
            reader.activate(first)
    assert service.client.activate(first).previous is None
    assert service.client.health().snapshot == first
    assert service.client.activate(second).previous == first
    assert service.client.target(TEXT).meta.snapshot == second
    assert service.client.rollback().live == first
    assert service.client.target(TEXT).meta.snapshot == first
    assert service.client.snapshots().problems == []


def answers_by_milvus_and_by_the_scan(service: Service) -> None:
    near = service.client.target(TEXT, size=40)
    exact = service.client.target(TEXT, size=40, exact=True)
    assert (near.meta.engine, exact.meta.engine) == ("milvus", "scan"), service.log.read_text()
    assert len(set(near.ids)) == 40
    assert near.ids == exact.ids and near.scores == exact.scores


def serves_embeddings_from_the_online_store(service: Service) -> None:
    found = service.client.embeddings(["u3", "nobody", "u1"])
    assert found.ids == ["u3", "u1"] and found.meta.missing == ["nobody"]
    audience = service.client.target(TEXT, size=40)
    assert (found.meta.snapshot, found.meta.space) == (audience.meta.snapshot, audience.meta.space)
    with pytest.raises(sdk.InvalidRequest, match="aligned with"):
        service.client.target(TEXT, kind="behaviour")


def follows_another_process(world: Any, service: Service, snapshot: str) -> None:
    world.store.activate(snapshot)
    service.wait_for(lambda: service.client.health().snapshot == snapshot, seconds=30)
    assert service.client.target(TEXT).meta.snapshot == snapshot


def outlives_milvus(service: Service) -> None:
    before = service.client.target(TEXT, size=10)
    children = psutil.Process(service.process.pid).children()
    (milvus,) = (c for c in children if "feature_repo.milvus_server" in c.cmdline())
    milvus.kill()
    service.wait_for(lambda: milvus.status() == psutil.STATUS_ZOMBIE)
    started = time.monotonic()
    audience = service.client.target(TEXT, size=10)
    assert time.monotonic() - started < 5
    assert audience.meta.engine == "scan" and "Milvus is away" in audience.meta.notes[0]
    assert audience.ids == before.ids and audience.scores == before.scores


def stops(service: Service) -> None:
    own = psutil.Process(service.process.pid)
    started = [own, *own.children(recursive=True)]
    directory = next(Path("/tmp").glob(f"openfound-{own.pid}-*"))
    service.process.send_signal(signal.SIGTERM)
    assert service.process.wait(STOP_SECONDS) == 0, service.log.read_text()
    assert not [process for process in started if process.is_running()]
    assert not directory.exists()
    socket.create_server(("127.0.0.1", service.port)).close()
    log = service.log.read_text()
    assert KEY not in log and "Traceback" not in log


# --- refusals, which start nothing


def refused(*arguments: str, **more: str) -> str:
    done = subprocess.run(
        command(*arguments), env=environment(**more), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr
    return done.stderr


def test_without_keys_it_refuses_to_start(tmp_path: Path) -> None:
    message = refused("--workspace", str(tmp_path), "--port", str(free_port()))
    assert "OPENFOUND_API_KEYS" in message and "--insecure" in message


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        message = refused("--workspace", str(tmp_path), "--port", port, OPENFOUND_API_KEYS=KEY)
    assert f"127.0.0.1:{port}" in message and "name another port" in message


@pytest.mark.parametrize("option", [["--port", "0"], ["--replicas", "0"], ["--port", "http"]])
def test_options_that_cannot_be_meant_are_refused(
    option: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        app.main(option)
    assert caught.value.code == 2 and option[0] in capsys.readouterr().err


def test_build_declares_size_and_limits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="OPENFOUND_API_KEYS"):
        app.build({"workspace": str(tmp_path)})
    assert app.build({"workspace": str(tmp_path), "insecure": True})
    monkeypatch.setenv("OPENFOUND_API_KEYS", KEY)
    deployment = app.build({"workspace": str(tmp_path), "replicas": 3})._bound_deployment
    assert (deployment.num_replicas, deployment.ray_actor_options["num_cpus"]) == (3, 0.1)
    assert deployment.max_ongoing_requests > 5 and deployment.max_queued_requests > 0
    assert KEY not in str(deployment.init_args)  # only digests leave this process


def test_a_rewriter_without_what_it_needs_is_refused_at_the_start(
    world: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("URL", "MODEL", "KEY"):
        monkeypatch.delenv(f"OPENFOUND_REWRITER_{name}", raising=False)
    asked = {"workspace": str(world.workspace.root), "insecure": True}
    with pytest.raises(InputError, match="OPENFOUND_REWRITER_URL: expected the base URL"):
        app.build({**asked, "rewriter": "endpoint"})
    with pytest.raises(InputError, match="ray_jobs.tune_rewriter"):
        app.build({**asked, "rewriter": "language-model"})
    with pytest.raises(SystemExit):
        app.main(["--rewriter", "oracle"])
