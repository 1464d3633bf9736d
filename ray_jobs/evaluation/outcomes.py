"""What became of each user, as a label: the colours of the map of vectors (FOUND Figure 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from ray_jobs.protocol import Task

SHOWN: Final = (
    "DIAPERS & DISPOSABLES", "CAT FOOD", "DOG FOODS", "CIGARETTES", "DOMESTIC WINE", "coupon",
    "lapse", "top spend",
)  # fmt: skip
NONE: Final = "none of these"


def outcome_labels(tasks: Sequence[Task], users: Sequence[str]) -> list[str]:
    """The rarest of the shown outcomes that each user had, since it says most about them."""
    position = {user: row for row, user in enumerate(users)}
    labels = np.full(len(users), NONE, object)
    shown = [task for task in tasks if task.group != "B" and task.name in SHOWN]
    for task in sorted(shown, key=lambda task: -int(task.labels.sum())):
        rows = [position[user] for user in task.users[task.labels] if user in position]
        labels[rows] = task.name.lower()
    named: list[str] = labels.tolist()
    return named
