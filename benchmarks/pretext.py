"""ShopperBERT's nine losses against the prior and against copying the nearest token.

    python benchmarks/pretext.py --workspace DIR --checkpoint DIR [--date 2017-10-09] --out DIR

At the date the weights were trained as of (default), or at a later one, where most of what is
hidden was bought after training. Writes ``pretext.json`` and ``pretext.md``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from encoders import checkpoint
from encoders.purchases import PurchaseCollate, PurchaseHistory
from encoders.text import LineEncoder
from feature_repo import durable
from feature_repo.manifest import check_space_dates
from feature_repo.purchases import purchases_weekly
from feature_repo.settings import Workspace
from feature_repo.transforms import open_tables
from ray_jobs.build_features import read_dataset
from ray_jobs.command import parse_date
from ray_jobs.evaluation.masked_purchases import markdown, scores, seen_counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--date", type=parse_date)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    model, info = checkpoint.load(given.checkpoint, expect="shopper_bert")
    trained = parse_date(info.trained_as_of)
    date = given.date or trained
    check_space_dates(trained, [date])
    workspace = Workspace(given.workspace)
    known = model.config.vocabularies
    counts = seen_counts(PurchaseCollate(history(workspace, trained), known), known)
    collate = PurchaseCollate(history(workspace, date), known)
    users = collate.history.user_ids
    found = {
        title: scores(model, collate, users, whole_visits=whole, counts=counts)
        for title, whole in (("single tokens hidden", False), ("whole baskets hidden", True))
    }
    given.out.mkdir(parents=True, exist_ok=True)
    result = {title: [asdict(row) for row in rows] for title, rows in found.items()}
    durable.write(given.out / "pretext.json", json.dumps(result, indent=2).encode())
    durable.write(given.out / "pretext.md", markdown(found).encode())
    print(markdown(found))


def history(workspace: Workspace, date: datetime) -> PurchaseHistory:
    """All purchases known before ``date``."""
    con = open_tables(workspace.root / read_dataset(workspace).tables)
    weekly = purchases_weekly(con, date)
    con.close()
    return PurchaseHistory(weekly, LineEncoder(workspace.cache))


if __name__ == "__main__":
    main()
