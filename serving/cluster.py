"""Ray and Ray Serve around the application, local or on the cluster of ``RAY_ADDRESS``.

The local Ray is ours alone: without dashboard, behind a token made for this run, in a temporary
directory that goes with it. Nothing about it is written to the home directory.
"""

from __future__ import annotations

import io
import json
import logging
import os
import secrets
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil  # type: ignore[import-untyped]

from feature_repo.errors import OpenFoundError

if TYPE_CHECKING:
    from ray.serve import Application

APP: Final = "openfound"
REQUEST_SECONDS: Final = 120.0
READY_SECONDS: Final = 60.0
_OBJECT_STORE_BYTES: Final = 80 * 2**20  # Ray's minimum is 75 MiB; nothing large goes through it
_LOGICAL_CPUS: Final = 4  # bookkeeping only: Serve's own actors find a place on any machine
_TEMPORARY: Final = Path("/tmp")
_POLL_SECONDS: Final = 0.1
_TIMEOUT: Final = 10.0

_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # `uv run` would install everything once more
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a warning about GPUs that are not asked for
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",  # the weights' progress bar, in the middle of our log
    "TRANSFORMERS_VERBOSITY": "error",
    # Serve's proxy asks a replica how long its queue is, and backs off if the answer takes longer:
    # with the default of 0.1 s a busy replica gets a quarter of the requests that it could do.
    "RAY_SERVE_QUEUE_LENGTH_RESPONSE_DEADLINE_S": "1",
    # A proxy that is not ready in time is killed and started anew: with 5 s, for ever if busy.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
    "GRPC_VERBOSITY": "NONE",  # a lost Milvus is reported by us, once
}
_LOCAL_ENVIRONMENT: Final = {
    # Ray would kill our replica when the rest of a laptop fills its memory.
    "RAY_memory_monitor_refresh_ms": "0",
    "RAY_AUTH_MODE": "token",
}

_LOGGING: Final = {"log_level": "WARNING", "enable_access_log": False}


class CannotServe(OpenFoundError):
    """Ray or Ray Serve did not come up."""


@contextmanager
def served(
    application: Application,
    *,
    host: str,
    port: int,
    replicas: int,
    listen: Callable[[], None],
) -> Iterator[str]:
    """Run the application in Ray Serve; yields its address, and takes it down at the end.

    ``listen`` is called when Ray is up, because it replaces the handlers of signals.
    """
    from ray import serve
    from ray.serve.config import HTTPOptions

    with ExitStack() as stack:
        stack.enter_context(_joined_ray() if joins() else _local_ray(replicas))
        listen()
        stack.callback(_take_down)
        logging.disable(logging.INFO)  # Serve greets at a level of its own choice
        serve.start(
            http_options=HTTPOptions(host=host, port=port, request_timeout_s=REQUEST_SECONDS),
            proxy_location="HeadOnly",
            logging_config=_LOGGING,
        )
        logging.disable(logging.NOTSET)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        try:
            serve.run(application, name=APP, route_prefix="/")
        except RuntimeError as error:
            raise CannotServe(f"the service did not start: {error}") from error
        address = f"http://{_reachable(host)}:{port}"
        _wait_for(address)
        yield address


def health(address: str) -> tuple[bool, str]:
    """Whether the service is ready, and the snapshot it serves or why there is none.

    Raises :class:`CannotServe` if nobody of ours answers there.
    """
    # Loopback must not go through the proxy of the environment.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{address}/healthz", timeout=_TIMEOUT) as answer:
            return True, str(json.load(answer)["snapshot"])
    except urllib.error.HTTPError as error:
        try:
            return False, str(json.load(error)["detail"])
        except (ValueError, KeyError, TypeError):
            raise CannotServe(f"{address} answers {error.code}, and is not ours") from error
    except (OSError, ValueError, KeyError) as error:
        raise CannotServe(f"nobody answers at {address} ({error})") from error


def _wait_for(address: str) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while True:
        try:
            health(address)
            return
        except CannotServe:
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL_SECONDS)


def joins() -> bool:
    """Whether the environment names a cluster to join."""
    return bool(os.environ.get("RAY_ADDRESS"))


def set_environment() -> None:
    """For Ray and all that it starts. To be called before anything imports ray.

    Ray reads its mode of authentication at import; changed later, it waits for its own GCS in vain.
    """
    wanted = dict(_ENVIRONMENT)
    if not joins():
        wanted |= _LOCAL_ENVIRONMENT
        if "RAY_AUTH_MODE" not in os.environ:
            wanted["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    for name, value in wanted.items():
        os.environ.setdefault(name, value)


@contextmanager
def _local_ray(replicas: int) -> Iterator[None]:
    import ray

    _sweep()
    # Short, because Ray puts sockets in it, whose paths may have 107 characters.
    directory = tempfile.mkdtemp(prefix=f"{APP}-{os.getpid()}-", dir=_TEMPORARY)
    try:
        ray.init(
            address="local",
            num_cpus=_LOGICAL_CPUS + replicas,
            num_gpus=0,
            include_dashboard=False,
            object_store_memory=_OBJECT_STORE_BYTES,
            logging_level=logging.ERROR,
            _temp_dir=directory,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


def _sweep() -> None:
    """Remove the directories of services that were killed before they could do it."""
    for directory in _TEMPORARY.glob(f"{APP}-*-*"):
        pid = directory.name.split("-")[1]
        ours = directory.stat().st_uid == os.getuid()
        if ours and pid.isdecimal() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _joined_ray() -> Iterator[None]:
    import ray

    try:
        ray.init(logging_level=logging.ERROR)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise CannotServe(f"RAY_ADDRESS={os.environ['RAY_ADDRESS']}: {error}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _take_down() -> None:
    from ray import serve

    try:
        # Ray reports through our streams that it kills the actors which we told it to kill.
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            if joins():  # other applications may be running there
                serve.delete(APP)
            else:
                serve.shutdown()
    except Exception:
        logging.getLogger(__name__).warning("Ray Serve did not shut down cleanly", exc_info=True)


def _reachable(host: str) -> str:
    """An address at which this machine reaches itself, in the notation of URLs."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{host}]" if ":" in host else host
