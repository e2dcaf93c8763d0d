"""Notifications over REST: receivers of events are listed, made, changed, tried and taken out; no secret comes out."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from blockyard.api import schemas
from blockyard.control.roles import Role
from blockyard.worker.receivers import Mail
from tests.api.serving import Api
from tests.waiting import LIMIT

SECRET = "the key of all signatures"  # noqa: S105


@contextlib.contextmanager
def hook() -> Iterator[tuple[str, queue.Queue[tuple[Any, dict[str, Any]]]]]:
    """A web server; its URL, and what it is sent: the fields and the content."""
    had: queue.Queue[tuple[Any, dict[str, Any]]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            had.put((self.headers, json.loads(self.rfile.read(int(self.headers["content-length"])))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", had
        finally:
            server.shutdown()
            thread.join()


def test_receivers_are_made_changed_tried_and_taken_out(shared: Api, tmp_path: Path) -> None:
    secret, log = tmp_path / "secret", tmp_path / "log"
    secret.write_text(f"{SECRET}\n")
    where = "/notifications/webhook/chat"
    with (
        shared.client(shared.token(Role.ADMIN, name="notifier")) as client,
        hook() as (url, had),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon,
    ):
        daemon.bind(str(log))
        daemon.settimeout(LIMIT)
        chat = {"url": url, "secret_file": str(secret), "severity": "error"}
        made = client.put(where, json=chat, headers={"If-None-Match": "*"})
        assert made.status_code == 201, made.text
        assert made.json().items() >= {**chat, "form": "plain", "kinds": []}.items()
        assert client.get(where).headers["etag"] == made.headers["etag"]
        assert client.get(where).json() == made.json()
        assert client.put("/notifications/syslog/central", json={"to": f"unix:{log}"}).status_code == 201
        assert [(each["way"], each["name"], each["severity"]) for each in client.get("/notifications").json()] == [
            ("syslog", "central", "info"),
            ("webhook", "chat", "error"),
        ]
        assert client.get("/notifications").json()[1]["configuration"] == made.json()

        tried = client.post(f"{where}/test")
        assert tried.json() == {"way": "webhook", "name": "chat", "arrived": True, "problem": ""}
        fields, event = had.get(timeout=LIMIT)
        assert (event["what"], event["text"]) == ("test", "notifier tries whether events arrive")
        assert fields["webhook-signature"].startswith("v1,")
        assert had.empty(), "it is sent once"

        etag = {"If-Match": made.headers["etag"]}
        assert client.patch(where, json={"kinds": ["pool-*"]}).status_code == 428
        changed = client.patch(where, json={"kinds": ["pool-*"], "severity": None}, headers=etag)
        assert (changed.json()["kinds"], changed.json()["severity"]) == (["pool-*"], "info")
        assert client.patch(where, json={"kinds": []}, headers=etag).status_code == 412

        secret.unlink()
        first, second = client.post("/notifications/test").json()
        assert first == {"way": "syslog", "name": "central", "arrived": True, "problem": ""}
        assert (second["name"], second["arrived"], str(secret) in second["problem"]) == ("chat", False, True)
        with shared.client(shared.token(Role.VIEWER, name="looker")) as viewer:
            assert viewer.get(where).json()["secret_file"] == str(secret)
            assert viewer.post(f"{where}/test").status_code == 403
            assert viewer.delete(where, headers={"If-Match": "*"}).status_code == 403
        everything = "".join(client.get(path).text for path in ("/notifications", where, "/audit", "/events"))
        assert SECRET not in everything
        for path in (where, "/notifications/syslog/central"):
            assert client.delete(path).status_code == 428
            assert client.delete(path, headers={"If-Match": "*"}).status_code == 204
            assert client.get(path).status_code == 404
        assert client.get("/notifications").json() == []
        assert client.post("/notifications/test").status_code == 400


@pytest.mark.parametrize(
    ("where", "body", "why"),
    [
        ("webhook/x", {}, "one of url and url_file"),
        ("webhook/x", {"url": "http://hooks.example.com/T0KEN"}, "https"),
        ("webhook/x", {"url_file": "hook.url"}, "absolute"),
        ("mail/x", {"server": "smtp.example.com", "sender": "a@example.com"}, "to is empty"),
        ("mail/x", {"server": "smtp.example.com", "password": "x"}, "no such key"),
        ("snmp/x", {"to": "noc.example.com", "version": "3"}, "version 3 needs"),
        ("syslog/x", {"to": "carrier pigeon"}, "to is unix:PATH"),
        ("syslog/x", {"kinds": ["nonsense-*"]}, "nonsense"),
    ],
)
def test_what_makes_no_receiver_is_told(shared: Api, where: str, body: dict[str, Any], why: str) -> None:
    with shared.local() as client:
        answer = client.put(f"/notifications/{where}", json=body)
        assert answer.status_code in (400, 422), answer.text
        assert why in answer.json()["detail"]
        assert "T0KEN" not in answer.text
        assert client.get(f"/notifications/{where}").status_code == 404
        assert client.post(f"/notifications/{where}/test").status_code == 404


def test_what_all_receivers_have_is_explained() -> None:
    assert "so severe at least" in schemas.of(Mail)["properties"]["severity"]["description"]
