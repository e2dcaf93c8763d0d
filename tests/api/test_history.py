"""The history by the API and on the command line: whole for who may see all, their own for owners; damage is told."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.control.history.sampling import Point
from blockyard.control.history.series import COLUMNS, RESOLUTIONS
from blockyard.control.history.store import ASIDE, NAME, Store
from blockyard.control.roles import Role
from tests.api.conftest import ApiFactory
from tests.api.serving import TWO
from tests.waiting import eventually


def _fill(directory: Path, now: int) -> None:
    """Ten minutes of work: the longer ago, the more."""

    def damaged(what: str, text: str) -> None:
        raise AssertionError(text)

    directory.mkdir(exist_ok=True)
    store = Store(directory, damaged)
    for ago in range(600, 0, -10):
        row = tuple(float(ago) for _ in COLUMNS["volume"])
        store.write([Point(RESOLUTIONS[0], now - ago, {"total": {"": row}, "volume": {"a": row, "b": row}})], now)
    store.close()


def test_who_may_see_what(api: ApiFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    now = int(time.time()) // 10 * 10
    _fill(tmp_path / "state-0", now)
    served = api(config=TWO)
    viewer = served.client(served.token(Role.VIEWER))
    owner = served.client(served.token(Role.OWNER, "iqn.2026-11.test:b"))
    answer = viewer.get("/history", params={"series": ["total", "volume:a"], "from": now - 300, "to": now - 200})
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["from"], found["to"], found["resolution"]) == (now - 300, now - 200, 10)
    assert [each["series"] for each in found["series"]] == ["total", "volume:a"]
    assert found["series"][1]["times"] == list(range(now - 300, now - 200, 10))
    assert found["series"][1]["values"]["read_p99"] == [float(now - at) for at in found["series"][1]["times"]]
    assert owner.get("/history", params={"series": "volume:b"}).status_code == 200
    assert [owner.get("/history", params={"series": one}).status_code for one in ("volume:a", "total")] == [404, 404]
    assert [each["series"] for each in owner.get("/history/series").json()] == ["volume:b"]
    assert viewer.get("/history", params={"series": "volume:none"}).status_code == 404
    assert viewer.get("/history", params={"series": "total", "from": 5, "to": 4}).status_code == 422
    for much in ({"series": ["total"] * 17, "from": -60}, {"series": ["total"], "from": 10**400}):
        assert viewer.post("/commands/history show", json=much).status_code == 400
    main(["history", "--state", str(served.state), "volume:a", "--last", "15min"])
    printed = capsys.readouterr().out
    assert "read_p99" in printed
    assert "█" in printed
    main(["history", "--state", str(served.state), "--json", "--last", "15min"])
    assert len(json.loads(capsys.readouterr().out)["series"][0]["times"]) >= 60
    assert main(["history", "--state", str(served.state), "pool:none"]) == 2
    assert "blockyard history --list" in capsys.readouterr().err


def test_damage_is_an_event(api: ApiFactory, tmp_path: Path) -> None:
    (tmp_path / "state-0").mkdir()
    (tmp_path / "state-0" / NAME).write_bytes(b"this was a file once " * 1000)
    served = api(config=TWO)
    with served.local() as client:
        assert client.get("/history/series").json() == []
        eventually(lambda: any(each["what"] == "history-damaged" for each in client.get("/events").json()), "an event")
    assert (tmp_path / "state-0" / ASIDE).exists()
