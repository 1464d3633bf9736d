"""What tests of several packages share: a tiny causal language model, real PostgreSQL and Redis."""

import os
import shutil
import socket
import string
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


def free_port() -> int:
    """One that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def program(name: str, *places: str) -> str:
    """Where a program is, on the path or in Debian's ``places``; skips the test if nowhere."""
    found = [str(one) for place in places for one in sorted(Path("/").glob(place))]
    if not (chosen := shutil.which(name) or next(reversed(found), None)):
        pytest.skip(f"no {name} is installed; .ci/run installs it")
    return chosen


class Postgres:
    """A throw-away PostgreSQL: its owner is not root, its clock far from UTC, its disk not synced.

    Deadlocks are found after 20 ms, so that a test of them takes no second each.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self._ctl = program("pg_ctl", "usr/lib/postgresql/*/bin/pg_ctl")
        self._home = Path(tempfile.mkdtemp(prefix="openfound-postgres-"))
        self._as = {"user": "postgres", "group": "postgres"} if os.getuid() == 0 else {}
        if self._as:
            shutil.chown(self._home, **self._as)
        (self._home / "password").write_text("secret")
        (self._home / "password").chmod(0o644)  # within a directory of mode 0700

    def start(self) -> None:
        """Make a cluster and start its server."""
        made = f"--no-sync -U openfound --auth=scram-sha-256 --pwfile={self._home / 'password'}"
        self._run("initdb", "-o", f"{made} -E UTF8 --locale=C")
        told = {
            "timezone": "Asia/Kathmandu",
            "deadlock_timeout": "20ms",
            "listen_addresses": "127.0.0.1",
        }
        said = " ".join(f"-c {name}={value}" for name, value in told.items())
        server = f"-F -p {self.port} -k {self._home} {said}"
        self._run("start", "-w", "-l", str(self._home / "log"), "-o", server)

    def stop(self) -> None:
        """End the server and forget what it kept."""
        self._run("stop", "-w", "-m", "immediate")
        shutil.rmtree(self._home)

    def url(self, schema: str = "public") -> str:
        """Its address, with ``schema`` as the place of all tables."""
        return (
            f"postgresql+psycopg://openfound:secret@127.0.0.1:{self.port}/postgres"
            f"?options=-csearch_path%3D{schema}"
        )

    def _run(self, *command: str) -> None:
        subprocess.run(
            [self._ctl, "-s", "-D", str(self._home / "data"), *command],
            cwd=self._home, stdout=subprocess.DEVNULL, check=True, timeout=120, **self._as,
        )  # fmt: skip


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for all tests; each should have a schema of its own."""
    server = Postgres()
    server.start()
    yield server
    server.stop()


class Redis:
    """A throw-away Redis, which may be ended, stopped for a while and started again."""

    def __init__(self, home: Path) -> None:
        self.port, self._home = free_port(), home
        self._command = [program("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1"]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        """Start it, and wait until it listens."""
        quiet = ["--save", "", "--dir", str(self._home), "--logfile", str(self._home / "log")]
        self.process = subprocess.Popen([*self._command, *quiet])
        deadline = time.monotonic() + 20
        while socket.socket().connect_ex(("127.0.0.1", self.port)) != 0:
            assert self.process.poll() is None and time.monotonic() < deadline, "no Redis"
            time.sleep(0.02)

    def stop(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """A Redis for one test."""
    server = Redis(tmp_path)
    yield server
    server.stop()


@pytest.fixture(scope="session")
def spell() -> Callable[..., int]:
    """Saves a tokenizer that reads letter by letter in a directory; returns how many signs."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = ["<unk>", "<end>", *string.ascii_letters, *string.digits, *" .,:;?&%/-\n"]

    def save(directory: Path, **special: str) -> int:
        known = models.WordLevel({s: i for i, s in enumerate(signs)}, unk_token="<unk>")
        spelling = Tokenizer(known)
        spelling.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
        spelling.decoder = decoders.Fuse()
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=spelling, unk_token="<unk>", **special)
        tokenizer.save_pretrained(directory)
        return len(signs)

    return save


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory, spell: Callable[..., int]) -> str:
    """Directory of a random two-layer Llama that reads and writes letter by letter."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    directory = tmp_path_factory.mktemp("models") / "llama"
    num_signs = spell(directory, eos_token="<end>", pad_token="<end>")
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    config = LlamaConfig(
        vocab_size=num_signs, **sizes, **heads, eos_token_id=1, pad_token_id=1, bos_token_id=None
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    return str(directory)
