"""Who is held out of an audience, for an experiment: by a hash, so that it never changes.

A user's place in [0, 1) depends on the key and the id alone. So it is the same in every run,
raising the share only adds users, and audiences with one key hold out the same people.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

_SPAN = float(1 << 64)


def places(key: str, ids: Iterable[str]) -> npt.NDArray[np.float64]:
    """Each user's place in [0, 1), [n]: the first 64 bits of SHA-256 of ``key NUL id``."""
    head = hashlib.sha256(key.encode() + b"\0")
    found = []
    for user in ids:
        digest = head.copy()
        digest.update(user.encode())
        found.append(int.from_bytes(digest.digest()[:8], "big"))
    return np.array(found, dtype=np.float64) / _SPAN


def held_out(key: str, share: float, ids: Iterable[str]) -> npt.NDArray[np.bool_]:
    """Which of the users are held out, [n]: about ``share`` of them."""
    return places(key, ids) < share
