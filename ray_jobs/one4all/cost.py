"""What a prediction costs (Table 3): one run, one machine, the same users for every model.

Inference in batches of 128 without gradients, in float32, for a fixed time per model. A user's
bytes are those of what the model reads: the embedding, or the raw log (numbers at the narrowest
integers that hold them; each distinct text's vector is counted apart).
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn

from encoders.transfer import Inputs
from ray_jobs.one4all.compare import World
from ray_jobs.one4all.tasks import Downstream

_BATCH = 128
_SECONDS = 6.0


def measure(world: World, task: Downstream, seconds: float = _SECONDS) -> dict[str, Any]:
    """Model → users per second, speed-up over the slowest, parameters, bytes per user."""
    models = world.models(task)
    builds = {name: models[name] for name in ("P-Trans", "U-MLP")}
    if world.encoder is not None:
        builds = {"fine-tuned": world.fine_tuned, **builds}
    inputs = world.inputs(task)
    texts = _text_bytes(world)
    events = {"P-Trans": world.purchases.logs.mask_NL.shape[1]}
    if world.encoder is not None:
        events["fine-tuned"] = world.encoder().events
    vector = float(world.vectors_NU.itemsize * world.vectors_NU.shape[1])
    found: dict[str, Any] = {}
    for name, build in builds.items():
        model = build(1).eval()
        found[name] = {
            "users_per_second": throughput(model, inputs, seconds),
            "parameters": sum(each.numel() for each in model.parameters()),
            "bytes_per_user": (
                vector if name == "U-MLP" else world.purchases.bytes_per_user(events[name])
            ),
            "shared_bytes": 0 if name == "U-MLP" else texts,
        }
    slowest = min(each["users_per_second"] for each in found.values())
    for each in found.values():
        each["speedup"] = each["users_per_second"] / slowest
    return found


@torch.no_grad()
def throughput(model: nn.Module, inputs: Inputs, seconds: float) -> float:
    """Users per second, reading of the batch included."""
    rng = np.random.default_rng(0)
    num = len(next(each for each in vars(inputs).values() if each is not None))
    model(inputs.rows(torch.arange(min(num, _BATCH))))  # the first call allocates
    done, started = 0, perf_counter()
    while (spent := perf_counter() - started) < seconds:
        model(inputs.rows(torch.from_numpy(rng.integers(0, num, _BATCH))))
        done += _BATCH
    return done / spent


def _text_bytes(world: World) -> int:
    return len(world.purchases.texts) * int(world.lines([""]).shape[1]) * 4
