"""A request that has come before has the answer that it had, for exactly as long as that is right."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from blockyard.api.context import Context
from blockyard.api.rates import KNOWN
from blockyard.api.repeats import Repeats
from blockyard.control.accounts import Accounts
from blockyard.control.administration import ask
from blockyard.control.roles import Identity, Role
from blockyard.control.state import State
from blockyard.initiator import connect
from tests.api.conftest import ApiFactory
from tests.api.serving import Api, known
from tests.waiting import LIMIT

_GET, _ANSWER = b"GET /api/v1/status HTTP/1.1\r\nHost: local\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
_ROOT = Identity("root", Role.ADMIN, by="local")


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Context]:
    """Of a server that does nothing."""
    supervisor = SimpleNamespace(handed_over=0, handing_over=0)
    server: Any = SimpleNamespace(options=SimpleNamespace(state=tmp_path), changes=0, supervisor=supervisor)
    context = Context(server)
    yield context
    context.close()


def _kept(here: Context, who: Identity = _ROOT, user: str = "root", answer: bytes = _ANSWER) -> Repeats:
    """With one answer, which is good until 10."""
    repeats = Repeats(here)
    repeat = repeats.begin(user, _GET)
    repeat.allow(who, here.changes(), 10.0)
    repeats.keep(repeat, answer)
    return repeats


def test_an_answer_is_given_again_until_it_is_old(here: Context) -> None:
    repeats = _kept(here)
    assert repeats.answer("root", _GET, 9.9) == _ANSWER
    assert repeats.answer("root", _GET, 10.0) is None
    assert repeats.answer("root", _GET + b" ", 9.9) is None
    assert repeats.answer("other", _GET, 9.9) is None, "another user of this machine"


def test_an_answer_is_given_again_until_something_changes(here: Context) -> None:
    server = cast("Any", here.server)
    repeats = _kept(here)
    server.changes += 1
    assert repeats.answer("root", _GET, 0.0) is None, "a command, or what is served"
    repeats = _kept(here)
    here.forget()
    assert repeats.answer("root", _GET, 0.0) is None, "a request"
    repeats = _kept(here)
    server.supervisor.handed_over += 1
    assert repeats.answer("root", _GET, 0.0) is None, "an initiator"
    server.supervisor.handing_over += 1
    assert _kept(here).answer("root", _GET, 0.0) is None, "an initiator that may be logged in or not"
    server.supervisor.handing_over -= 1
    repeats = _kept(here)
    here.hosts = ("blockyard.example",)
    assert repeats.answer("root", _GET, 0.0) is None, "the names that it goes by"


def test_what_is_not_kept(here: Context) -> None:
    assert _kept(here, answer=b"HTTP/1.1 404 Not Found\r\n\r\n").answer("root", _GET, 0.0) is None
    assert _kept(here, answer=_ANSWER + b" " * (1 << 16)).answer("root", _GET, 0.0) is None
    session = Identity("ann", Role.ADMIN, by="session 1234")
    assert _kept(here, session, "").answer("", _GET, 0.0) is None, "its session would end, as if nothing came"
    assert _kept(here, Identity("", Role.OWNER), "").answer("", _GET, 0.0) is None, "nobody has proved anything"
    repeats = _kept(here)
    for number in range(200):
        repeat = repeats.begin("root", b"%d" % number)
        repeat.allow(_ROOT, here.changes(), 10.0)
        repeats.keep(repeat, _ANSWER)
    assert repeats.answer("root", _GET, 0.0) is None, "they would fill the memory"
    assert repeats.answer("root", b"199", 0.0) == _ANSWER


def test_who_is_revoked_is_not_answered_again(here: Context) -> None:
    with contextlib.closing(State(here.server.options.state)) as state:
        accounts = Accounts(state)
        accounts.add("admin", Role.ADMIN, known())
        accounts.add("ann", Role.OPERATOR, known())
        token, text = accounts.add_token("ann", "", None, None)
        for change in (
            lambda: accounts.set("ann", role=Role.VIEWER),
            lambda: accounts.set("ann", enabled=False),
            lambda: accounts.set("ann", enabled=True),
            lambda: accounts.revoke(token.id),
        ):
            who = here.accounts.of_token(text)
            repeats = _kept(here, who, "") if who else Repeats(here)
            assert repeats.answer("", _GET, 0.0) == (_ANSWER if who else None)
            change()  # as another process does
            assert repeats.answer("", _GET, 0.0) is None


def test_repeats_are_counted(here: Context) -> None:
    accounts = here.accounts
    accounts.add("admin", Role.ADMIN, known())
    who = accounts.of_token(accounts.add_token("admin", "", None, None)[1])
    assert who is not None
    here.rates._clock = lambda: 0.0  # time stands still
    repeats = _kept(here, who, "")
    answers = [repeats.answer("", _GET, 0.0) for _ in range(int(KNOWN.burst) + 1)]
    assert answers == [_ANSWER] * int(KNOWN.burst) + [None]


def _asked(served: Api, *pieces: bytes) -> bytes:
    """What is answered to bytes, until the connection is closed."""
    host, _, port = served.address.rpartition(":")
    told = b""
    with socket.create_connection((host, int(port)), timeout=LIMIT) as sock:
        for piece in pieces:
            sock.sendall(piece)
        while data := sock.recv(1 << 16):
            told += data
    return told


def test_requests_come_again_in_any_pieces(shared: Api) -> None:
    token = shared.token(Role.VIEWER)
    fields = f"Host: localhost\r\nAuthorization: Bearer {token}\r\n".encode()
    one = b"GET /api/v1/targets HTTP/1.1\r\n" + fields + b"\r\n"
    other = b"GET /api/v1/me HTTP/1.1\r\n" + fields + b"\r\n"
    last = b"GET /api/v1/jobs HTTP/1.1\r\n" + fields + b"Connection: close\r\n\r\n"
    with shared.client(token) as client:
        targets, me, jobs = (client.get(path).content for path in ("/targets", "/me", "/jobs"))
    for pieces in (
        (one, one, one, last),
        (one + one, one, last),
        (one, one[:20], one[20:], last),
        (one, other, one, other + one, one, last),
        (last,),
    ):
        told, asked = _asked(shared, *pieces), b"".join(pieces)
        assert told.count(b"HTTP/1.1 200 OK\r\n") == asked.count(b"HTTP/1.1")
        contents = [part.partition(b"\r\n\r\n")[2] for part in told.split(b"HTTP/1.1 200 OK\r\n")[1:]]
        order = [asked.split(b"GET /api/v1/")[number + 1].partition(b" ")[0] for number in range(len(contents))]
        assert contents == [{b"targets": targets, b"me": me, b"jobs": jobs}[path] for path in order]


def test_what_is_the_content_of_another_request_is_not_answered(shared: Api) -> None:
    """A request that has come before, byte for byte, and alone: but it is what another one brings (RFC 9112 §11.2)."""
    fields = f"Host: localhost\r\nAuthorization: Bearer {shared.token(Role.OPERATOR)}\r\n".encode()
    one = b"GET /api/v1/targets HTTP/1.1\r\n" + fields + b"\r\n"
    last = b"GET /api/v1/jobs HTTP/1.1\r\n" + fields + b"Connection: close\r\n\r\n"
    post = b"POST /api/v1/targets HTTP/1.1\r\n" + fields
    whole = post + b"Content-Length: %d\r\n\r\n" % len(one)
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % len(one)
    for pieces in ((one, one, whole, one, last), (one, one, chunked, one, b"\r\n0\r\n\r\n", last)):
        told = _asked(shared, *pieces)
        assert [part[:3] for part in told.split(b"HTTP/1.1 ")[1:]] == [b"200", b"200", b"405", b"200"]


def test_what_changes_is_seen_at_once(api: ApiFactory) -> None:
    served = api()
    token = served.token(Role.VIEWER)
    with served.local() as local, served.client(token) as client:
        for who in (local, client):
            assert [len(who.get("/sessions").json()) for _ in range(5)] == [0] * 5
        with connect(served.serving.url(), initiator_name="iqn.2026-11.test:host"):
            assert len(local.get("/sessions").json()) == 1
            assert len(client.get("/sessions").json()) == 1
        (volume,) = local.get("/volumes").json()
        ask(served.state, "volume resize", volume=volume["name"], size=str(2 * volume["size"]))
        assert local.get("/volumes").json()[0]["size"] == 2 * volume["size"]
        assert client.get("/me").status_code == 200
        with contextlib.closing(State(served.state)) as state:
            Accounts(state).set("the-viewer", enabled=False)
        assert client.get("/me").status_code == 401
