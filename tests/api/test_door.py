"""What every request has to pass: who asks, where it comes from, how much it brings, how often."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import time

import httpx

from blockyard.api.guard import MAX_BODY
from blockyard.api.rates import Rate, Rates
from blockyard.control.limits import FIRST_WAIT
from blockyard.control.roles import Role
from tests.api.conftest import ApiFactory
from tests.api.serving import PASSWORD, Api, logged_in
from tests.conftest import run
from tests.waiting import LIMIT, eventually


def problem(answer: httpx.Response) -> str:
    """What an answer says is wrong, which it does in the form of RFC 9457."""
    assert answer.headers["content-type"] == "application/problem+json"
    found = answer.json()
    assert found["status"] == answer.status_code
    assert found["title"]
    return str(found["detail"])


def test_the_first_account_is_made_once_and_logged_in(api: ApiFactory) -> None:
    served = api()
    with served.client() as client:
        assert client.get("/setup").json() == {"needed": True, "code_needed": False}
        assert client.get("/me").status_code == 401
        answer = client.post("/setup", json={"name": "admin", "password": "short"})
        assert answer.status_code == 422
        assert "12 characters" in problem(answer)
        answer = client.post("/setup", json={"name": "admin", "password": PASSWORD})
        assert answer.status_code == 201
        assert answer.json()["role"] == "admin"
        cookie = answer.headers["set-cookie"]
        assert all(word in cookie for word in ("HttpOnly", "SameSite=strict", "Path=/"))
        assert client.get("/me").json()["name"] == "admin"
        assert client.get("/setup").json()["needed"] is False
        answer = client.post("/setup", json={"name": "other", "password": PASSWORD})
        assert answer.status_code == 409


def test_a_proxy_is_not_this_machine(api: ApiFactory) -> None:
    served = api()
    with served.client() as client:
        client.headers["X-Forwarded-For"] = "192.0.2.1"
        assert client.get("/setup").json() == {"needed": True, "code_needed": True}
        answer = client.post("/setup", json={"name": "admin", "password": PASSWORD, "code": "0123456789abcdef"})
        assert answer.status_code == 403


def test_a_cookie_is_not_enough_for_changes(shared: Api) -> None:
    shared.account("ann", Role.ADMIN)
    with logged_in(shared, "ann") as client:
        assert client.post("/commands/status", json={}).status_code == 200
        client.headers.pop("X-CSRF-Token")
        assert client.get("/status").status_code == 200
        answer = client.post("/commands/status", json={})
        assert answer.status_code == 403
        assert "x-csrf-token" in problem(answer)


def test_logging_out_ends_the_session(shared: Api) -> None:
    shared.account("bob", Role.ADMIN)
    with logged_in(shared, "bob") as client:
        cookie = client.cookies["blockyard-session"]
        assert client.post("/logout").status_code == 204
        client.cookies.set("blockyard-session", cookie)
        assert client.get("/me").status_code == 401


def test_other_sites_are_refused(shared: Api) -> None:
    token = shared.token(Role.ADMIN, name="other-sites")
    with shared.client(token) as client:
        assert client.get("/me", headers={"Host": f"localhost:{shared.address.rpartition(':')[2]}"}).status_code == 200
        assert client.get("/me", headers={"Host": "evil.example"}).status_code == 421
        assert client.get("/me", headers={"Origin": "http://evil.example"}).status_code == 403
        assert client.get("/me", headers={"Origin": "null"}).status_code == 403
        assert client.get("/me", headers={"Origin": "http://["}).status_code == 403, "which is no URL"
        assert client.get("/me", headers={"Origin": f"http://{shared.address}"}).status_code == 200
        assert client.get("/me", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_tokens_that_are_none(shared: Api) -> None:
    token = shared.token(Role.VIEWER)
    for wrong in ("nonsense", token[:-1] + ("A" if token[-1] != "A" else "B"), token + "A", "ü"):
        with httpx.Client(base_url=shared.base) as client:
            answer = client.get("/me", headers={b"Authorization": f"Bearer {wrong}".encode("latin-1")})
        assert answer.status_code == 401, wrong
        assert answer.headers["www-authenticate"].startswith("Bearer")
    with shared.client(token) as client:
        assert client.get("/me").json() | {"csrf": None} == {
            "name": "the-viewer", "role": "viewer", "targets": [], "by": "token", "csrf": None, "expires_in": None, "totp": False,
        }  # fmt: skip


def test_curl_by_the_unix_socket_needs_no_password(shared: Api) -> None:
    path = shared.state / "api.sock"
    assert path.stat().st_mode & 0o777 == 0o600
    told = run(["curl", "-sS", "--unix-socket", path, "http://local/api/v1/me"]).stdout
    assert json.loads(told)["role"] == "admin"
    assert json.loads(told)["by"] == "local"


def test_a_request_has_an_end(shared: Api) -> None:
    token = shared.token(Role.ADMIN, name="too-much")
    with shared.client(token) as client:
        answer = client.post("/commands/status", content=b" " * (MAX_BODY + 1))
        assert answer.status_code == 413

        def pieces() -> object:
            for _ in range(20):
                yield b" " * (MAX_BODY // 8)

        answer = client.post("/commands/status", content=pieces())  # type: ignore[arg-type]
        assert answer.status_code == 413
        assert "1048576 bytes" in problem(answer)
    host, _, port = shared.address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=LIMIT) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nX-Long: " + b"x" * 40000)
        sock.settimeout(LIMIT)
        assert b"400 Bad Request" in sock.recv(4096)


def _raw(served: Api, *pieces: bytes) -> bytes:
    """What is answered to bytes, until the connection is closed."""
    host, _, port = served.address.rpartition(":")
    told = b""
    with socket.create_connection((host, int(port)), timeout=LIMIT) as sock, contextlib.suppress(ConnectionError):
        for piece in pieces:
            sock.sendall(piece)
        while data := sock.recv(1 << 16):
            told += data
    return told


_GET = b"GET /api/v1/setup HTTP/1.1\r\n"
_HOST = b"Host: localhost\r\n"


_CLOSE = b"Connection: close\r\n"
_NONSENSE = (
    b"nonsense\r\n\r\n",
    _GET + b"\r\n",  # RFC 9112 section 3.2
    _GET + _HOST + _HOST + b"\r\n",
    b"GET /api/v1/setup HTTP/2.0\r\n" + _HOST + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT localhost:1 HTTP/1.1\r\n" + _HOST + b"\r\n",
    _GET + _HOST + b"Bad Name: x\r\n\r\n",
    _GET + _HOST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    _GET + _HOST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    _GET + _HOST + b"Content-Length: -3\r\n\r\n",
    _GET + _HOST + b"X: y\r\n" * 10_000 + b"\r\n",
    _GET + _HOST + b"X: " + b"y" * 40_000,
)


def test_what_is_no_request_is_told_so(shared: Api) -> None:
    for request in _NONSENSE:
        told = _raw(shared, request)
        assert told.startswith(b"HTTP/1.1 400 Bad Request\r\n"), request[:200]
        assert told.count(b"HTTP/1.1") == 1, request[:200]


def test_a_connection_takes_requests_as_they_come(api: ApiFactory) -> None:
    served = api()
    one, last = _GET + _HOST + b"\r\n", _GET + _HOST + _CLOSE + b"\r\n"
    assert _raw(served, one * 10 + last).count(b"HTTP/1.1 200 OK\r\n") == 11, "in a row"
    assert _raw(served, *(last[at : at + 1] for at in range(len(last)))).count(b"HTTP/1.1 200 OK\r\n") == 1, "in pieces"
    upgrade = _GET + _HOST + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert _raw(served, upgrade).startswith(b"HTTP/1.1 200 OK\r\n"), "whatever else it would like to speak"
    assert _raw(served, one * 1000 + last).count(b"HTTP/1.1 200 OK\r\n") < 100, "more than anybody sends"
    trailers = b"POST /api/v1/login HTTP/1.1\r\n" + _HOST + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    assert not _raw(served, trailers, b"X: " + b"y" * 600_000).count(b"HTTP/1.1 200"), "without an end"


def test_every_answer_carries_its_policy(shared: Api) -> None:
    with shared.client() as client:
        for path in ("/me", "/setup", "/nowhere", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"):
            answer = client.get(path)
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert "root:" not in answer.text


def test_a_method_that_a_path_does_not_know(shared: Api) -> None:
    with shared.local() as client:
        for path in ("/login", "/logout", "/pools/p/scrub"):
            answer = client.get(path)
            assert answer.status_code == 405, path
            assert answer.headers["allow"] == "POST"
        assert client.get("http://local/").headers["content-type"].startswith("text/html")
        assert client.get("http://local/nowhere").status_code == 404


def test_who_guesses_waits(api: ApiFactory) -> None:
    served = api()
    served.account("admin", Role.ADMIN)
    with served.client() as client:
        statuses: list[int] = []
        asked = 0.0
        while (not statuses or statuses[-1] == 401) and len(statuses) < 10:  # who is slow has waited already
            began = time.monotonic()
            answer = client.post("/login", json={"name": "admin", "password": "wrong horse battery"})
            statuses.append(answer.status_code)
            asked = began if answer.status_code == 401 else asked
        assert len(statuses) > 5
        assert statuses[-1] == 429
        assert int(answer.headers["retry-after"]) >= 1
        answer = client.post("/login", json={"name": "admin", "password": PASSWORD})
        late = time.monotonic() - asked > FIRST_WAIT
        assert late or answer.status_code == 429, "the right password does not help whoever has to wait"


def test_a_bucket_of_requests() -> None:
    now = 0.0
    rates = Rates(lambda: now)
    rate = Rate(10, 3)
    assert [rates.take("a", rate) for _ in range(4)] == [0, 0, 0, 0.1]
    assert rates.take("b", rate) == 0
    now = 0.1
    assert rates.take("a", rate) == 0
    assert rates.take("a", rate) > 0
    now = 100.0
    assert [bool(rates.take("a", rate)) for _ in range(4)] == [False, False, False, True]


def test_too_many_requests_are_refused(api: ApiFactory) -> None:
    served = api()
    request = b"GET /api/v1/setup HTTP/1.1\r\nHost: %s\r\n\r\n" % served.address.encode()
    host, _, port = served.address.rpartition(":")
    with (
        contextlib.ExitStack() as stack
    ):  # at once, as a machine may be so slow that it gets no more than it may in turn
        places = [(host, int(port))] * 400
        socks = [stack.enter_context(socket.create_connection(place, timeout=LIMIT)) for place in places]
        for sock in socks:
            sock.sendall(request)
        statuses = {sock.recv(4096).split()[1] for sock in socks}
    assert statuses == {b"200", b"429"}


def test_control_yields_to_workers(api: ApiFactory) -> None:
    served = api()
    assert os.sched_getscheduler(served.serving.pid) == os.SCHED_BATCH
    (worker,) = served.serving.workers
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: served.serving.workers not in ([], [worker]), "another worker")
    eventually(lambda: _others(served.serving.workers), "it does not yield, though whoever has started it does")


def _others(pids: list[int]) -> bool:
    return all(os.sched_getscheduler(pid) == os.SCHED_OTHER for pid in pids)


def test_a_disk_is_served_without_what_the_api_needs() -> None:
    """Importing FastAPI takes longer than all the rest: who does not want the API does not wait for it."""
    code = (
        "import sys, asyncio, blockyard.cli.main, blockyard.cli.serve, blockyard.api.service\n"
        "print(sorted({'fastapi', 'uvicorn', 'pydantic', 'starlette'} & sys.modules.keys()))"
    )
    assert run([sys.executable, "-c", code]).stdout.strip() == "[]"
