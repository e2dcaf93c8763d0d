"""Discs by the API: made, listed, exported, each by whom it is for."""

from __future__ import annotations

from pathlib import Path

from blockyard.control.roles import Role
from tests.api.conftest import ApiFactory
from tests.api.serving import logged_in
from tests.api.test_door import problem
from tests.serving import IQN


def test_operators_make_discs_and_admins_take_them_elsewhere(api: ApiFactory, tmp_path: Path) -> None:
    (tmp_path / "discs").mkdir()
    served = api(config=f'[drives.dvd]\njukebox = "discs"\n[targets."{IQN}"]\nluns = {{0 = "dvd"}}\n')
    for name, role in (("admin", Role.ADMIN), ("operator", Role.OPERATOR), ("viewer", Role.VIEWER)):
        served.account(name, role)
    disc = {"image": "one", "kind": "dvd+rw", "size": "8M"}
    with logged_in(served, "viewer") as client:
        assert client.post("/drives/dvd/create-disc", json=disc).status_code == 403
        assert client.get("/drives/dvd/images").json() == []
    with logged_in(served, "operator") as client:
        [made] = client.post("/drives/dvd/create-disc", json=disc).json()
        assert made == {"name": "one.iso", "size": 0, "kind": "dvd+rw", "state": "blank"}
        inserted = client.post("/drives/dvd/insert", json={"image": "one"}).json()
        assert inserted["disc"]["kind"] == "dvd+rw"
        assert inserted["disc"]["state"] == "blank"
        assert inserted["disc"]["capacity"] == 8 << 20
        assert client.post("/drives/dvd/eject", json={}).status_code == 200
        answer = client.post("/drives/dvd/create-disc", json={**disc, "image": "two", "size": "never"})
        assert "the usual sizes of a DVD+RW are 4.7G" in problem(answer)
        for path in ("close-disc", "blank-disc"):
            assert client.post(f"/drives/dvd/{path}", json={"image": "/etc/x"}).status_code == 403
        assert client.post("/drives/dvd/export-disc", json={"image": "one", "file": "/tmp/x.iso"}).status_code == 403
    with logged_in(served, "admin") as client:
        answer = client.post("/drives/dvd/export-disc", json={"image": "one", "file": str(tmp_path / "x.iso")})
        assert "nothing is on the disc" in problem(answer)
        assert "nothing to close" in problem(client.post("/drives/dvd/close-disc", json={"image": "one"}))
        path = str(tmp_path / "elsewhere.iso")
        assert client.post("/drives/dvd/create-disc", json={"image": path}).status_code == 200
        assert Path(path).exists()
        [blanked] = client.post("/drives/dvd/blank-disc", json={"image": "one"}).json()
        assert blanked["state"] == "blank"
