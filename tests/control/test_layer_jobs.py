"""What goes on in layers, as the API tells of it: moves, scrubs and rebuilds, with how far they are, and to be stopped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from blockyard.block.building import create_layer
from tests.api.conftest import (
    ApiFactory,
    api,  # noqa: F401  (a fixture)
)
from tests.api.serving import Api, wait_for

MiB = 1 << 20


@pytest.fixture
def served(api: ApiFactory, tmp_path: Path) -> Api:  # noqa: F811
    """A server with a mirror of two legs, slow enough to be watched."""
    for name in ("a.img", "b.img", "c.img", "away.img"):
        with (tmp_path / name).open("wb") as file:
            file.truncate(64 * MiB)
    stack = f"raid1(rate=256K, {tmp_path}/a.img, {tmp_path}/b.img)"
    create_layer(f"raid1({tmp_path}/a.img, {tmp_path}/b.img)")
    found = api(managed=True)
    with found.local() as client:
        for where, body in (
            ("/volumes/mirror", {"stack": stack}),
            ("/targets/iqn.2024-01.com.example:mirror", {"luns": {"0": "mirror"}}),
        ):
            assert client.put(where, json=body).is_success
    return found


def _act(client: httpx.Client, action: str, **options: object) -> dict[str, Any]:
    request = {"request": "act", "layer": "mirror/raid1", "action": action, "options": options}
    answer = client.post("/commands/layer", json=request)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()["result"]
    return found


def _jobs(client: httpx.Client, kind: str) -> list[dict[str, Any]]:
    return [job for job in client.get("/jobs").json() if job["kind"] == kind]


def test_stacks(served: Api, tmp_path: Path) -> None:
    with served.local() as client:
        (stack,) = client.get("/stacks").json()
        assert (stack["volume"], stack["health"], stack["work"]) == ("mirror", "ok", [])
        tree = client.get("/stacks/mirror").json()
        assert [member["state"] for member in tree["members"]] == ["in sync", "in sync"]
        assert [child["label"] for child in tree["children"]] == [f'file("{tmp_path}/{name}.img")' for name in "ab"]
        assert client.get("/stacks/demo.img").status_code == 404
        assert client.get("/stack-actions/mirror").json()["scrub"]["long"] is True
        done = client.post("/stacks/mirror", json={"action": "rate", "options": {"rate": "2M"}})
        assert (done.status_code, done.json()["job"]) == (200, None)
        assert client.post("/stacks/mirror", json={"action": "sing"}).status_code == 400
        begun = client.post("/stacks/mirror", json={"action": "scrub", "layer": "raid1"})
        assert begun.status_code == 202
        assert begun.headers["location"] == f"/api/v1/jobs/{begun.json()['job']}"
        assert client.delete(f"/jobs/{begun.json()['job']}").status_code == 202
        assert "has not been moved" in client.delete("/moves/mirror").json()["detail"]
        begun = client.post("/moves/mirror", json={"stack": f"{tmp_path}/away.img"})
        assert begun.status_code == 202
        wait_for(lambda: client.get("/stacks/mirror").json()["text"] == "in step", "all is copied")
        assert client.delete("/moves/mirror").json()["text"].startswith("mirror is on file(")
        assert client.get("/stacks/mirror").json()["label"] == f'file("{tmp_path}/away.img")'
        assert "layer move" in client.get("/audit").text


def test_jobs_of_layers(served: Api, tmp_path: Path) -> None:
    with served.local() as client:
        begun = _act(client, "scrub")
        (scrub,) = _jobs(client, "scrub")
        assert scrub["number"] == begun["job"]
        assert (scrub["pool"], scrub["volume"], scrub["subject"]) == (None, "mirror", "mirror: raid1(rate=256K)")
        assert client.delete(f"/jobs/{scrub['id']}").status_code == 202
        wait_for(lambda: client.get(f"/jobs/{scrub['id']}").json()["state"] == "cancelled", "the scrub stops")
        _act(client, "fail", member=f"{tmp_path}/b.img")
        _act(client, "add", device=f"{tmp_path}/c.img", force=True)
        assert client.get("/volumes/mirror").json()["health"] == "degraded"
        (rebuild,) = _jobs(client, "rebuild")
        assert rebuild["number"] is None
        assert not rebuild["can_cancel"]
        assert 0 <= rebuild["done"] < rebuild["total"]
        told = client.delete(f"/jobs/{rebuild['id']}")
        assert told.status_code == 409, told.text
        assert "goes on by itself" in told.json()["detail"]
        _act(client, "rate", rate="1G")
        wait_for(lambda: not _jobs(client, "rebuild"), "the rebuild is done")
        assert client.get("/volumes/mirror").json()["health"] == "ok"
        stack = f"delay(write=20ms, {tmp_path}/away.img)"
        assert client.post("/commands/layer%20move", json={"volume": "mirror", "stack": stack}).is_success
        (move,) = _jobs(client, "move")
        assert (move["volume"], move["unit"], move["can_cancel"]) == ("mirror", "bytes", True)
        assert client.delete(f"/jobs/{move['id']}").status_code == 202
        wait_for(lambda: _jobs(client, "move")[0]["state"] == "cancelled", "the move is given up")
        assert "cancelled: move of mirror" in client.get("/audit").json()[-1]["what"]
