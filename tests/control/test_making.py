"""Layers are made by the server: over REST with typed options, in the places that are allowed, with keys that it keeps."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from blockyard.block.building import open_stack
from blockyard.block.stack import Call, Word
from blockyard.cli.main import main
from blockyard.control import making
from blockyard.control.errors import ControlError, UsageError
from blockyard.control.making import PATIENT
from blockyard.control.roles import Role
from blockyard.initiator import connect
from blockyard.worker.configuration import Api as Settings
from blockyard.worker.configuration import Configuration
from blockyard.worker.declared import DeclaredLayer
from tests.api.conftest import (
    ApiFactory,
    api,  # noqa: F401  (a fixture)
)
from tests.api.serving import Api
from tests.conftest import need
from tests.waiting import eventually

MiB = 1 << 20
IQN = "iqn.2024-01.com.example:made"


def _make(client: httpx.Client, kind: str, *on: str | Path, status: int = 201, **more: Any) -> dict[str, Any]:
    answer = client.post("/layers", json={"kind": kind, "on": list(map(str, on)), "wait": PATIENT, **more})
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()
    return found


def _show(served: Api, client: httpx.Client, stack: str) -> str:
    """A volume that is a stack, as LUN 0; its URL."""
    for where, body in (("/volumes/made", {"stack": stack}), (f"/targets/{IQN}", {"luns": {"0": "made"}})):
        answer = client.put(where, json=body)
        assert answer.is_success, answer.text
    return f"iscsi://{served.serving.portals[0]}/{IQN}/0"


def test_an_encrypted_disk_on_a_mirror(api: ApiFactory, tmp_path: Path) -> None:  # noqa: F811
    served = api(managed=True)
    _check_that_nothing_is_left(served, tmp_path)
    legs = [tmp_path / "a.img", tmp_path / "b.img"]
    with served.local() as client:
        made = _make(client, "raid1", *legs, size=64 * MiB, options={"name": "pair", "region": "1M"})
        assert made["stack"] == f'raid1("{legs[0]}", "{legs[1]}")'
        assert "RAID 1 of 2 members" in made["text"]
        cheap = {"kdf": "pbkdf2", "time": 1000}
        asked: dict[str, Any] = {"passphrase": "correct horse", "name": "diary", "options": cheap}
        luks = _make(client, "luks", made["stack"], **asked)
        key = served.state / "keys" / "diary.key"
        assert key.read_bytes() == b"correct horse"
        assert key.stat().st_mode & 0o777 == 0o600
        assert client.get("/layers/diary").json()["configuration"]["key_file"] == str(key.absolute())
        assert "correct horse" not in client.get("/audit").text
        with connect(_show(served, client, "diary")) as lun:
            lun.write(0, b"x" * 512)
            lun.flush()
        again = _make(client, "luks", "/x", status=409, **asked)
        assert "there is a layer 'diary' already" in again["detail"]
        used = _make(client, "raid0", *legs, status=409, options={"force": True})
        assert "is used twice" in used["detail"], "they are in use"
        client.delete(f"/targets/{IQN}", headers={"If-Match": "*"})
    assert luks["stack"].startswith("luks(key_file=")
    served.serving.stop()
    tested: list[str | Path] = [
        Path(need("cryptsetup", "cryptsetup")),
        "open",
        "--test-passphrase",
        "--header",
        _leg(legs[0], tmp_path),
        legs[0],
    ]
    assert subprocess.run(tested, input=b"correct horse", check=False).returncode == 0


def _leg(leg: Path, directory: Path) -> Path:
    """What the mirror keeps on a leg, without what it has for itself."""
    whole = leg.read_bytes()
    found = directory / "header"
    found.write_bytes(whole[whole.index(b"LUKS\xba\xbe") :])
    return found


def _check_that_nothing_is_left(served: Api, tmp_path: Path) -> None:
    """Of what could not be made."""
    a, b = tmp_path / "a.img", tmp_path / "b.img"
    with served.local() as client:
        for kind, on, more, problem in (
            ("raid1", (a, b), {}, "say the size of files"),
            ("raid1", (a, b), {"size": MiB, "options": {"chunk": "3K"}}, "the chunk is a power of two"),
            ("raid1", (a, b), {"size": MiB, "options": {"chnk": "4K"}}, "did you mean chunk"),
            ("raid5", (a, b), {"size": MiB}, "at least 3 members"),
            ("raid1", (a, tmp_path / "no" / "b.img"), {"size": MiB}, "No such file"),
            ("concat", (a, b), {"size": MiB}, "keeps nothing"),
            ("raid7", (a, b), {"size": MiB}, "there is no kind of layer 'raid7'"),
            ("raid1", (a, b), {"size": MiB, "passphrase": "x"}, "a passphrase is for encrypted disks"),
            ("luks", (a,), {"size": MiB, "passphrase": "x", "name": "../x"}, "name"),
            ("raid1", ("/a\0b", a), {"size": MiB}, "no NUL"),
            ("luks", (a,), {"size": MiB, "passphrase": "x", "options": {"sector": "7"}}, "sector is one of"),
            ("compressed", (a,), {"size": MiB}, "size: it is missing"),
        ):
            answer = client.post("/layers", json={"kind": kind, "on": list(map(str, on)), "wait": PATIENT, **more})
            assert answer.status_code in (400, 409, 422, 500), answer.text
            assert answer.status_code != 500
            assert problem in answer.json()["detail"], answer.text
            assert not a.exists()
            assert not b.exists()
        assert not list(served.state.glob("keys/*"))


def _check_that_only_what_is_allowed_is_used(served: Api, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.mkdir()
    bad.mkdir()
    (good / "link").symlink_to(bad)
    with served.local() as client:
        there = client.get("/settings/api")
        settings = there.json() if there.is_success else {"listen": served.address}
        answer = client.put(
            "/settings/api", json={**settings, "paths": [str(good), str(served.state)]}, headers={"If-Match": "*"}
        )
        assert answer.is_success, answer.text
        _make(client, "raid1", good / "a.img", good / "b.img", size=MiB)
        (good / "harmless.img").symlink_to(served.state / "state.db")
        for own in (served.state / "state.db", served.state / "keys" / "new", good / "harmless.img"):
            for body in ({"path": str(own), "size": MiB}, {"stack": f"concat({own})"}):
                assert "is the server's own" in client.put("/volumes/x", json=body).json()["detail"]
            told = _make(client, "raid0", good / "a.img", own, size=MiB, status=409, options={"force": True})
            assert "is the server's own" in told["detail"]
        for place in (bad, good / "link"):
            told = _make(client, "raid1", place / "a.img", place / "b.img", size=MiB, status=400)
            assert "may not be used here" in told["detail"]
        for where, body in (
            ("/volumes/x", {"path": str(bad / "x.img"), "size": MiB}),
            ("/volumes/x", {"stack": f"concat({bad}/x.img)"}),
            ("/libraries/x", {"directory": str(bad / "x")}),
        ):
            assert "may not be used here" in client.put(where, json=body).json()["detail"]
        pool = {"name": "p", "directory": str(bad / "p"), "size": 64 * MiB}
        assert "may not be used here" in client.post("/pools", json=pool).json()["detail"]
    assert not list(bad.iterdir())


def test_a_cache_on_a_volume_of_a_pool(api: ApiFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # noqa: F811
    served = api(managed=True)
    with served.local() as client:
        pool = {"name": "fast", "directory": str(tmp_path / "fast"), "size": 256 * MiB}
        assert client.post("/pools", json=pool).is_success
        assert client.post("/pools/fast/volumes", json={"name": "slow", "size": 64 * MiB}).is_success
        kinds = {kind["name"]: kind for kind in client.get("/layer-kinds").json()}
        assert kinds["ssd-cache"]["creation"]["properties"]["block"]["default"] == 4096
        assert (kinds["raid1"]["least"], kinds["raid1"]["most"], kinds["concat"]["creation"]) == (1, None, None)
        road = ["--url", f"http://{served.address}", "--token-file", str(_token(served, tmp_path / "token"))]
        stack = f"ssd-cache(pool(fast/slow), {tmp_path}/ssd.img)"
        assert main([*road, "layer", "create", stack, "--size", "16M"]) == 0
        assert f'ssd-cache(pool("fast/slow"), "{tmp_path}/ssd.img")' in capsys.readouterr().out.replace(
            "(fast/slow)", '("fast/slow")'
        )
        with connect(_show(served, client, f"ssd-cache(mode=back, pool(fast/slow), {tmp_path}/ssd.img)")) as lun:
            lun.write(0, b"y" * 4096)
            _check_that_nobody_takes_it_away(client, "slow", "made")
            assert lun.read(0, 8) == b"y" * 4096
        _check_that_nobody_takes_it_away(client, "slow", "made")
        assert main([*road, "layer", "replay", "x", "y"]) == 2
        assert "done on this machine" in capsys.readouterr().err
        for where in (f"/targets/{IQN}", "/volumes/made"):
            assert client.delete(where, headers={"If-Match": "*"}).is_success
        _check_that_a_worker_stops(client)
        assert client.delete("/pools/fast", headers={"If-Match": "*"}).is_success
    _check_long_work(served, tmp_path, road, capsys)
    _check_that_only_what_is_allowed_is_used(served, tmp_path)


def _check_long_work(served: Api, tmp_path: Path, road: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What takes long is a job, which leaves nothing when it is stopped."""
    slow, quick, more = tmp_path / "slow.img", tmp_path / "quick.img", tmp_path / "more.img"
    on = f"concat(throttle(iops=10, {slow}))"
    new = {"kind": "compressed", "on": [on], "size": 64 << 30, "options": {"size": "1G"}, "wait": 0}
    with served.local() as client:
        begun = client.post("/layers", json={**new, "name": "packed"})
        assert begun.status_code == 202, begun.text
        where = _begun(client, begun)
        assert where == f"/jobs/{begun.json()['job']}"
        job = client.get(where).json()
        assert (job["kind"], job["state"], job["unit"], job["total"]) == ("create", "running", "bytes", 64 << 30)
        assert job["can_cancel"]
        assert client.post(f"{where}/pause").status_code == 409
        told = _make(client, "raid1", quick, more, size=MiB, name="packed", status=409)
        assert "is just being made" in told["detail"]
        told = _make(client, "raid0", slow, more, size=MiB, options={"force": True}, status=409)
        assert "is used twice" in told["detail"]
        assert not quick.exists()
        assert not more.exists()
        assert client.delete(where).status_code == 202
        eventually(lambda: client.get(where).json()["state"] == "cancelled", "it is stopped")
        assert not slow.exists()
        assert client.get("/layers/packed").status_code == 404
        slow.write_bytes(b"")
        os.truncate(slow, 64 << 30)
        where = _begun(client, client.post("/layers", json=new))
        assert main(["layer", "cancel", "--state", str(served.state), where.rpartition(":")[2]]) == 0
        eventually(lambda: client.get(where).json()["state"] == "cancelled", "it is stopped")
        with pytest.raises(OSError, match="is no compressed disk"):
            open_stack(f"compressed({slow})")
        capsys.readouterr()
        stack = f"compressed(size=1G, {quick})"
        assert main([*road, "layer", "create", "--no-wait", "--size", "256M", stack]) == 0
        assert "job control." in capsys.readouterr().out
        eventually(lambda: client.get("/jobs").json()[-1]["state"] == "done", "it is made")
        open_stack(f"compressed({quick})").close()
        answer = client.post(
            "/layers", json={**new, "on": [str(more)], "size": 64 * MiB, "wait": PATIENT, "name": "more"}
        )
        assert (answer.status_code, client.get("/layers/more").status_code) == (201, 200), answer.text


def _check_that_a_worker_stops(client: httpx.Client) -> None:
    """It is the one that makes what stands on a volume of a pool; there is one job all the same."""
    assert client.post("/pools/fast/volumes", json={"name": "large", "size": 16 << 30}).is_success
    stack = "concat(throttle(iops=10, pool(fast/large)))"
    new = {"kind": "compressed", "on": [stack], "options": {"size": "1G", "force": True}, "wait": 0}
    where = _begun(client, client.post("/layers", json=new))
    running = [job["id"] for job in client.get("/jobs").json() if job["state"] == "running"]
    assert [f"/jobs/{job}" for job in running] == [where]
    other = {"kind": "luks", "on": ["pool(fast/large)"], "passphrase": "x", "options": {"force": True}}
    assert "is used twice" in client.post("/layers", json=other).json()["detail"]
    _check_that_nobody_takes_it_away(client, "large", "create of compressed(")
    volume = client.put("/volumes/hasty", json={"stack": "pool(fast/large)"})
    assert (volume.status_code, "is used twice" in volume.json()["detail"]) == (409, True), volume.text
    assert client.delete(where).status_code == 202
    eventually(lambda: client.get(where).json()["state"] == "cancelled", "it is stopped")


def _check_that_nobody_takes_it_away(client: httpx.Client, name: str, beneath: str) -> None:
    """A volume of a pool that something stands on is not deleted, rolled back, or made smaller."""
    where, anyhow = f"/pools/fast/volumes/{name}", {"If-Match": "*"}
    size = client.get(where).json()["size"]
    assert client.post(f"{where}/snapshots", json={"name": "now"}).is_success
    for answer in (
        client.delete(f"{where}?snapshots=true", headers=anyhow),
        client.post(f"{where}/snapshots/now/rollback", json={}),
        client.patch(where, json={"size": size // 2}, headers=anyhow),
    ):
        assert answer.status_code in (400, 409), answer.text
        assert beneath in answer.json()["detail"]
    assert client.get(where).json()["size"] == size
    assert client.delete(f"{where}/snapshots/now", headers=anyhow).is_success


def _begun(client: httpx.Client, answer: httpx.Response) -> str:
    """Where the job is asked for that an answer tells of, when something of it is done."""
    where = answer.headers["location"].removeprefix("/api/v1")
    eventually(lambda: client.get(where).json()["done"] > 0, "it is begun")
    return where


def _token(served: Api, path: Path) -> Path:
    path.write_text(served.token(Role.ADMIN))
    path.chmod(0o600)
    return path


def test_a_key_is_stable_before_anything_is_encrypted_by_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr("os.fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    server: Any = SimpleNamespace(options=SimpleNamespace(state=tmp_path))
    request = {"stack": "luks(/srv/a.img)", "passphrase": "correct horse", "name": "diary"}
    with making._key(server, request):
        keys = tmp_path / "keys"
        assert synced == list(map(str, (tmp_path, keys / "diary.key", keys)))


def test_a_name_that_somebody_has_declared_meanwhile_stays_his() -> None:
    theirs, ours = (Call("zero", (), (("size", Word(size)),)) for size in ("1M", "2M"))
    configuration = Configuration(layers={"packed": DeclaredLayer("packed", theirs)})

    async def change(edit: Any, **more: object) -> None:
        edit(configuration)

    server: Any = SimpleNamespace(change=change)
    with pytest.raises(ControlError, match="there is a layer 'packed' by now"):
        asyncio.run(making._declare(server, "packed", ours, "somebody"))


def test_a_job_that_cannot_begin_leaves_no_files(tmp_path: Path) -> None:
    server: Any = SimpleNamespace(making=making.Making())
    path, over, stack = tmp_path / "a.img", Event(), Call("raid0", (), ())

    async def begin() -> None:
        with contextlib.ExitStack() as undo:
            undo.enter_context(making.missing_files([str(path)], MiB))
            layer: Any = None
            with pytest.raises(ControlError, match="under way already"):
                making._begin(server, layer, stack, None, "somebody", undo.pop_all())

    server.making.start("create", str(stack), lambda job: str(over.wait()))
    try:
        asyncio.run(begin())
    finally:
        over.set()
    assert not path.exists()


def test_what_an_action_takes_in_is_looked_at_behind_what_is_no_stack_too() -> None:
    server: Any = SimpleNamespace(
        configuration=Configuration(api=Settings("", paths=("/srv",))),
        options=SimpleNamespace(state=Path("/srv/state")),
    )
    for devices in (["concat(", "/dev/sda"], "[/srv/a, /dev/sda]", "/dev/sda", ["concat(", "concat(/dev/sda)"]):
        with pytest.raises(UsageError, match="may not be used here"):
            making.check_devices(server, {"devices": devices})
    for device in ("/srv/state/state.db", "concat(/srv/state/state.db)"):
        with pytest.raises(ControlError, match="is the server's own"):
            making.check_devices(server, {"device": device})
    making.check_devices(server, {"devices": ["concat(", "/srv/a"], "by": "[/srv/b"})
