"""Discs and cartridges by the API: made, listed, copied, each by whom it is for."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import httpx

from blockyard.control.roles import Role
from tests.api.conftest import ApiFactory
from tests.api.serving import logged_in
from tests.api.test_door import problem
from tests.serving import IQN
from tests.waiting import eventually


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
        for path in ("export-disc", "import-disc"):
            answer = client.post(f"/drives/dvd/{path}", json={"image": "one", "file": "/tmp/x.iso"})
            assert answer.status_code == 403
        assert client.post("/drives/dvd/convert-disc", json={"image": "one", "name": "/tmp/x"}).status_code == 403
        [renamed] = client.post("/drives/dvd/rename-disc", json={"image": "one", "name": "first"}).json()
        assert renamed["name"] == "first.iso"
        assert client.post("/drives/dvd/rename-disc", json={"image": "first", "name": "one"}).is_success
        assert client.post("/drives/dvd/remove-disc", json={"image": "one"}).status_code == 403
    with logged_in(served, "admin") as client:
        answer = client.post("/drives/dvd/export-disc", json={"image": "one", "file": str(tmp_path / "x.iso")})
        assert "nothing is on the disc" in problem(answer)
        assert "nothing to close" in problem(client.post("/drives/dvd/close-disc", json={"image": "one"}))
        path = str(tmp_path / "elsewhere.iso")
        assert client.post("/drives/dvd/create-disc", json={"image": path}).status_code == 200
        assert Path(path).exists()
        [blanked] = client.post("/drives/dvd/blank-disc", json={"image": "one"}).json()
        assert blanked["state"] == "blank"


def _finished(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """The job that this answer has begun, when it is over."""
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    assert answer.headers["Location"] == f"/api/v1/jobs/{job.replace(':', '%3A')}"
    eventually(lambda: client.get(f"/jobs/{job}").json()["state"] != "running", "the end of a job")
    found: dict[str, Any] = client.get(f"/jobs/{job}").json()
    return found


def test_copies_of_discs_are_jobs(api: ApiFactory, tmp_path: Path) -> None:
    (tmp_path / "discs").mkdir()
    places = f'paths = ["{tmp_path}"]\n'  # goes on with the table of the API
    served = api(config=f'{places}[drives.dvd]\njukebox = "discs"\n[targets."{IQN}"]\nluns = {{0 = "dvd"}}\n')
    data = bytes(range(256)) * 8 * 700
    (tmp_path / "data.iso").write_bytes(data)
    with served.local() as client:

        def job(what: str, **body: str) -> dict[str, Any]:
            return _finished(client, client.post(f"/drives/dvd/{what}-disc", json=body))

        done = job("import", image="a", file=str(tmp_path / "data.iso"))
        assert (done["kind"], done["drive"], done["pool"], done["state"]) == ("import", "dvd", None, "done")
        assert (done["done"], done["total"], done["unit"]) == (len(data), len(data), "bytes")
        answer = client.post("/drives/dvd/export-disc", json={"image": "a", "file": "/tmp/x.iso"})
        assert "/tmp/x.iso may not be used here" in problem(answer)
        job("convert", image="a", name="b.cue")
        job("export", image="b.cue", file=str(tmp_path / "back.iso"))
        assert (tmp_path / "back.iso").read_bytes() == data
        assert [each["name"] for each in client.get("/drives/dvd/images").json()] == ["a.iso", "b.cue"]
        assert [each["name"] for each in client.post("/drives/dvd/remove-disc", json={"image": "a"}).json()] == [
            "b.cue"
        ]
        with (tmp_path / "discs" / "large.iso").open("wb") as file:
            file.truncate(100 << 30)  # zeros that take minutes to read
        answer = client.post("/drives/dvd/convert-disc", json={"image": "large", "name": "copy"})
        stopped = client.delete(f"/jobs/{answer.json()['job']}")
        assert stopped.status_code == 202
        assert _finished(client, answer)["state"] == "cancelled"
        assert not (tmp_path / "discs" / "copy.iso").exists()
        assert len(client.get("/jobs").json()) == 4


def test_copies_of_cartridges_are_jobs(api: ApiFactory, tmp_path: Path) -> None:
    served = api(config=f'[libraries.vault]\ndirectory = "tapes"\n[targets."{IQN}"]\nlibrary = "vault"\n')
    image, copy = tmp_path / "data.tap", tmp_path / "copy.tap"
    image.write_bytes(struct.pack("<I5sxI4xI", 5, b"hello", 5, 0xFFFFFFFF))  # a block, a filemark, the end
    with served.local() as client:
        answer = client.post("/libraries/vault/import-image", json={"file": str(image), "barcode": "A00001L8"})
        done = _finished(client, answer)
        assert (done["state"], done["library"], done["result"]) == ("done", "vault", "A00001L8 is in io-1")
        where = "/libraries/vault/cartridges/A00001L8"
        assert client.patch(where, json={"write_protected": True}).json()["write_protected"] is True
        assert client.patch(where, json={"write_protected": False}).json()["write_protected"] is False
        done = _finished(client, client.post(f"{where}/export-image", json={"file": str(copy)}))
        assert (done["done"], done["total"], done["unit"]) == (2, 2, "objects")
        assert copy.read_bytes() == image.read_bytes()
        assert _finished(client, client.post(f"{where}/export-image", json={"file": str(copy)}))["state"] == "failed"
        answer = client.post("/libraries/vault/move", json={"source": "A00001L8", "destination": "drive-1"})
        assert answer.is_success
        assert "is in drive-1" in problem(client.post(f"{where}/export-image", json={"file": "/x.tap"}))
        asked = {"file": str(served.state / "secrets.key"), "barcode": "A00002L8"}
        assert "is the server's own" in problem(client.post("/libraries/vault/import-image", json=asked))
        asked = {"file": str(served.state / "state.db-journal")}
        assert "is the server's own" in problem(client.post(f"{where}/export-image", json=asked))
        assert "L5 to L9" in problem(
            client.post("/libraries/vault/import-image", json={"file": str(image), "barcode": "B"})
        )
    served.account("operator", Role.OPERATOR)
    with logged_in(served, "operator") as operator:
        assert operator.post(f"{where}/export-image", json={"file": "/x.tap"}).status_code == 403
        assert operator.delete(where).status_code == 403
        assert "in drive-1: move it" in problem(operator.post(f"{where}/label", json={"barcode": "B00001L8"}))
        assert operator.post("/libraries/vault/move", json={"source": "A00001L8", "destination": "io-1"}).is_success
        assert "is no barcode" in problem(operator.post(f"{where}/label", json={"barcode": "../x"}))
        labelled = operator.post(f"{where}/label", json={"barcode": "B00001L8"})
        assert (labelled.json()["barcode"], labelled.json()["element"]) == ("B00001L8", "io-1")
        where = labelled.headers["Location"].removeprefix("/api/v1")
        assert operator.get(where).json()["barcode"] == "B00001L8"
        new = {"barcode": "C09L8", "count": 3, "size": 1 << 20}
        done = _finished(operator, operator.post("/libraries/vault/create-cartridges", json=new))
        assert (done["state"], done["done"], done["total"], done["unit"]) == ("done", 3, 3, "cartridges")
        made = {each["barcode"]: each["element"] for each in operator.get("/libraries/vault/cartridges").json()}
        assert made == {"B00001L8": "io-1", "C09L8": "slot-1", "C10L8": "slot-2", "C11L8": "slot-3"}
    with served.local() as client:
        seen = client.get(where).headers["ETag"]
        assert client.post("/libraries/vault/move", json={"source": "io-1", "destination": "slot-9"}).is_success
        assert client.delete(where, headers={"If-Match": seen}).status_code == 412
        assert client.delete(where).status_code == 204
        assert client.get(where).status_code == 404

        def told() -> set[str]:
            return {event["what"] for event in client.get("/events").json()}

        eventually(lambda: {"cartridge-labelled", "cartridge-deleted"} <= told(), "the events of that")
        assert any('"request": "remove"' in entry["what"] for entry in client.get("/audit").json())
