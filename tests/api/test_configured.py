"""What is configured, changed by the API: served when the answer comes, refused as a whole, and no update is lost."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from blockyard.api import schemas
from blockyard.control.roles import Role
from blockyard.control.state import State
from blockyard.initiator import LoginError, connect
from blockyard.worker.configuration import Target, Volume
from tests.api.conftest import ApiFactory
from tests.api.serving import Api
from tests.waiting import eventually

IQN = "iqn.2026-11.test:new"
HOST = "iqn.2026-11.test:host"
_MERGE = {"Content-Type": "application/merge-patch+json"}


def _connect(served: Api, target: str, lun: int = 0) -> object:
    url = f"iscsi://{served.serving.portals[0]}/{target}/{lun}"
    return connect(url, initiator_name=HOST)


def _done(answer: httpx.Response) -> dict[str, object]:
    assert answer.is_success, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_from_a_pool_to_a_disk_that_a_host_uses(shared: Api, tmp_path: Path) -> None:
    with shared.local() as client:
        pool = {"name": "fast", "directory": str(tmp_path / "pool"), "size": 256 << 20}
        answer = client.post("/pools", json=pool)
        assert answer.status_code == 201, answer.text
        assert client.post("/pools", json=pool).status_code == 409
        assert client.post("/pools/fast/volumes", json={"name": "mail", "size": 64 << 20}).status_code == 201
        _done(client.put("/hosts/web1", json={"initiators": [HOST]}))
        _done(client.put(f"/targets/{IQN}", json={"access": [{"hosts": ["web1"]}]}))
        etag = client.get(f"/targets/{IQN}").headers["etag"]
        answer = client.put(f"/targets/{IQN}/luns/0", json={"volume": "fast/mail"}, headers={"If-Match": etag})
        assert _done(answer)["luns"] == {"0": "fast/mail"}
        with _connect(shared, IQN) as lun:  # type: ignore[attr-defined]
            lun.write(0, b"data" * 1024)
            (session,) = client.get(f"/targets/{IQN}/sessions").json()
            assert session["initiator"] == HOST
            assert client.get("/pools/fast/volumes/mail").json()["initiators"] == [HOST]
            one = f"/targets/{IQN}/sessions/{session['tsih']}"
            assert client.get(one).json()["initiator"] == HOST
            shown = client.get(f"/targets/{IQN}/luns/0")
            assert shown.json() == {"lun": 0, "volume": "fast/mail"}
            assert shown.headers["etag"] == client.get(f"/targets/{IQN}").headers["etag"]
            assert client.get(f"/targets/{IQN}/luns/7").status_code == 404
            assert client.delete(one).status_code == 204
            assert client.get(one).status_code == 404
            assert "session drop" in client.get("/audit").json()[-1]["what"]
        with pytest.raises(LoginError):
            connect(f"iscsi://{shared.serving.portals[0]}/{IQN}/0", initiator_name="iqn.2026-11.test:other")

        assert client.post("/pools/fast/volumes/mail/snapshots", json={"name": "s1"}).status_code == 201
        clone = client.post("/pools/fast/volumes/mail/snapshots/s1/clone", json={"name": "copy"}).json()
        assert clone["origin"] == "fast/mail@s1"
        etag = client.get("/pools/fast/volumes/mail").headers["etag"]
        grown = client.patch("/pools/fast/volumes/mail", json={"size": 128 << 20}, headers={"If-Match": etag})
        assert _done(grown)["size"] == 128 << 20
        stale = client.patch("/pools/fast/volumes/mail", json={"quota": 1 << 30}, headers={"If-Match": etag})
        assert stale.status_code == 412
        assert client.get("/volumes/fast/mail").json()["size"] == 128 << 20

        job = client.post("/pools/fast/scrub", json={})
        assert job.status_code == 202
        assert client.get(job.headers["location"].removeprefix("/api/v1")).json()["kind"] == "scrub"

        whatever = {"If-Match": "*"}
        assert client.delete("/pools/fast/volumes/mail", headers=whatever).status_code == 400, "it is a LUN"
        assert client.delete("/pools/fast", headers=whatever).status_code == 400, "it is used"
        assert client.delete(f"/targets/{IQN}", headers=whatever).status_code == 204
        assert client.delete("/volumes/fast/mail", headers=whatever).status_code == 204
        assert client.delete("/pools/fast?destroy=true", headers=whatever).status_code == 204
        assert not (tmp_path / "pool").exists()
        eventually(
            lambda: client.get("/events").json(), "the refused login is an event, which are written once a second"
        )
        newest = client.get("/events?last=1").json()[0]
        assert client.get(f"/events/{newest['id']}").json() == newest
        assert client.get("/events/999999").status_code == 404
        told = [entry["what"] for entry in client.get("/audit?last=50").json()]
        assert sum("pool fast" in what for what in told) == 2
        assert any(what.startswith("pool {") and "create snapshot" in what for what in told)


def test_no_update_is_lost(shared: Api) -> None:
    with shared.local() as client:
        _done(client.put(f"/targets/{IQN}-updated", json={}, headers={"If-None-Match": "*"}))
        assert client.put(f"/targets/{IQN}-updated", json={}, headers={"If-None-Match": "*"}).status_code == 412
        assert client.put(f"/targets/{IQN}-updated", json={}).status_code == 428
        seen = client.get(f"/targets/{IQN}-updated").headers["etag"]
        first = client.patch(f"/targets/{IQN}-updated", json={"alias": "one"}, headers={"If-Match": seen, **_MERGE})
        assert first.status_code == 200
        assert first.headers["etag"] == client.get(f"/targets/{IQN}-updated").headers["etag"] != seen
        second = client.patch(
            f"/targets/{IQN}-updated", json={"max_connections": 2}, headers={"If-Match": seen, **_MERGE}
        )
        assert second.status_code == 412
        assert client.get(f"/targets/{IQN}-updated").json()["max_connections"] == 16
        removed = client.patch(f"/targets/{IQN}-updated", json={"alias": None}, headers={"If-Match": "*", **_MERGE})
        assert _done(removed)["alias"] == ""


def test_what_makes_no_sense_is_refused_as_a_whole(shared: Api) -> None:
    with shared.local() as client:
        before = client.get("/configuration").json()
        for path, body, status, word in (
            (f"/targets/{IQN}", {"luns": {"0": "nothing"}}, 400, "there is no volume"),
            (f"/targets/{IQN}", {"alia": "x"}, 422, "did you mean alias"),
            (f"/targets/{IQN}", {"luns": {"x": "y"}}, 422, "not a whole number"),
            (f"/targets/{IQN}", [], 422, "JSON object"),
            ("/targets/no-name", {}, 422, "target"),
            ("/volumes/x", {"path": "relative.img", "size": "1M"}, 422, "absolute"),
            ("/volumes/x", {"path": "/nowhere/x.img", "size": "1M"}, 409, "/nowhere"),
            ("/portal-groups/2", {"portals": ["203.0.113.9:3260"]}, 409, "not an address of this machine"),
            ("/settings/api", {"listen": "127.0.0.1:3261", "key": "/x"}, 422, "belong together"),
        ):
            answer = client.put(path, json=body)
            assert answer.status_code == status, (path, answer.text)
            assert word in answer.json()["detail"], answer.text
        assert client.get("/configuration").json() == before


def test_a_file_says_it_is_to_be_changed_there(api: ApiFactory) -> None:
    served = api(config='[volumes.a]\npath = "a.img"\nsize = "8M"\n')
    with served.local() as client:
        answer = client.put(f"/targets/{IQN}", json={})
        assert answer.status_code == 409
        assert "serve-0.toml" in answer.json()["detail"]


def test_users_and_groups(shared: Api) -> None:
    secret = "a secret of sixteen"  # noqa: S105
    with shared.local() as client:
        _done(client.put("/groups/hosts", json={"users": []}))
        answer = client.put("/users/web1", json={"secret": secret, "groups": ["hosts"]})
        assert answer.status_code == 201
        etag = answer.headers["etag"]
        assert client.get("/groups/hosts").json()["users"] == ["web1"]
        assert client.put("/users/web1", json={"secret": secret[::-1]}, headers={"If-Match": etag}).status_code == 200
        assert client.put("/users/web1", json={"groups": []}, headers={"If-Match": etag}).status_code == 412, (
            "another secret"
        )
        everything = "".join(
            client.get(path).text for path in ("/users", "/users/web1", "/groups", "/audit", "/configuration")
        )
        assert secret not in everything
        assert secret[::-1] not in everything
        assert client.put("/users/weak", json={"secret": "short"}).status_code == 422
        assert client.delete("/users/web1", headers={"If-Match": "*"}).status_code == 204
        assert client.get("/users").json() == []


def test_schemas_are_those_of_the_dataclasses() -> None:
    schema = schemas.of(Volume)
    assert schema["properties"]["size"]["anyOf"][1] == {"type": "string"}
    assert "when it is missing" in schema["properties"]["size"]["description"], "what stands beside the field"
    assert "name" not in schema["properties"]
    assert schemas.of(Target)["properties"]["access"]["items"]["properties"]["right"] == {"type": "string"}
    assert schemas.whole(Target("iqn.x"))["portal_groups"] == [1]


def test_who_asks_while_control_starts_again_gets_answers(shared: Api) -> None:
    """They wait in the socket that is listened on, which workers keep; what is on its way is answered. Connections that are
    kept open without a request are closed, as by any server (RFC 9112 §9.3): each request here has one of its own."""
    with shared.client(shared.token(Role.ADMIN, name="restarter")) as client:
        client.headers["Connection"] = "close"
        before = _done(client.get("/status"))["began"]
        assert client.post("/commands/restart", json={}).is_success
        eventually(lambda: _done(client.get("/status"))["began"] != before, "control is another one")


@pytest.mark.parametrize(
    ("where", "wanted", "state"),
    [
        ("/drives/attic", {}, {"state": "hidden", "disc": None}),
        ("/libraries/attic", {"directory": "/tmp/attic", "slots": 7}, {"drives": [], "elements": {}, "slots": 7}),
    ],
)
def test_what_no_target_shows_can_be_looked_at_and_deleted(
    shared: Api, where: str, wanted: dict[str, object], state: dict[str, object]
) -> None:
    with shared.local() as client:
        made = client.put(where, json=wanted)
        assert made.status_code == 201
        seen = client.get(where)
        assert seen.headers["etag"] == made.headers["etag"]
        assert _done(seen).items() >= {"name": "attic", "targets": [], **state}.items()
        assert client.get(where.rpartition("/")[0]).json() == [seen.json()]
        assert client.delete(where).status_code == 428
        assert client.delete(where, headers={"If-Match": seen.headers["etag"]}).status_code == 204
        assert client.get(where).status_code == 404


def test_what_looks_at_an_etag_says_so_in_the_document(shared: Api) -> None:
    with shared.local() as client:
        paths = client.get("/openapi.json").json()["paths"]
    told = [
        {"412", "428"} <= operation["responses"].keys()
        for path in paths.values()
        for operation in path.values()
        if any(parameter["name"].lower() == "if-match" for parameter in operation.get("parameters", ()))
    ]
    assert len(told) > 20
    assert all(told)


def test_a_change_is_not_undone_by_who_looks_at_a_pool_meanwhile(api: ApiFactory, tmp_path: Path) -> None:
    served, name = api(managed=True), "iqn.2026-11.test:goes"
    with served.local() as client, served.local() as other, ThreadPoolExecutor(2) as threads:
        pool = {"name": "fast", "directory": str(tmp_path / "pool"), "size": 64 << 20, "export": True}
        assert client.post("/pools", json=pool).status_code == 201
        assert client.put("/volumes/goes", json={"path": str(tmp_path / "goes.img"), "size": 1 << 20}).is_success
        assert client.put(f"/targets/{name}", json={"luns": {"0": "goes"}}).is_success
        with connect(f"iscsi://{served.serving.portals[0]}/{name}/0"):  # which does not log out when it is asked to
            deleted = threads.submit(client.delete, f"/targets/{name}", headers={"If-Match": "*"})
            eventually(lambda: _under_way(served), "the change has begun")
            made = threads.submit(other.post, "/pools/fast/volumes", json={"name": "new", "size": 1 << 20})
            eventually(lambda: _volumes(served), "the volume is there")
        assert (deleted.result().status_code, made.result().status_code) == (204, 201)
        assert client.get(f"/targets/{name}").status_code == 404
        with pytest.raises(LoginError):
            connect(f"iscsi://{served.serving.portals[0]}/{name}/0")


def _under_way(served: Api) -> bool:
    with contextlib.closing(State(served.state)) as state:
        return bool(state.rows("SELECT who FROM pending"))


def _volumes(served: Api) -> list[object]:
    with served.local() as client:
        found: list[object] = client.get("/pools/fast/volumes").json()
        return found
