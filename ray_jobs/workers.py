"""Where a training function runs: in this process, or on Ray Train workers.

``workers=0`` is Ray Train's own local mode. Otherwise a Ray cluster is joined (``RAY_ADDRESS``)
or a local one started, after a check that it has what is asked for: Ray would wait for ever.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from feature_repo.errors import InputError
from ray_jobs.progress import follow, quiet

_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_worker_niceness": "0",  # training is what the machine is asked for
}
_OBJECT_STORE_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Workers:
    """How many workers, on what."""

    num: int = 0
    use_gpu: bool = False
    cpus_per_worker: int = 1

    def __post_init__(self) -> None:
        if self.num < 0:
            raise InputError(f"workers: expected 0 (in process) or more, got {self.num}")


@contextmanager
def cluster(workers: Workers) -> Iterator[None]:
    """A Ray to train on, for as long as the block runs; nothing for in-process training.

    Raises:
        InputError: when the cluster lacks the CPUs or GPUs asked for.
    """
    if workers.num == 0 or ray.is_initialized():
        _check_resources(workers)
        yield
        return
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if os.environ.get("RAY_ADDRESS"):
        ray.init(log_to_driver=False)
    else:
        ray.init(
            address="local", include_dashboard=False, log_to_driver=False,
            object_store_memory=_OBJECT_STORE_BYTES,
        )  # fmt: skip
    try:
        _check_resources(workers)
        yield
    finally:
        ray.shutdown()


def fit(
    loop: Callable[[Sequence[dict[str, Any]]], None],
    configs: Sequence[dict[str, Any]],
    workers: Workers,
    *,
    name: str,
    directory: Path,
) -> None:
    """Run ``loop(configs)`` on every worker and show its progress until it ends.

    Args:
        configs: each gets the ``progress`` file to append to.
        directory: absolute; Ray's own run files and the progress go below it.
    """
    # A fresh name: under an old one Ray would resume by its own rules; we resume by ours.
    unique = f"{name}-{uuid.uuid4().hex[:8]}"
    directory.mkdir(parents=True, exist_ok=True)
    lines = directory / f"{unique}.jsonl"
    quiet()
    trainer = TorchTrainer(
        _Loop(loop),
        train_loop_config={"configs": [{**each, "progress": str(lines)} for each in configs]},
        scaling_config=scaling(workers),
        run_config=RunConfig(
            name=unique,
            storage_path=str(directory / "ray"),
            failure_config=FailureConfig(max_failures=1, controller_failure_limit=0),
        ),
    )
    ended = threading.Event()
    follower = threading.Thread(target=follow, args=(lines, ended), daemon=True)
    follower.start()
    try:
        trainer.fit()
    finally:
        ended.set()
        follower.join()


def scaling(workers: Workers) -> ScalingConfig:
    """What Ray Train is asked for."""
    return ScalingConfig(
        num_workers=workers.num,
        use_gpu=workers.use_gpu,
        resources_per_worker={"CPU": workers.cpus_per_worker},
    )


class _Loop:
    """A training loop as Ray Train wants it: called with one dictionary."""

    def __init__(self, loop: Callable[[Sequence[dict[str, Any]]], None]):
        self.loop = loop

    def __call__(self, config: dict[str, Any]) -> None:
        self.loop(config["configs"])


def _check_resources(workers: Workers) -> None:
    if workers.num == 0:
        if workers.use_gpu and not torch.cuda.is_available():
            raise InputError("use_gpu: this process sees no GPU; leave it out, or use --workers on "
                             "a cluster that has some")  # fmt: skip
        return
    has = ray.cluster_resources()
    wants = {"CPU": workers.num * workers.cpus_per_worker}
    if workers.use_gpu:
        wants["GPU"] = workers.num
    lacking = {k: v for k, v in wants.items() if has.get(k, 0) < v}
    if lacking:
        asked = ", ".join(f"{v} {k}s (it has {has.get(k, 0):.0f})" for k, v in lacking.items())
        raise InputError(
            f"workers: {workers.num} workers need {asked}; use fewer --workers, 0 to train in "
            "this process, or a larger cluster (RAY_ADDRESS)"
        )
