"""The stream: what happens is told as it happens, to who may know, and nobody can make it wait."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import httpx
import pytest

from blockyard.api import hub
from blockyard.api.context import Context
from blockyard.api.hub import MAX_EACH, Hub, Subscription
from blockyard.control.roles import Identity, Role
from blockyard.initiator import Lun, connect
from tests.api.conftest import ApiFactory
from tests.api.serving import TWO, Api, logged_in


def _messages(answer: httpx.Response) -> Iterator[tuple[str, Any]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def _log_in(served: Api, target: str) -> Any:
    return connect(f"iscsi://{served.serving.portals[0]}/{target}/0", initiator_name="iqn.2026-11.test:host")


@contextlib.contextmanager
def _writing(lun: Lun) -> Iterator[None]:
    """Somebody writes all the time: what is told is of the second that is just over."""
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            lun.write(0, bytes(4096))

    with ThreadPoolExecutor(1) as threads:
        work = threads.submit(write)
        try:
            yield
        finally:
            over.set()
        work.result()


def test_what_happens_is_told(api: ApiFactory) -> None:
    served = api(config=TWO)
    owner = served.client(served.token(Role.OWNER, "iqn.2026-11.test:b"))
    with served.local() as client, client.stream("GET", "/stream") as answer, owner.stream("GET", "/stream") as other:
        assert answer.headers["content-type"].startswith("text/event-stream")
        messages, theirs = _messages(answer), _messages(other)
        assert next(found for name, found in messages if name == "sessions") == []
        with _log_in(served, "iqn.2026-11.test:a") as lun, _log_in(served, "iqn.2026-11.test:a"):
            told = next(found for name, found in messages if name == "sessions" and len(found) == 2)
            assert [session["target"] for session in told] == ["iqn.2026-11.test:a"] * 2
            with _writing(lun):
                busy = next(found for name, found in messages if name == "statistics" and found["total"]["write_ops"])
                doing = next(found for name, found in messages if name == "activity" and found["total"]["write_p99"])
            assert busy["volumes"]["a"]["write_ops"] > 0
            assert busy["volumes"]["b"]["write_ops"] == 0
            assert 0 < doing["volumes"]["a"]["write_p50"] <= doing["volumes"]["a"]["write_p99"]
            sessions = (doing["sessions"][f"{each['target']} {each['tsih']}"] for each in told)
            second, first = sorted(sessions, key=lambda each: bool(each["write_ops"]))
            assert (first["volumes"], first["latency"] > 0) == (["a"], True)
            assert (second["write_ops"], second["volumes"], second["latency"]) == (0, [], None), "of the same initiator"
            for name, found in theirs:
                if name == "activity":
                    assert (found["volumes"], found["sessions"], found["total"]["write_p99"]) == ({}, {}, None)
                    continue
                if name == "statistics":
                    assert found["volumes"].keys() <= {"b"}, "an owner hears of its own targets only"
                    assert found["total"]["write_ops"] == 0
                    break
                assert name == "sessions"
                assert found == []
        served.client().post("/login", json={"name": "nobody", "password": "wrong horse battery"})
        event = next(found for name, found in messages if name == "event" and found["what"] == "console-login-failed")
    with served.local() as client:
        headers = {"Last-Event-ID": str(event["id"] - 1)}
        with client.stream("GET", "/stream", headers=headers) as answer:
            again = next(found for name, found in _messages(answer) if name == "event")
        assert again["id"] == event["id"], "who comes again hears what was missed"


def test_streams_have_an_end(api: ApiFactory) -> None:
    served = api(config=TWO)
    token = served.token(Role.VIEWER)
    client = served.client(token, limits=httpx.Limits(max_connections=None))
    streams = [client.send(client.build_request("GET", "/stream"), stream=True) for _ in range(MAX_EACH + 1)]
    assert [stream.status_code for stream in streams] == [200] * MAX_EACH + [503]


def test_a_slow_reader_is_let_go_of() -> None:
    subscription = Subscription(Identity("a", Role.VIEWER))
    for number in range(1000):
        subscription.put(b"%d" % number)
    assert subscription._queue.qsize() < 100


def test_a_fault_in_one_look_does_not_end_the_stream(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(Hub):
        looks = 0

        def _newest(self) -> int:
            return 0

        async def _look(self) -> None:
            self.looks += 1
            if self.looks < 3:
                raise KeyError("what nobody has thought of")
            self._tell_all("sessions", [])

    async def main() -> None:
        faulty = Faulty(cast("Context", None))
        subscription = faulty.subscribe(Identity("a", Role.VIEWER), None)
        assert subscription is not None
        messages = aiter(subscription)
        assert [await anext(messages), await anext(messages)] == [b"retry: 2000\n\n", b"event: sessions\ndata: []\n\n"]
        faulty.close()

    monkeypatch.setattr(hub, "PERIOD", 0.001)
    asyncio.run(main())
    assert len([record for record in caplog.records if record.name == "blockyard.api.hub"]) == 1, "told once"


def test_who_may_not_watch_any_more_is_let_go_of(api: ApiFactory) -> None:
    served = api(config=TWO)
    with served.client(served.token(Role.VIEWER)) as client, client.stream("GET", "/stream") as answer:
        messages = _messages(answer)
        next(messages)
        change = served.local().patch("/accounts/the-viewer", json={"enabled": False}, headers={"If-Match": "*"})
        assert change.status_code == 200
        assert list(messages) is not None, "it ends"


def test_streams_end_with_the_token_or_session_that_opened_them(api: ApiFactory) -> None:
    served = api(config=TWO)
    token = served.token(Role.VIEWER)
    with served.client(token) as client, client.stream("GET", "/stream") as answer:
        messages = _messages(answer)
        next(messages)
        assert served.local().delete(f"/tokens/{token.split('_')[1]}", headers={"If-Match": "*"}).is_success
        assert list(messages) is not None, "it ends"
    served.account("ann", Role.VIEWER)
    with logged_in(served, "ann") as client, client.stream("GET", "/stream") as answer:
        messages = _messages(answer)
        next(messages)
        assert client.post("/logout").status_code == 204
        assert list(messages) is not None, "it ends"
