"""A small weekly world, a tiny language model and tiny configs for the encoders' tests."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import copy
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from encoders import templates, text
from encoders.alignment import AlignmentConfig
from encoders.assortment import AssortmentConfig, AssortmentCounts
from encoders.batch import Collate
from encoders.behaviour import BehaviourConfig
from encoders.catalogue import Catalogue, Subject
from encoders.checkpoint import CheckpointInfo
from encoders.history import History
from encoders.language_model import MINILM, load_language_model
from encoders.search import SearchConfig
from encoders.table import TableColumns
from encoders.tabular import TabularConfig
from encoders.text import TextConfig
from feature_repo import schema
from feature_repo.sources import complete_journey

START = datetime(2017, 1, 9, tzinfo=UTC)
LINE_WIDTH = 8
TEXTS = {
    "bills": ["apples", "bread", "cheese", "candles", "dog food"],
    "clicks": ["sale page", "apples", "store finder"],
    "mini_programs": [],
}
SEARCHES = ["red shoes", "cheap flights", "birthday cake with candles"]
FACTS = {
    "purchase": ["APPLES", "BREAD", "CHEESE"],
    "browsing": ["news page"],
    "search": ["red shoes"],
    "click": ["banner"],
    "channel": ["gift card"],
}


@pytest.fixture(autouse=True)
def one_thread_and_seed() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def line_vectors(texts: Sequence[str]) -> np.ndarray:
    """A vector per text that depends on nothing but the text."""
    rows = [np.random.default_rng(list(t.encode())).standard_normal(LINE_WIDTH) for t in texts]
    return np.stack(rows).astype(np.float32)


def micros(time: datetime) -> int:
    return int(time.timestamp()) * 1_000_000


def search_tokens(searched: str) -> list[int]:
    return [1_000 + ord(letter) for letter in searched.replace(" ", "")] + [102]


@dataclass(frozen=True)
class World:
    """Weekly views of a few users, as plain rows and as tables."""

    rows: list[dict[str, Any]]  # every column of every view
    weeks: int

    @property
    def users(self) -> list[str]:
        return sorted({row["user_id"] for row in self.rows})

    @property
    def end(self) -> datetime:
        return START + timedelta(weeks=self.weeks - 1)

    def table(self, view: str, rows: list[dict[str, Any]] | None = None) -> pa.Table:
        rows = self.rows if rows is None else rows
        if view == "profile":
            kinds = [("town", pa.string()), ("tier", pa.string()), ("spend", pa.float64())]
            base = list(schema.SEARCH_WEEKLY)[:3]
            columns = pa.schema([*base, *(pa.field(*kind) for kind in kinds)])
        elif view == "habits":  # of each source, its lines stand for subjects
            columns = schema.HABITS_WEEKLY
            of = {"bought": "bill", "clicked": "click", "browsed": "mini_program"}
            named = {name: f"{source}s" for name, source in of.items()}
            named |= {f"{name}_counts": f"{source}_counts" for name, source in of.items()}
            rows = [row | {name: row[held] for name, held in named.items()} for row in rows]
        else:
            columns = {"behaviour": schema.BEHAVIOUR_WEEKLY, "search": schema.SEARCH_WEEKLY}[view]
        return pa.table({n: [row[n] for row in rows] for n in columns.names}, schema=columns)

    def history(self, rows: list[dict[str, Any]] | None = None) -> History:
        views = (self.table(view, rows) for view in ("behaviour", "profile", "search"))
        return History(*views, line_vectors, self.table("habits", rows))

    def columns(self) -> TableColumns:
        return TableColumns.fit(self.table("profile"))

    def collate(
        self, *, windows: int = 4, rows: list[dict[str, Any]] | None = None, max_tokens: int = 12
    ) -> Collate:
        history = self.history(rows)
        terms = tuple(AssortmentCounts(history.terms()).terms)
        return Collate(
            history,
            windows=windows,
            table=self.columns(),
            search_tokens=search_tokens,
            max_tokens=max_tokens,
            line_tokens=search_tokens,
            window_tokens=max_tokens,
            habit_windows=windows,
            assortment=AssortmentConfig(windows=windows, terms=terms),
        )


def _lists(rng: np.random.Generator, texts: list[str], chance: float) -> tuple[list, list]:
    kept = [t for t in sorted(texts) if rng.random() < chance]
    return kept, [float(rng.integers(1, 5)) for _ in kept]


def build_world(*, num_users: int = 7, weeks: int = 6, seed: int = 0) -> World:
    """Users who became known in different weeks, with empty weeks and missing profile values."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(num_users):
        searches = number % 2 == 0
        for week in range(number % weeks, weeks):
            row: dict[str, Any] = {
                "user_id": f"u{number}",
                "event_timestamp": START + timedelta(weeks=week),
                "created": START + timedelta(weeks=weeks),
                "num_events": 0,
                "amount": 0.0,
                "town": rng.choice(["Ulm", "Bern", "Graz", None], p=[0.5, 0.2, 0.1, 0.2]),
                "tier": rng.choice(["high", "low"]),
                "spend": None if rng.random() < 0.3 else float(rng.gamma(1.0, 50.0) - 20),
            }
            empty = rng.random() < 0.25
            for name, texts in TEXTS.items():
                kept, counts = _lists(rng, texts, 0.0 if empty else 0.5)
                row[name], row[f"{name[:-1]}_counts"] = kept, counts
            row["searches"], row["search_counts"] = _lists(rng, SEARCHES, 0.4 * searches)
            rows.append(row)
    return World(rows, weeks)


@pytest.fixture(scope="session")
def world() -> World:
    return build_world()


@pytest.fixture(scope="session")
def make_world() -> Callable[..., World]:
    return build_world


def build_facts(users: Sequence[str], cutoff: datetime, *, seed: int = 0) -> list[dict[str, Any]]:
    """Random facts of these users after ``cutoff``; the second user does nothing at all."""
    rng = np.random.default_rng(seed)
    rows = []
    for number, user in enumerate(users):
        for kind, subjects in FACTS.items():
            for subject in subjects:
                if number != 1 and rng.random() < 0.5:
                    count = float(rng.integers(1, 12))
                    amount = round(float(rng.gamma(1.0, 40.0)), 2)
                    rows.append(
                        {
                            "user_id": user, "cutoff": cutoff, "kind": kind, "subject": subject,
                            "level": 1, "count": count,
                            "amount": None if kind == "search" else amount,
                        }
                    )  # fmt: skip
    return rows


@pytest.fixture(scope="session")
def make_facts() -> Callable[..., list[dict[str, Any]]]:
    return build_facts


@pytest.fixture(scope="session")
def facts_table() -> Callable[[list[dict[str, Any]]], pa.Table]:
    return lambda rows: pa.Table.from_pylist(rows, schema=schema.FACTS)


def fits_sentence(sentence: str, facts: list[dict[str, Any]]) -> bool:
    """Whether one user's facts make ``sentence`` true, read from its words alone."""
    if re.search("nothing|not shop at all|stay away", sentence):
        return not any(fact["kind"] == "purchase" for fact in facts)
    [(kind, subject)] = [
        (k, s) for k, subjects in FACTS.items() for s in subjects if s.lower() in sentence
    ]
    named = re.search(r"more than ([\d,]+)", sentence)
    least = float(named[1].replace(",", "")) if named else 0.0
    for fact in facts:
        if (fact["kind"], fact["subject"]) == (kind, subject):
            size = fact["count"] if templates.is_counted(kind) else fact["amount"]
            return size > least or least == 0
    return False


@pytest.fixture(scope="session")
def fits() -> Callable[[str, list[dict[str, Any]]], bool]:
    return fits_sentence


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Directory of a random one-layer BERT that spells words letter by letter."""
    from transformers import BertConfig, BertModel, BertTokenizer

    directory = tmp_path_factory.mktemp("models") / "bert"
    letters = string.ascii_lowercase + string.digits + ".,-"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{c}" for c in letters)]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(pieces)})
    tokenizer.save_pretrained(directory)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    sizes |= {"vocab_size": len(pieces), "intermediate_size": 16}
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(initializer_range=0.5, **sizes, **still)
    BertModel(config).save_pretrained(directory)
    return str(directory)


@pytest.fixture(scope="session")
def tiny_config(tiny_bert: str, world: World) -> Callable[..., AlignmentConfig]:
    """AlignmentConfig with all three modalities of ``world``; keyword arguments override."""

    def config(**changes: Any) -> AlignmentConfig:
        columns = world.columns()
        return AlignmentConfig(
            **{
                "behaviour": BehaviourConfig(
                    line_width=LINE_WIDTH, dim=8, line_hidden=8, temporal_dim=8, layers=1,
                    heads=2, windows=4, pretrain_windows=4, forecast_windows=1,
                ),
                "tabular": TabularConfig(
                    columns.vocabularies, columns.scales, dim=8, out_dim=12, blocks=1, heads=2
                ),
                "search": SearchConfig(
                    vocabulary=1_200, dim=8, out_dim=8, layers=1, heads=2, max_tokens=12,
                    generator_dim=8,
                ),
                "text": TextConfig(model=tiny_bert, dim=6, hidden=8, lora_rank=2, max_tokens=40),
                "windows": 4, "fusion_dim": 8, "fusion_layers": 1, "fusion_heads": 2, **changes,
            }
        )  # fmt: skip

    return config


@pytest.fixture(scope="session")
def minilm() -> tuple[Any, Any]:
    """MiniLM's tokenizer and model, loaded once per session; never train this copy."""
    return load_language_model(MINILM)


@pytest.fixture
def shared_minilm(minilm: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the code under test load MiniLM from memory, each time a fresh copy."""
    tokenizer, model = minilm
    load = text.load_language_model
    monkeypatch.setattr(
        text,
        "load_language_model",
        lambda name: (tokenizer, copy.deepcopy(model)) if name == MINILM else load(name),
    )


@pytest.fixture(scope="session")
def info_of() -> Callable[[str, Any], CheckpointInfo]:
    """The description that a model of this name and config would be saved with."""
    return lambda name, config: CheckpointInfo(
        name, asdict(config), trained_as_of="2017-06-05", horizon_days=28, feature_hash="abc",
        seed=3, version="0.1.0", metrics={"loss": 0.123456789012345},
    )  # fmt: skip


@pytest.fixture(scope="session")
def jolt() -> Callable[[torch.nn.Module], None]:
    """As if a model had been trained: every trainable weight moves, LoRA's zeros too."""

    def move(model: torch.nn.Module) -> None:
        generator = torch.Generator().manual_seed(11)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.3 * torch.randn(parameter.shape, generator=generator)

    return move


@pytest.fixture(scope="session")
def micros_of() -> Callable[[datetime], int]:
    return micros


@pytest.fixture(scope="session")
def vector_of() -> Callable[[Sequence[str]], np.ndarray]:
    return line_vectors


@pytest.fixture(scope="session")
def tokens_of() -> Callable[[str], list[int]]:
    return search_tokens


@pytest.fixture(scope="session")
def receipts_catalogue() -> Catalogue:
    """Departments and categories of Complete Journey, counted by products."""
    table = pq.read_table(
        complete_journey.data_folder() / "products.parquet",
        columns=["department", "product_category"],
    )
    rows = list(zip(*(table[name].to_pylist() for name in table.column_names), strict=True))
    tops = Counter(department for department, _ in rows if department)
    finer = Counter((department, name) for department, name in rows if department and name)
    subjects = {n: Subject("purchase", n, 2, d, count) for (d, n), count in finer.items()}
    subjects |= {n: Subject("purchase", n, 1, "", count) for n, count in tops.items()}
    return Catalogue.of(subjects.values())
