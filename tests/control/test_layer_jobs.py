"""What goes on in layers, as the API tells of it: moves, scrubs and rebuilds, with how far they are, and to be stopped."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from blockyard.block.building import create_layer
from blockyard.cli.main import main
from blockyard.control.roles import Role
from tests.api.conftest import (
    ApiFactory,
    api,  # noqa: F401  (a fixture)
)
from tests.api.serving import Api
from tests.waiting import eventually

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
        eventually(lambda: client.get("/stacks/mirror").json()["text"] == "in step", "all is copied")
        assert client.delete("/moves/mirror").json()["text"].startswith("mirror is on file(")
        assert client.get("/stacks/mirror").json()["label"] == f'file("{tmp_path}/away.img")'
        assert "layer move" in client.get("/audit").text


def test_jobs_of_layers(served: Api, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with served.local() as client:
        begun = _act(client, "scrub")
        (scrub,) = _jobs(client, "scrub")
        assert scrub["number"] == begun["job"]
        assert (scrub["pool"], scrub["volume"], scrub["subject"]) == (None, "mirror", "mirror: raid1(rate=256K)")
        assert client.delete(f"/jobs/{scrub['id']}").status_code == 202
        eventually(lambda: client.get(f"/jobs/{scrub['id']}").json()["state"] == "cancelled", "the scrub stops")
        _act(client, "rate", rate="64K")  # a quarter of an hour: it is looked at meanwhile
        _act(client, "fail", member=f"{tmp_path}/b.img")
        _act(client, "add", device=f"{tmp_path}/c.img", force=True)
        assert client.get("/volumes/mirror").json()["health"] == "degraded"
        (rebuild,) = _jobs(client, "rebuild")
        assert (rebuild["number"], rebuild["can_cancel"], rebuild["can_pause"]) == (None, True, True)
        assert 0 <= rebuild["done"] < rebuild["total"]
        _check_rest(served, client, f"/jobs/{rebuild['id']}")
        _act(client, "rate", rate="1G")
        eventually(lambda: not _jobs(client, "rebuild"), "the rebuild is done")
        assert client.get("/volumes/mirror").json()["health"] == "ok"
        stack = f"delay(write=200ms, {tmp_path}/away.img)"
        assert client.post("/commands/layer%20move", json={"volume": "mirror", "stack": stack}).is_success
        (move,) = _jobs(client, "move")
        assert (move["volume"], move["unit"], move["can_cancel"]) == ("mirror", "bytes", True)
        assert client.delete(f"/jobs/{move['id']}").status_code == 202
        eventually(lambda: _jobs(client, "move")[0]["state"] == "cancelled", "the move is given up")
        assert "cancelled: move of mirror" in client.get("/audit").json()[-1]["what"]
        told = client.post(f"/jobs/{move['id']}/pause")
        assert (told.status_code, "cannot be paused" in told.json()["detail"]) == (409, True)
        _check_reshape(served, client, tmp_path, capsys)


def test_a_job_never_has_the_number_of_an_earlier_one(served: Api, tmp_path: Path) -> None:
    """A worker dies, control starts again: who knows a job from before gets that or none."""

    def make(client: httpx.Client) -> str:
        new = {
            "kind": "compressed",
            "on": [f"{tmp_path}/away.img"],
            "options": {"size": "1G", "force": True},
            "wait": 0,
        }
        begun = client.post("/layers", json=new)
        assert begun.status_code == 202, begun.text
        job: str = begun.json()["job"]
        eventually(lambda: client.get(f"/jobs/{job}").json()["state"] == "done", "it is made")
        return job

    def scrub(client: httpx.Client) -> bool:
        begun = client.post("/stacks/mirror", json={"action": "scrub", "layer": "raid1"})
        if begun.is_success:
            jobs.append(begun.json()["job"])
        return begun.is_success

    token = served.token(Role.ADMIN)
    with served.client(token) as client:
        jobs = [make(client)]
        assert scrub(client)
        workers = served.serving.workers
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        eventually(lambda: not set(workers) & set(served.serving.workers), "they have ended")
        eventually(lambda: scrub(client), "the mirror is served again")
        assert client.get(f"/jobs/{jobs[1]}").status_code == 404, "it has ended with its worker"
    assert main(["restart", "--state", str(served.state)]) == 0
    with served.client(token) as client:
        jobs.append(make(client))
        assert [client.get(f"/jobs/{job}").status_code for job in jobs] == [404, 404, 200, 200]
        assert len({job.rpartition(".")[2] for job in jobs}) == len(jobs)


def _check_rest(served: Api, client: httpx.Client, job: str) -> None:
    """A rebuild that is stopped rests, the array stays degraded and says so, and it goes on when somebody says so."""
    told = client.post("/commands/layer cancel", json={})
    assert (told.status_code, told.json()["detail"]) == (400, "the request does not say which job")
    assert client.get(job).json()["state"] == "running", "it has no number, and none was said"
    assert client.delete(job).json()["state"] == "paused"
    told = client.get("/volumes/mirror").json()
    assert told["health"] == "degraded"
    assert "paused" in client.get("/stacks/mirror").json()["text"]
    assert client.post(f"{job}/pause").status_code == 409, "it rests already"
    assert main(["layer", "resume", "--state", str(served.state), job.rpartition(":")[2]]) == 0
    assert client.get(job).json()["state"] == "running"
    assert client.post(f"{job}/pause").json()["can_resume"]
    assert client.post(f"{job}/resume").json()["state"] == "running"
    assert client.post(f"{job}/resume").status_code == 409
    eventually(lambda: _pauses(client) == ["raid-paused", "raid-resumed"] * 2, "events tell of it")


def _pauses(client: httpx.Client) -> list[str]:
    """What events tell of them."""
    told = [event["what"] for event in client.get("/events?last=50").json()]
    return [what for what in told if what in ("raid-paused", "raid-resumed")]


def _check_reshape(served: Api, client: httpx.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It can be paused, and never be stopped."""
    names = [tmp_path / f"five-{number}.img" for number in range(4)]
    for name in names:
        with name.open("wb") as file:
            file.truncate(16 * MiB)
    disks = ", ".join(map(str, names[:3]))
    create_layer(f"raid5({disks})")
    for where, body in (
        ("/volumes/five", {"stack": f"raid5(rate=64K, {disks})"}),
        ("/targets/iqn.2024-01.com.example:five", {"luns": {"0": "five"}}),
    ):
        assert client.put(where, json=body).is_success
    grow: dict[str, Any] = {
        "request": "act",
        "layer": "five",
        "action": "grow",
        "options": {"devices": f"[{names[3]}]"},
    }
    answer = client.post("/commands/layer", json=grow)
    assert answer.is_success, answer.text
    (reshape,) = _jobs(client, "reshape")
    assert (reshape["can_cancel"], reshape["can_pause"]) == (False, True)
    told = client.delete(f"/jobs/{reshape['id']}")
    assert told.status_code == 409
    assert "cannot be undone" in told.json()["detail"]
    name = reshape["id"].removeprefix("layers:")
    assert main(["layer", "pause", "--state", str(served.state), name]) == 0
    assert main(["layer", "jobs", "--state", str(served.state)]) == 0
    assert f"{name}  reshape" in capsys.readouterr().out
    paused = client.get(f"/jobs/{reshape['id']}").json()
    assert paused["state"] == "paused"
    assert client.post(f"/jobs/{reshape['id']}/resume").json()["state"] == "running"
    grow["action"], grow["options"] = "rate", {"rate": "1G"}
    assert client.post("/commands/layer", json=grow).is_success
    eventually(lambda: not _jobs(client, "reshape"), "the reshape is done")
