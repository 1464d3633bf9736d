"""Sentences to begin with, made of what the live snapshot's own users do."""

from __future__ import annotations

from typing import Final

import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_repo.settings import Workspace
from serving.live import Opened

_VERBS: Final = {"bought": "buy", "clicked": "click on", "browsed": "browse"}
_SHARES: Final = (0.4, 0.25, 0.12)
"""Something many did, something some did, something few did."""


def examples(opened: Opened, workspace: Workspace) -> list[str]:
    """Up to four sentences about subjects of the facts; none if the snapshot carries none."""
    facts = opened.manifest.facts
    if facts is None:
        return []
    path = workspace.root / facts.subjects.path
    table = pq.read_table(path, columns=["verb", "name", "num_users"])
    verb = next((v for v in _VERBS if v in table["verb"].to_pylist()), None)
    if verb is None:
        return []
    table = table.filter(pc.and_(pc.equal(table["verb"], verb), pc.not_equal(table["name"], "")))
    # Names that people would say: one word, or if there are too few, two.
    for words in (r"^[A-Za-z]+$", r"^[A-Za-z]+( [A-Za-z]+)?$"):
        spoken = table.filter(pc.match_substring_regex(table["name"], words))
        if len(spoken) >= len(_SHARES):
            break
    table = spoken
    picked: list[str] = []
    for share in _SHARES:
        near = pc.abs(pc.subtract(table["num_users"], share * opened.manifest.num_users))
        for place_of in pc.array_sort_indices(near.combine_chunks()).to_pylist():
            name = table["name"][place_of].as_py().lower()
            if not any(word in other for other in picked for word in name.split()):
                picked.append(name)
                break
    said = _VERBS[verb]
    sentences = [f"will {said} {name} next month" for name in picked]
    if picked:
        sentences.append(f"will {said} {picked[0]}, not {verb} in the last 30 days")
    return sentences
