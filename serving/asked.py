"""What routes are asked of: the targeting of their application."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Request

from serving.targeting import Targeting


async def _targeting(request: Request) -> Targeting:  # async: a plain one takes a thread
    found: Targeting = request.app.state.targeting
    return found


Asked = Annotated[Targeting, Depends(_targeting)]
