"""A baseline in the style of ARALLM (FOUND 5.1.2): sentence → structured rules → match of labels.

ARALLM has a large language model read the demand into rules over user labels; users are then
matched with the rules, and nothing is learnt about them. The labels here are "bought X", X any
subject of the catalogue, and the four behaviours. *Plain* reads a demand by the nearest subject
in the untuned language model and asks how often it was bought in the last 12 weeks. *Fine-tuned*
learns the reading from demand–answer pairs made of the catalogue (how a product type may be asked
for → its category), and for each label the window that fitted an earlier answer best.

The paper tunes models of 6 to 7 billion parameters; ours are MiniLM and a linear reader on top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import duckdb
import numpy as np
from sklearn.linear_model import RidgeClassifierCV

from encoders import templates
from ray_jobs import metrics
from ray_jobs.evaluation.counts import Counts
from ray_jobs.protocol import Protocol, Task

Encode = Callable[[Sequence[str]], np.ndarray]
PLAIN_DAYS: Final = 84
WINDOWS: Final = (28, 84, 182, 365)
BEHAVIOURS: Final = {
    "coupon": "redeems coupons",
    "lapse": "stays away and does not shop",
    "top spend": "spends a lot of money",
    "spend up": "spends more than before",
}
"""Labels beside the catalogue's, and how they are called."""

_GROUP = {"coupon": "C"}  # which count answers a label; categories are of group A
_ASKED_PER_CATEGORY = 8
_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)  # chosen by leave-one-out on the pairs themselves


@dataclass(frozen=True)
class Label:
    """A user label that a demand is read into."""

    name: str
    group: str
    days: int


class RuleReader:
    """Reads sentences into labels and scores users by how often the label applied.

    Args:
        names: of the labels, in the order of ``read``'s answers.
        read: sentences → scores of labels, [S, K].
        days: label → the window its rule looks at; 12 weeks where there is none.
    """

    def __init__(
        self,
        protocol: Protocol,
        names: Sequence[str],
        read: Callable[[Sequence[str]], np.ndarray],
        days: dict[str, int] | None = None,
    ):
        self._counts, self._names, self._read = Counts(protocol), names, read
        self._days = days or {}

    def label(self, sentence: str) -> Label:
        """The label the sentence is read into."""
        name = self._names[int(self._read([sentence])[0].argmax())]
        return Label(name, group_of(name), self._days.get(name, PLAIN_DAYS))

    def score(self, task: Task) -> np.ndarray:
        """How often the label applied to the task's users within the rule's window, [n].

        Ties are ordered as for every count, by overall recent activity: whoever asks for new buyers
        finds nothing but ties.
        """
        label = self.label(task.sentence or "")
        meant = replace(task, name=label.name, group=label.group)
        return self._counts.within(meant, label.days)


def group_of(name: str) -> str:
    """Which kind of count belongs to a label."""
    return _GROUP.get(name, "D" if name in BEHAVIOURS else "A")


def subjects(con: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """Every subject of the catalogue → the category (second level) it belongs to."""
    rows = con.sql(
        """SELECT DISTINCT coalesce(categories[2], categories[1]), categories[-1] FROM items
        WHERE len(categories) > 0 ORDER BY ALL"""
    ).fetchall()
    found: dict[str, str] = {category: category for category, _ in rows}
    for category, kind in rows:
        found.setdefault(kind, category)
    return found


def plain(protocol: Protocol, encode: Encode) -> RuleReader:
    """The reader that only knows what the language model knew before."""
    categories = sorted(set(subjects(protocol.con).values()))
    names = [*categories, *BEHAVIOURS]
    words = encode([BEHAVIOURS.get(name, name.lower()) for name in names])
    return RuleReader(protocol, names, lambda sentences: encode(sentences) @ words.T)


def fine_tuned(protocol: Protocol, earlier: Protocol, encode: Encode) -> RuleReader:
    """The reader tuned on demand–answer pairs; ``earlier``'s answers must be known by now."""
    asked, meant = pairs(subjects(protocol.con))
    names = sorted(set(meant))
    model = RidgeClassifierCV(_PENALTIES)
    model.fit(encode(asked), [names.index(name) for name in meant])
    days = best_windows(earlier)
    return RuleReader(protocol, names, lambda s: model.decision_function(encode(s)), days)


def pairs(found: dict[str, str]) -> tuple[list[str], list[str]]:
    """Demands and the label each one means: our wordings filled with each category's products."""
    products: dict[str, list[str]] = {}
    for subject, category in found.items():
        products.setdefault(category, [category]).append(subject)
    asked, meant = [], []
    for category, listed in products.items():
        said = list(dict.fromkeys(listed))
        for n in range(_ASKED_PER_CATEGORY):
            wording = 1 + n % (templates.num_wordings("purchase") - 1)
            subject = said[n % len(said)]
            asked.append(
                templates.sentence("purchase", [subject], horizon_days=28, wording=wording)
            )
            meant.append(category)
    for name, words in BEHAVIOURS.items():
        for form in ("who {}", "people who {}", "a household that {} next month", "{}"):
            asked.append(form.format(words))
            meant.append(name)
    return asked, meant


def best_windows(earlier: Protocol) -> dict[str, int]:
    """Label → the window that ranked the earlier answer best."""
    counts = Counts(earlier)
    chosen = {}
    for task in (*earlier.purchases(), earlier.coupon(), *earlier.behaviours()):
        quality = {
            days: metrics.auc(counts.within(task, days), task.labels) for days in WINDOWS
        }  # fmt: skip
        known = {days: value for days, value in quality.items() if not np.isnan(value)}
        if known:
            chosen[task.name] = max(known, key=lambda days: known[days])
    return chosen
