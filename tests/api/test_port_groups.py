"""Target port groups over REST: which paths initiators are to take is seen and changed, and initiators find it so."""

from __future__ import annotations

from pathlib import Path

from blockyard.control.roles import Role
from blockyard.initiator import connect
from tests.api.serving import Api
from tests.control.test_alua import states
from tests.serving import free_port

TARGET = "iqn.2026-11.test:disk"


def test_states_are_told_and_changed(shared: Api, tmp_path: Path) -> None:
    portals = [shared.serving.portals[0], f"127.0.0.1:{free_port()}"]
    with shared.local() as client:
        for where, what in (
            ("/portal-groups/2", {"portals": portals[1:]}),
            ("/volumes/disk", {"path": f"{tmp_path}/disk.img", "size": "8M"}),
            (
                f"/targets/{TARGET}",
                {"portal_groups": [1, 2], "luns": {"0": "disk"}, "alua": {"2": {"state": "active/non-optimized"}}},
            ),
        ):
            assert client.put(where, json=what).status_code == 201
    path = f"/targets/{TARGET}/port-groups"
    owner, stranger = (shared.token(Role.OWNER, name, name=name[-4:]) for name in (TARGET, "iqn.2026-11.test:other"))
    with (
        shared.client(owner) as client,
        shared.client(stranger) as other,
        shared.client(shared.token(Role.VIEWER)) as viewer,
        connect(f"iscsi://{portals[1]}/{TARGET}/0") as lun,
    ):
        assert viewer.get(path).json() == [
            {"tag": 1, "state": "active/optimized", "preferred": False, "portals": portals[:1], "sessions": 0},
            {"tag": 2, "state": "active/non-optimized", "preferred": False, "portals": portals[1:], "sessions": 1},
        ]
        before = client.get(f"{path}/2")
        assert before.json() == viewer.get(path).json()[1]
        etag = {"If-Match": before.headers["etag"]}
        standby = {"state": "standby", "preferred": True}
        for refused, status in (
            (client.patch(f"{path}/2", json=standby), 428),
            (client.patch(f"{path}/2", json={}, headers=etag), 422),
            (client.patch(f"{path}/2", json={"state": "asleep"}, headers=etag), 422),
            (client.patch(f"{path}/2", json={"stat": "standby"}, headers=etag), 422),
            (client.patch(f"{path}/3", json=standby, headers=etag), 404),
            (viewer.patch(f"{path}/2", json=standby, headers=etag), 403),
            (other.patch(f"{path}/2", json=standby, headers=etag), 403),
            (other.get(path), 404),
            (viewer.get("/targets/iqn.2026-11.test:none/port-groups"), 404),
        ):
            assert (refused.status_code, refused.headers["content-type"]) == (status, "application/problem+json")
        changed = client.patch(f"{path}/2", json=standby, headers=etag)
        assert (changed.status_code, changed.json()) == (200, {**before.json(), **standby})
        assert states(lun) == [0x00, 0x82]
        assert client.patch(f"{path}/2", json={"state": "offline"}, headers=etag).status_code == 412
        etag = {"If-Match": changed.headers["etag"]}
        again = client.patch(f"{path}/2", json={"preferred": False}, headers=etag)
        assert (again.json()["state"], again.json()["preferred"]) == ("standby", False)
        assert client.get(f"{path}/2").headers["etag"] == again.headers["etag"]
    with shared.client(shared.token(Role.ADMIN)) as admin:
        entry = admin.get("/audit").json()[-1]
        assert (entry["before"]["preferred"], entry["after"]["preferred"]) == (True, False)
