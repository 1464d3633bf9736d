"""Run the service: Milvus where needed, Ray Serve, until told to stop.

    OPENFOUND_API_KEYS=$(openssl rand -hex 32) python -m serving.app --workspace DIR --port 8000

Ready when ``/healthz`` answers 200; SIGTERM or Ctrl-C ends it, and everything that it started,
within 20 seconds. With ``RAY_ADDRESS`` it is deployed to that cluster instead of a local one.
``serve deploy`` uses ``serving.app:build``, with the fields of :class:`Deploy` as ``args``.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

import psutil  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, Field

from encoders.endpoint import EndpointSettings, EndpointSettingsMissing
from encoders.rewriting import CHOICES, DEFAULT, Choice
from feature_repo.errors import InputError, OpenFoundError, VectorsUnavailable
from feature_repo.milvus_server import milvus
from feature_repo.settings import (
    DEFAULT_WORKSPACE,
    WORKSPACE_VARIABLE,
    Workspace,
    milvus_uri,
)
from serving import cluster
from serving.auth import KEYS_VARIABLE, ApiKeys
from serving.console.secret import secret_from_env
from serving.rates import rate_from

if TYPE_CHECKING:
    from ray.serve import Application

STOP_SECONDS: Final = 17.0


class Deploy(BaseModel):
    """What decides how the service is deployed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    workspace: str | None = None  # OPENFOUND_WORKSPACE, as everywhere
    replicas: int = Field(default=1, ge=1)
    insecure: bool = False
    rewriter: Choice = DEFAULT


def build(args: dict[str, Any]) -> Application:
    """The Serve application; ``args`` are the fields of :class:`Deploy`.

    Raises :class:`InputError` if there are no keys and ``insecure`` is not set, if the rate limit
    cannot be meant, or if the rewriter lacks what it needs.
    """
    deploy = Deploy.model_validate(args)
    workspace = Workspace.from_env(deploy.workspace)
    keys = ApiKeys.parse(os.environ.get(KEYS_VARIABLE))
    if keys is None and not deploy.insecure:
        raise InputError(
            f"{KEYS_VARIABLE}: expected at least one API key, got none; set it (make one with "
            f"`openssl rand -hex 32`), or start with --insecure on a machine that is yours alone"
        )
    endpoint = _check_rewriter(deploy.rewriter, workspace)
    from serving.replica import deployment  # imports Ray: a missing key is told before

    return deployment(deploy.replicas).bind(
        str(workspace.root),
        None if keys is None else keys.digests,
        milvus_uri(),
        deploy.rewriter,
        endpoint,
        rate_from(os.environ),
        secret_from_env(),
    )


def run(
    workspace: Workspace,
    *,
    host: str,
    port: int,
    replicas: int = 1,
    insecure: bool = False,
    rewriter: Choice = DEFAULT,
) -> None:
    """Serve until SIGTERM or SIGINT. Raises InputError for settings that cannot be meant."""
    if not cluster.joins():
        _check_port(host, port)  # a cluster's Serve may well be listening there already
    cluster.set_environment()
    application = build(
        {
            "workspace": str(workspace.root), "replicas": replicas, "insecure": insecure,
            "rewriter": rewriter,
        }
    )  # fmt: skip
    if ApiKeys.parse(os.environ.pop(KEYS_VARIABLE, None)) is None:  # not for our children's eyes
        _say(
            f"WARNING: --insecure, without API keys: whoever reaches {host}:{port} may read every "
            f"embedding and change what is live.",
            sys.stderr,
        )
    with _stopped_by_signals() as listen, ExitStack() as stack:
        stack.enter_context(_milvus(workspace))
        address = stack.enter_context(
            cluster.served(application, host=host, port=port, replicas=replicas, listen=listen)
        )
        healthy, detail = cluster.health(address)
        _say(f"OpenFound at {address}: " + (f"serves {detail}" if healthy else detail))
        _say(f"Console: {address}/ (sign in with a key).")
        _say(
            f"Interface: {address}/docs (password: a key). To stop: Ctrl-C, or kill {os.getpid()}."
        )
        threading.Event().wait()


@contextmanager
def _milvus(workspace: Workspace) -> Iterator[None]:
    """A Milvus that answers, started here if need be; without one the scan stands in."""
    with ExitStack() as stack:
        try:
            stack.enter_context(milvus(workspace))
        except VectorsUnavailable as error:
            _say(f"warning: {error}; the exact scan stands in", sys.stderr)
        yield


class _Stopped(BaseException):
    """SIGTERM or SIGINT came."""


@contextmanager
def _stopped_by_signals() -> Iterator[Callable[[], None]]:
    """Leave the block at the first SIGTERM or SIGINT; later ones do not disturb the end.

    Yields a function that listens anew: ``ray.init`` puts handlers of its own in place.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_IGN)
        watchdog = threading.Timer(STOP_SECONDS, _kill_all)
        watchdog.daemon = True
        watchdog.start()
        raise _Stopped

    def listen() -> None:
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, stop)

    listen()
    try:
        yield listen
    except _Stopped:
        _say("stopped")


def _kill_all() -> None:
    """What has not ended in time is killed: the promise of 20 seconds is kept."""
    for child in psutil.Process().children(recursive=True):
        child.kill()
    os._exit(1)


def _check_rewriter(choice: Choice, workspace: Workspace) -> EndpointSettings | None:
    """Where the endpoint is, if that is the choice; raises InputError for what is missing."""
    if choice == "language-model" and not (workspace.rewriter / "config.json").exists():
        raise InputError(
            f"--rewriter: no tuned language model in {workspace.rewriter}; run "
            f"`python -m ray_jobs.tune_rewriter --workspace {workspace.root}` first"
        )
    try:
        return EndpointSettings.from_env(os.environ) if choice == "endpoint" else None
    except EndpointSettingsMissing as error:
        raise InputError(str(error)) from None


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise InputError(
            f"--port: cannot listen on {host}:{port} ({error.strerror}); "
            f"end what listens there, or name another port"
        ) from None


def _say(text: str, file: Any = None) -> None:
    print(text, file=file or sys.stdout, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m serving.app", description="Serve audiences and embeddings over HTTP."
    )
    parser.add_argument(
        "--workspace", help=f"its directory; default ${WORKSPACE_VARIABLE} or {DEFAULT_WORKSPACE}"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="port to listen on (%(default)s)")
    parser.add_argument("--replicas", type=_positive, default=1, help="processes that answer")
    parser.add_argument(
        "--rewriter", choices=CHOICES, default=DEFAULT,
        help="who reads sentences in the model's own words (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--insecure", action="store_true", help="start without API keys")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text!r}")
    return int(text)


def _port(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65_535:
        raise argparse.ArgumentTypeError(f"expected a port from 1 to 65535, got {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> None:
    """The command line; mistakes are one line and exit code 2, other errors code 1."""
    asked = vars(_parser().parse_args(arguments))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        run(Workspace.from_env(asked.pop("workspace")), **asked)
    except OpenFoundError as error:
        _say(f"error: {error}", sys.stderr)
        sys.exit(2 if isinstance(error, InputError) else 1)


if __name__ == "__main__":
    main()
