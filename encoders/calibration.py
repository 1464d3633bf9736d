"""Calibrated probabilities: scores of a demand → how likely each user does it within the horizon.

Learnt from what happened after earlier cut-offs, scored by weights trained before each, over many
behaviours (:mod:`encoders.calibration_fit`), and applied to others. Two things transfer:

- *how many* will do it: the share of users who did in the last window, drawn a little towards the
  windows before. A score cannot tell this; the past can.
- *how much a score tells*: one unit of score is worth g log-odds, where g depends on how widely
  the scores of this demand are spread, on how common the behaviour is, and on how loyal people are
  to it (log-odds ratio of doing it in one window and in the next). Few past buyers say little about
  it: then g is drawn towards 0, to stating the rate alone.

    logit p_u = g · s_u + c,   c: mean p = the rate,
    g = exp(θ·(1, log sd(s), logit rate, loyalty)) / (1 + (CAUTION / buyers)²)

The order of users is kept. A sum of probabilities is off because people are free (binomial),
because rates are (season, chance: the *spread*), and because a score tells more or less than
expected (the *tilt*), the more so the farther the audience stands above everybody.

    calibration = Calibration.from_json(path.read_bytes())
    likely = calibration.probabilities(scores, PastBuyers(users=2_439, last=212, before=230))
    if likely.grounded:
        likely.p_N; likely.buyers(rows)          # expected, and both ends of the 80 % interval
    else:
        likely.note                              # why it abstains

Inner products of different checkpoints meet here as log-odds: each is multiplied by the scale of
its own (:attr:`encoders.query.QueryEncoder.scale`).
Shapes: N users, S behaviours.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit

Floats = npt.NDArray[np.floating]
FILE = "calibration.json"
LEAST_BUYERS = 20
"""In the last window; fewer say too little about the rate."""
CAUTION = 20.0
"""Past buyers at which a score is believed by half."""
MAX_SAMPLE = 20_000  # users that the rate is matched on
COVERAGE = 0.8
_Z = 1.2815515655446004  # of a normal's middle 80 %
_TYPICAL = (math.log(1.3), -2.5, 2.0)  # log sd, logit rate and loyalty that θ is centred at


@dataclass(frozen=True)
class PastBuyers:
    """How many of ``users`` did it in the last window, and in the two before on average.

    ``previous`` of them did it in the window before the last, and ``again`` of those in both.
    """

    users: int
    last: float
    before: float | None = None
    previous: float | None = None
    again: float | None = None

    @property
    def loyalty(self) -> float:
        """Log-odds ratio of doing it in the last window, of who did it before to who did not."""
        if self.previous is None or self.again is None:
            return _TYPICAL[2]
        only, others = self.last - self.again, self.users - self.previous
        kept = math.log((self.again + 0.5) / (self.previous - self.again + 0.5))
        return kept - math.log((only + 0.5) / (others - only + 0.5))


@dataclass(frozen=True)
class Probabilities:
    """One demand, calibrated. ``p_N`` is empty where there is no ground; then ``note`` says why."""

    p_N: npt.NDArray[np.float64]
    spread: float = 0.0  # standard deviation of the rate's log-odds
    tilt: float = 0.0  # the same of a user's who stands one deviation above everybody
    note: str | None = None

    @property
    def grounded(self) -> bool:
        """Whether there is anything to state."""
        return len(self.p_N) > 0

    @cached_property
    def _everybody(self) -> tuple[float, float]:
        """Mean and standard deviation of all users' log-odds."""
        z = logit(np.clip(self.p_N, 1e-9, 1 - 1e-9))
        return float(z.mean()), max(float(z.std()), 1e-9)

    def buyers(self, rows: npt.NDArray[np.integer]) -> tuple[float, float, float]:
        """How many of these users will do it: expected, and both ends of the 80 % interval."""
        p = self.p_N[rows]
        expected, own = float(p.sum()), float((p * (1 - p)).sum())
        z = logit(np.clip(p, 1e-9, 1 - 1e-9))
        centre, deviation = self._everybody
        height = abs(float(z.mean()) - centre) / deviation if len(z) else 0.0
        apart = math.hypot(self.spread, self.tilt * height)
        less, more = (float(expit(z + sign * _Z * apart).sum()) for sign in (-1, 1))
        low = expected - math.hypot(expected - less, _Z * math.sqrt(own))
        high = expected + math.hypot(more - expected, _Z * math.sqrt(own))
        return expected, max(0.0, low), min(float(len(p)), high)


@dataclass(frozen=True)
class Calibration:
    """What was learnt; published with a snapshot as ``calibration.json``."""

    horizon_days: int
    rate: tuple[float, float, float]
    gain: tuple[float, ...]  # θ
    spread: float
    tilt: float
    lowest: float  # rates outside of what was seen are not spoken of
    highest: float
    cutoffs: tuple[str, ...]
    num_behaviours: int
    scale: float = 1.0  # of the checkpoint whose scores are calibrated

    @classmethod
    def from_json(cls, content: bytes) -> Calibration:
        """What :meth:`to_json` wrote. Raises ValueError, KeyError or TypeError when damaged."""
        given = json.loads(content)
        given["gain"] = [*given["gain"], *[0.0] * (4 - len(given["gain"]))]  # 3 before loyalty
        for name, length in (("rate", 3), ("gain", 4)):
            numbers = tuple(float(each) for each in given[name])
            if len(numbers) != length or not all(map(math.isfinite, numbers)):
                raise ValueError(f"{name}: expected {length} numbers, got {given[name]}")
            given[name] = numbers
        found = cls(**{**given, "cutoffs": tuple(given["cutoffs"])})
        errors = found.scale > 0 and 0 <= found.spread < 10 and 0 <= found.tilt < 10
        if not (errors and 0 <= found.lowest <= found.highest <= 1):
            raise ValueError("scale, spread, tilt, lowest, highest: out of range")
        return found

    def to_json(self) -> bytes:
        """The same calibration gives the same bytes."""
        return (json.dumps(asdict(self), indent=2) + "\n").encode()

    def probabilities(self, scores_N: Floats, past: PastBuyers | None) -> Probabilities:
        """How likely each user does it.

        Args:
            scores_N: of all users, inner products as they are served.
            past: of the behaviour that is asked for; None if the demand names none that is known.
        """
        if (why := self._no_ground(scores_N, past)) is not None:
            return Probabilities(np.zeros(0), note=why)
        assert past is not None
        rate = self.expected_rate(past)
        scores = self.scale * np.asarray(scores_N, np.float64)
        slope = float(_gain(self.gain, scores[:, None], np.array([rate]), (past,))[0])
        slope /= 1 + (CAUTION / past.last) ** 2
        sample = scores[:: max(1, len(scores) // MAX_SAMPLE)]
        shift = matching(slope * sample[:, None], np.array([rate]))[0]
        spread = math.hypot(self.spread, past.last**-0.5)
        return Probabilities(expit(slope * scores + shift), spread, self.tilt)

    def expected_rate(self, past: PastBuyers) -> float:
        """The share of users who will do it within the horizon."""
        return float(expit(rate_columns((past,)) @ np.array(self.rate))[0])

    def _no_ground(self, scores_N: Floats, past: PastBuyers | None) -> str | None:
        if past is None:
            return "No probability is stated: the sentence names no behaviour with a known past."
        if past.last < LEAST_BUYERS:
            return (f"No probability is stated: only {past.last:.0f} users did this in the last "
                    f"{self.horizon_days} days, {LEAST_BUYERS} are needed.")  # fmt: skip
        share = past.last / past.users
        if not self.lowest / 2 <= share <= min(0.98, self.highest * 1.5):
            return (f"No probability is stated: {share:.1%} of the users did this lately, and the "
                    f"calibration has seen {self.lowest:.1%} to {self.highest:.1%}.")  # fmt: skip
        if len(scores_N) < LEAST_BUYERS or float(np.std(scores_N)) < 1e-9:
            return "No probability is stated: the sentence does not tell the users apart."
        return None


# --- how many


def shares(past: Sequence[PastBuyers]) -> Floats:
    """Of the users who did it in the last window. [S]"""
    return np.array([each.last / each.users for each in past])


def log_odds(count: Floats, users: Floats) -> Floats:
    """Of a count among users, never infinite."""
    return np.log((count + 0.5) / (users - count + 0.5))


def rate_columns(past: Sequence[PastBuyers]) -> Floats:
    """One; log-odds of the last window; how far those before lay from it. [S, 3]"""
    users, last = (np.array([getattr(p, name) for p in past], float) for name in ("users", "last"))
    before = np.array([p.last if p.before is None else (p.last + 2 * p.before) / 3 for p in past])
    recent = log_odds(last, users)
    return np.stack([np.ones(len(past)), recent, log_odds(before, users) - recent], 1)


# --- how much a score tells


def gain_columns(scores_NS: Floats, rate_S: Floats, past: Sequence[PastBuyers]) -> Floats:
    """What the gain depends on: 1, log spread of scores, log-odds of the rate, loyalty. [S, 4]"""
    spread = np.log(np.maximum(scores_NS.std(0), 1e-9)) - _TYPICAL[0]
    loyalty = np.array([each.loyalty for each in past]) - _TYPICAL[2]
    return np.stack([np.ones(len(rate_S)), spread, logit(rate_S) - _TYPICAL[1], loyalty], 1)


def _gain(
    theta: Sequence[float], scores_NS: Floats, rate_S: Floats, past: Sequence[PastBuyers]
) -> Floats:
    log_gain = gain_columns(scores_NS, rate_S, past) @ np.array(theta)
    return np.asarray(np.exp(np.clip(log_gain, -1.4, 1.4)))


def matching(logits_NS: Floats, rate_S: Floats) -> Floats:
    """What to add so that the mean probability is the rate, by bisection. [S]"""
    low = logit(rate_S) - logits_NS.max(0)
    high = logit(rate_S) - logits_NS.min(0)
    for _ in range(32):
        middle = (low + high) / 2
        above = expit(logits_NS + middle).mean(0) > rate_S
        low, high = np.where(above, low, middle), np.where(above, middle, high)
    return np.asarray((low + high) / 2)
