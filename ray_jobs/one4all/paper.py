"""One4all's own figures (2021), quoted beside ours: other data, other tasks.

Their HR@10 is no standard hit ratio of one positive among others: an MRR of .69 (Table 4, product
collections) means that at least .66 of the positives stand in the first ten places, and their HR@10
says .14. It fits a tenth of the number of hits. So neither HR nor MRR is comparable with ours.
"""

from __future__ import annotations

from typing import Final

NOTE: Final = "paper, other data (NAVER shopping, not public)"

TASKS: Final = {
    "gender classification, AUROC": ("0.942 / 0.943 / 0.945 / 0.948", "0.967", "0.967", "–"),
    "membership targeting, AUROC": ("0.674 / 0.677 / 0.625 / 0.629", "0.641", "0.686", "–"),
    "live commerce targeting, AUROC": ("0.702 / 0.704 / 0.655 / 0.660", "0.665", "0.707", "–"),
    "product collections, NDCG@10": ("0.784 / 0.783 / 0.783 / 0.784", "0.780", "0.786", "0.764"),
    "marketing messages, NDCG@10": ("0.583 / 0.587 / 0.592 / 0.594", "0.496", "0.558", "0.495"),
    "search queries, NDCG@10": ("0.283 / 0.284 / 0.286 / 0.287", "0.277", "0.281", "0.283"),
}
"""Table 4: U-MLP of four pre-trainings, P-Trans, UP-Trans, T-Trans."""

TUNING: Final = {
    "membership targeting": ("0.678 / 0.643 / 0.630", "0.677 / 0.647 / 0.628"),
    "live commerce targeting": ("0.707 / 0.653 / 0.650", "0.704 / 0.656 / 0.648"),
}
"""Table 5: fine-tuning and U-MLP, AUROC / F1 / accuracy."""

EXTREMES: Final = {
    "product collections, cold": ("0.728", "0.755"),
    "product collections, heavy": ("0.881", "0.888"),
    "marketing messages, cold": ("0.413", "0.520"),
    "marketing messages, heavy": ("0.764", "0.830"),
    "search queries, cold": ("0.242", "0.245"),
    "search queries, heavy": ("0.466", "0.465"),
}
"""Table 6: T-Trans and U-MLP, NDCG@10."""

COST: Final = {
    "fine-tuned": ("1×", "79.2 M", "20 G"),
    "P-Trans": ("21×", "1.4 M", "20 G"),
    "U-MLP": ("2458×", "0.5 M", "2 G"),
}
"""Table 3: inference speed-up, parameters, size of the data; a P40 GPU, 12.7 M users."""

HISTORY: Final = (
    "Figure 3 (no figures printed): every task improves from one month to two years; below six "
    "months U-MLP does not reach T-Trans."
)
