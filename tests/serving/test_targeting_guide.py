"""``docs/targeting.md`` runs as it stands, against the service over a real socket."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from serving.api import create_app
from serving.audience_store import AudienceStore
from serving.audiences import SavedAudiences
from serving.auth import ApiKeys
from serving.database import open_database
from serving.targeting import Targeting

GUIDE = Path(__file__).parents[2] / "docs/targeting.md"


@pytest.fixture
def url(world: Any) -> Iterator[str]:
    world.publish(1, live=True, facts=True)
    store = AudienceStore(world.workspace, open_database(world.workspace))
    targeting = Targeting(world.reading(), None, members=store.member_ids)
    app = create_app(targeting, ApiKeys.parse("the-key"), SavedAudiences(targeting, store))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    server.should_exit = True
    thread.join()


def test_the_campaign_of_the_guide(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENFOUND_URL", url)
    monkeypatch.setenv("OPENFOUND_API_KEY", "the-key")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S):
        exec(compile(block, str(GUIDE), "exec"), names)

    assert names["portrait"].size == 20 and names["portrait"].population == 40
    assert {share.column for share in names["portrait"].profile} == {"profile_age"}
    assert [user.user_id for user in names["why"].users] == ["u3", "u8"]
    assert names["why"].missing == ["stranger"]

    # un is n years old and bought cat food n days and an hour ago.
    eligible = {f"u{n}" for n in range(40) if n >= 18 and n + 1 / 24 > 10}
    assert set(names["audience"].ids) <= eligible and len(names["audience"]) == 15
    assert names["audience"].meta.eligible == len(eligible) == 22
    exported = [line.split(",")[0].strip('"') for line in (tmp_path / "cats.csv").open()][1:]
    assert names["plan"].rules_in_words == "not (bought 'CAT FOOD' in the last 10 days)"
    assert names["plan"].text == "will buy cat food"
    assert 0 < len(names["held_out"]) < 15
    assert sorted(exported + names["held_out"].ids) == sorted(names["audience"].ids)
    assert names["change"].jaccard == 1 and names["change"].warnings == []
    assert names["saved"].words == (
        "not (bought 'CAT FOOD' in the last 10 days) and profile_age at least 18"
    )
