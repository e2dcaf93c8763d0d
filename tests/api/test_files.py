"""Directories of the server, by the API."""

from __future__ import annotations

import asyncio
import threading
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest

from blockyard.api.aside import aside
from blockyard.api.problems import Refused
from tests.api.conftest import ApiFactory
from tests.api.serving import Api
from tests.waiting import LIMIT


def _problem(client: httpx.Client, **query: str) -> tuple[int, str]:
    answer = client.get("/files", params=query)
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == answer.status_code
    return problem["status"], problem["detail"]


def test_a_directory(shared: Api, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "disk.img").write_bytes(bytes(512))
    with open(bytes(tmp_path) + b"/\xff", "wb"):
        pass
    with shared.local() as client:
        found = client.get("/files", params={"path": f"{tmp_path}//./"}).raise_for_status().json()
        assert (found["path"], found["parent"], found["more"]) == (str(tmp_path), str(tmp_path.parent), False)
        assert [(each["name"], each["kind"]) for each in found["entries"]] == [
            ("sub", "directory"), ("disk.img", "file"), ("\ufffd", "file"),
        ]  # fmt: skip
        assert found["entries"][1] == {
            "name": "disk.img", "path": str(tmp_path / "disk.img"), "kind": "file", "link": False, "size": 512,
            "modified": pytest.approx((tmp_path / "disk.img").stat().st_mtime), "format": "raw", "model": "", "used": "",
            "holds": "", "problem": "",
        }  # fmt: skip
        one = client.get("/files", params={"path": str(tmp_path), "prefix": "DI", "limit": 1}).raise_for_status().json()
        assert [each["name"] for each in one["entries"]] == ["disk.img"]
        first = client.get("/files").raise_for_status().json()
        assert first["path"] == first["places"][0]
        assert all(each["kind"] != "file" or each["path"] for each in client.get("/files?path=/dev").json()["entries"])


def test_what_cannot_be_looked_at(api: ApiFactory, tmp_path: Path) -> None:
    """By a server that has the rights of its user only, though that is root."""
    bound = "-dac_override,-dac_read_search"
    served = api(managed=True, prefix=["setpriv", f"--bounding-set={bound}", f"--inh-caps={bound}"])
    (tmp_path / "file").touch()
    (tmp_path / "closed").mkdir(mode=0)
    with served.local() as client:
        assert _problem(client, path=f"{tmp_path}/nothing") == (404, f"{tmp_path}/nothing: No such file or directory")
        assert _problem(client, path=f"{tmp_path}/file") == (400, f"{tmp_path}/file: Not a directory")
        assert _problem(client, path=f"{tmp_path}/closed") == (403, f"{tmp_path}/closed: Permission denied")
        assert _problem(client, path=f"{served.state}/keys") == (403, f"{served.state}/keys: it is the server's own")
        assert _problem(client, path="/proc")[0] == 403
        assert _problem(client, path="srv") == (400, "path: it begins with /, and has no NUL")
        assert _problem(client, path="/srv\0")[0] == 400
        assert _problem(client, path="/" + "n" * 300)[0] == 400
        assert _problem(client, path="/" + "n" * 5000)[0] == 422
        assert _problem(client, path="/", limit="0")[0] == 422
        entries = client.get("/files", params={"path": str(tmp_path)}).json()["entries"]
        assert {each["name"]: each["problem"] for each in entries}["closed"] == "Permission denied"
        entries = client.get("/files", params={"path": str(served.state)}).json()["entries"]
        assert [(each["name"], each["used"]) for each in entries] == [("demo.img", "volume demo.img")]


def test_who_does_not_answer_holds_up_nobody() -> None:
    """As a network file system whose server is gone."""
    forever = threading.Event()

    async def ask() -> None:
        for _ in range(4):
            with pytest.raises(Refused, match="no answer"):
                await aside(forever.wait, patience=0.01)
        with pytest.raises(Refused, match="too many") as refused:
            await aside(lambda: "more")
        assert refused.value.status_code == HTTPStatus.SERVICE_UNAVAILABLE
        forever.set()
        while True:
            try:
                assert await aside(lambda: "again") == "again"
                return
            except Refused:
                await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(ask(), LIMIT))


def test_without_threads_there_is_an_answer_and_one_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    async def ask() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            for _ in range(5):
                with pytest.raises(Refused, match="no thread"):
                    await aside(lambda: "never")
        assert await aside(lambda: "again") == "again"

    asyncio.run(ask())
