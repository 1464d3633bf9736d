"""Job settings as pydantic classes, and the one way they become command lines.

Every verb is a file with a :class:`Job` subclass and ``run(settings)``; its last line calls
:func:`main`. ``python -m ray_jobs.<verb> --help`` prints the fields; the same command line is the
entrypoint of a submitted Ray job.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliApp,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)
from rich.console import Console
from rich.markup import escape

from feature_repo.errors import InputError, OpenFoundError
from feature_repo.settings import DEFAULT_WORKSPACE, WORKSPACE_VARIABLE, Workspace

console = Console(highlight=False, soft_wrap=True)


def parse_date(value: Any) -> datetime:
    """A date as midnight UTC: ``2017-11-06``, or a datetime."""
    if isinstance(value, datetime):
        return value if value.tzinfo else value.replace(tzinfo=UTC)
    try:
        parsed = datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError(f"expected a date like 2017-11-06, got {value!r}") from None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)


Date = Annotated[datetime, BeforeValidator(parse_date)]


class Job(BaseSettings):
    """What every job knows. Values come from the command line and from code, nowhere else."""

    model_config = SettingsConfigDict(
        cli_kebab_case=True, cli_implicit_flags=True, cli_avoid_json=True, extra="forbid",
        cli_hide_none_type=True, populate_by_name=True, validate_default=True,
    )  # fmt: skip

    workspace: str = Field(
        default_factory=lambda: os.environ.get(WORKSPACE_VARIABLE) or DEFAULT_WORKSPACE,
        description=f"directory that holds everything; default ${WORKSPACE_VARIABLE} or "
        f"{DEFAULT_WORKSPACE}",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """No environment: a variable called SEED or SOURCE must not steer a job by accident."""
        return (init_settings,)

    @property
    def place(self) -> Workspace:
        """The workspace as paths."""
        return Workspace.from_env(self.workspace)


Settings = TypeVar("Settings", bound=Job)


def main(settings_class: type[Settings], run: Callable[[Settings], object]) -> None:
    """Parse the command line, run, and turn mistakes into one clear line and an exit code.

    Exit codes: 0 done, 2 wrong input, 1 anything else that we understand.
    """
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        settings = CliApp.run(settings_class, cli_exit_on_error=True)
        run(settings)
    except ValidationError as error:
        for problem in error.errors():
            name = "-".join(str(part) for part in problem["loc"]).replace("_", "-")
            _fail(f"--{name}: {problem['msg']}", 2)
    except (InputError, SettingsError) as error:
        _fail(str(error), 2)
    except (OpenFoundError, RuntimeError) as error:
        if not _ours(error):
            raise
        _fail(str(error), 1)


def _ours(error: Exception) -> bool:
    return isinstance(error, OpenFoundError) or type(error).__module__.startswith(
        ("encoders.", "ray_jobs.")
    )


def _fail(message: str, code: int) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]error[/]: {escape(message)}", markup=True
    )
    sys.exit(code)
