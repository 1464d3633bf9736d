"""The workspace's own Milvus: a Milvus Lite server on loopback, found by its address file.

One process may own Lite's data directory, and the lock outlives its clients' ``close()``; so it
runs as a child that jobs and serving share. Whoever comes first starts and stops it:

    with milvus(workspace) as uri:      # OPENFOUND_MILVUS_URI, a running server, or a child
        Vectors(uri)

The child asks the system for a free port, writes ``milvus/address`` once it answers, logs to
``milvus/server.log``, listens on 127.0.0.1 only (Lite has no authentication), and ends with its
parent even if that is killed with -9. Run as ``python -m feature_repo.milvus_server DIRECTORY``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from feature_repo import durable
from feature_repo.errors import VectorsUnavailable
from feature_repo.settings import MILVUS_VARIABLE, Workspace, milvus_uri

START_SECONDS: Final = 60.0
STOP_SECONDS: Final = 10.0
LOCK_SECONDS: Final = 3.0
_PROBE_SECONDS: Final = 1.0
_POLL_SECONDS: Final = 0.1
_HOST: Final = "127.0.0.1"


@contextmanager
def milvus(workspace: Workspace) -> Iterator[str]:
    """URI of a Milvus that answers; what was started here is stopped here.

    Raises :class:`VectorsUnavailable` if the named server does not answer, or ours cannot start.
    """
    if given := milvus_uri():
        if not answers(given):
            raise VectorsUnavailable(f"{MILVUS_VARIABLE}: nothing answers at {given}")
        yield given
        return
    child = None
    try:
        # Held only until the server answers: a second process then finds its address.
        with durable.locked(workspace.milvus / ".starting"):
            uri = _running(workspace.milvus)
            if uri is None:
                child = _spawn(workspace.milvus)
                uri = _wait(child, workspace.milvus)
        yield uri
    finally:
        if child is not None:
            _stop(child)


def answers(uri: str) -> bool:
    """Whether anything accepts connections there."""
    parts = urlsplit(uri)
    try:
        address = (parts.hostname or uri, parts.port or 19530)
        with socket.create_connection(address, timeout=_PROBE_SECONDS):
            return True
    except OSError:
        return False


def _running(home: Path) -> str | None:
    """URI in the address file, if the server that wrote it lives on and answers.

    The port alone proves nothing: the system may have given it to another workspace's server.
    """
    try:
        address = json.loads((home / "address").read_bytes())
        uri, pid, owner = str(address["uri"]), int(address["pid"]), int(address["owner"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return uri if _serves(home, pid, owner) and answers(uri) else None


def _serves(home: Path, pid: int, owner: int) -> bool:
    """Whether ``pid`` is this directory's server and not about to end: its owner must live."""
    process = Path(f"/proc/{pid}")
    if not process.parent.is_dir():  # no /proc on this system: the answer must do
        return True
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        status = (process / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return str(home).encode() in words and f"\nPPid:\t{owner}\n" in status


def _spawn(home: Path) -> subprocess.Popen[bytes]:
    home.mkdir(parents=True, exist_ok=True)
    (home / "address").unlink(missing_ok=True)
    package = Path(__file__).resolve().parent
    paths = [str(package.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    # -P: the child must not import from the directory it happens to be started in.
    command = [sys.executable, "-P", "-m", f"{package.name}.milvus_server", str(home)]
    with (home / "server.log").open("ab") as log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,  # Ctrl-C is for us: we stop the child when we have finished
        )


def _wait(child: subprocess.Popen[bytes], home: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if child.poll() is not None:
            raise VectorsUnavailable(
                f"Milvus Lite ended with code {child.returncode}: {_last_line(home)}; "
                f"see {home / 'server.log'}"
            )
        if uri := _running(home):
            return uri
        time.sleep(_POLL_SECONDS)
    raise VectorsUnavailable(
        f"Milvus Lite did not answer within {START_SECONDS:.0f} s; see {home / 'server.log'}"
    )


def _stop(child: subprocess.Popen[bytes]) -> None:
    """The child removes its address itself; what a killed one leaves is not believed."""
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _last_line(home: Path) -> str:
    lines = (home / "server.log").read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"


# --- the child


def _end_with(parent: int) -> None:
    """Leave at once when the parent is gone: the lock on the data directory goes with us.

    Watched rather than left to PR_SET_PDEATHSIG, which fires as soon as the *thread* that started
    us ends. Lite hands every write to the system as it is made, so nothing is lost.
    """
    while os.getppid() == parent:
        time.sleep(_POLL_SECONDS)
    os._exit(1)


def _open(home: Path) -> tuple[Any, Any, int]:
    """Lite's server, its database and its port. The server of a killed owner may take a moment
    to free the data, so the lock is waited for."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread
    from milvus_lite.exceptions import DataDirLockedError

    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            server, database, port = start_server_in_thread(str(home / "data"), host=_HOST, port=0)
            return server, database, port
        except DataDirLockedError as error:
            if time.monotonic() > deadline:
                sys.exit(
                    f"another process holds {home / 'data'} without an address file that answers "
                    f"({error}); end that process, or set {MILVUS_VARIABLE} to its address"
                )
            time.sleep(_POLL_SECONDS)


def serve(home: Path) -> None:
    """Own ``home/data`` and answer on a free loopback port until SIGTERM."""
    ended, owner = threading.Event(), os.getppid()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    threading.Thread(target=_end_with, args=(owner,), daemon=True).start()
    server, database, port = _open(home)
    address = {"uri": f"http://{_HOST}:{port}", "pid": os.getpid(), "owner": owner}
    durable.write(home / "address", json.dumps(address).encode())
    ended.wait()
    server.stop(grace=1).wait()
    with suppress(FileNotFoundError):
        (home / "address").unlink()
    database.close()


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
