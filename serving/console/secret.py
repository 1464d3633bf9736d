"""What session cookies are signed with: from the environment, or new at each start."""

from __future__ import annotations

import os
import secrets
from typing import Final

from feature_repo.errors import InputError

SECRET_VARIABLE: Final = "OPENFOUND_CONSOLE_SECRET"
LEAST: Final = 32


def secret_from_env() -> str:
    """The environment's secret; a new one, with which sessions end, if it names none.

    Raises :class:`InputError`, which does not show it, for one that could be guessed.
    """
    given = os.environ.pop(SECRET_VARIABLE, None)  # not for our children's eyes
    if not given:
        return new_secret()
    if len(given) < LEAST:
        raise InputError(
            f"{SECRET_VARIABLE}: expected at least {LEAST} characters, got {len(given)}; make one "
            f"with `openssl rand -hex 32`"
        )
    return given


def new_secret() -> str:
    """64 random hexadecimal digits."""
    return secrets.token_hex(32)
