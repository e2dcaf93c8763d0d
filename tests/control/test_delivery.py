"""Events arrive: at rsyslog, at systemd's journal, at a web server that checks signatures, and as mail; none is lost."""

from __future__ import annotations

import contextlib
import email
import email.policy
import http.server
import json
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword
from standardwebhooks.webhooks import Webhook as Verifier

from blockyard.api.certificates import own
from blockyard.block import records
from blockyard.control import events
from blockyard.control.catalogue import CATALOGUE
from blockyard.control.configuration_file import load
from blockyard.control.delivery import Courier, Deliveries, try_all
from blockyard.control.errors import ControlError
from blockyard.control.events import Event, EventLog
from blockyard.control.state import State
from blockyard.control.syslog import SyslogSender, journal_entry, syslog_message
from blockyard.worker.receivers import Mail, Receivers, Syslog, Webhook
from tests.control.serving import serve
from tests.serving import free_port
from tests.waiting import LIMIT, eventually

RFC3339 = ' dateFormat="rfc3339"'
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"  # noqa: S105
EVENT = Event(
    CATALOGUE["login-failed"].severity, "login-failed", 'Zoë said "no"]\n', "alice", "192.0.2.1", "iqn.x", 5.25, 7
)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = State(tmp_path / "state")
    yield opened
    opened.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """Of 127.0.0.1: its file and that of its key."""
    (tmp_path / "tls").mkdir()
    found, key = own(tmp_path / "tls", "127.0.0.1", ())
    return str(found), str(key)


# ---- syslog


@contextlib.contextmanager
def rsyslog(directory: Path, inputs: str) -> Iterator[Callable[[], list[dict[str, str]]]]:
    """rsyslogd, which writes what it has understood of each message."""
    written = directory / "messages"
    fields = ("pri", "app-name", "procid", "msgid", "structured-data", "msg", "protocol-version", "timestamp")
    template = "".join(
        f'property(name="{name}" outname="{name}" format="jsonf"{RFC3339 if name == "timestamp" else ""}) constant(value=",") '
        for name in fields
    )
    (directory / "rsyslog.conf").write_text(
        f"""{inputs}
template(name="all" type="list") {{ constant(value="{{") {template}
  property(name="hostname" outname="hostname" format="jsonf") constant(value="}}\\n") }}
action(type="omfile" file="{written}" template="all")
"""
    )
    command = ["rsyslogd", "-n", "-f", f"{directory}/rsyslog.conf", "-i", f"{directory}/rsyslog.pid"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield lambda: [json.loads(line) for line in _lines(written)]
    finally:
        process.kill()
        process.wait()


def _lines(path: Path) -> list[str]:
    """Those that are whole: somebody is writing there."""
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("way", ["unix", "udp", "tcp"])
def test_rsyslog_understands_every_field(tmp_path: Path, way: str) -> None:
    port = free_port()
    inputs, to = {
        "unix": (
            f'module(load="imuxsock" SysSock.Use="off")\n'
            f'input(type="imuxsock" Socket="{tmp_path}/log" IgnoreTimestamp="off" UseSysTimeStamp="off" useSpecialParser="off")',
            f"unix:{tmp_path}/log",
        ),
        "udp": (
            f'module(load="imudp")\ninput(type="imudp" address="127.0.0.1" port="{port}")',
            f"udp://127.0.0.1:{port}",
        ),
        "tcp": (
            f'module(load="imtcp")\ninput(type="imtcp" address="127.0.0.1" port="{port}")',
            f"tcp://127.0.0.1:{port}",
        ),
    }[way]
    with rsyslog(tmp_path, inputs) as messages, contextlib.closing(SyslogSender(Syslog(to=to))) as sender:
        eventually(lambda: bool(messages()) or _sent(sender))
        eventually(lambda: bool(messages()))
        found = messages()[0]
    assert found["pri"] == str(3 * 8 + 4)
    assert (found["protocol-version"], found["app-name"], found["msgid"]) == ("1", "blockyard", "login-failed")
    assert found["timestamp"] == "1970-01-01T00:00:05.250Z"
    assert found["structured-data"] == (
        '[blockyard@32473 id="7" severity="warning" who="alice" address="192.0.2.1" target="iqn.x"]'
    )
    assert found["msg"].lstrip("\ufeff") == 'Zoë said "no"] '


def _sent(sender: SyslogSender) -> bool:
    """A datagram that comes before the daemon listens goes nowhere."""
    with contextlib.suppress(OSError):
        sender.send([EVENT])
    return False


def test_structured_data_is_escaped() -> None:
    told = syslog_message(Event(EVENT.severity, "login-failed", "x", 'a"b\\c]d\n'), 3)
    assert rb'who="a\"b\\c\]d "' in told
    assert b"\n" not in told


def test_every_kind_fits_into_a_message_id() -> None:
    assert all(len(what) <= 32 and what.isascii() for what in CATALOGUE)  # RFC 5424 §6.2.7


def test_the_journal_has_fields(tmp_path: Path) -> None:
    script = "mount -t tmpfs run /run && mkdir -p /run/systemd/journal /run/log/journal && exec /lib/systemd/systemd-journald"
    process = subprocess.Popen(["unshare", "-m", "sh", "-c", script], stderr=subprocess.DEVNULL)
    try:
        root = Path(f"/proc/{process.pid}/root/run")
        socket = root / "systemd" / "journal" / "socket"
        eventually(lambda: root.stat().st_dev != Path("/run").stat().st_dev, "a /run of its own")
        eventually(lambda: (root / "log" / "journal").exists() and socket.exists() and process.poll() is None)
        assert try_all({"journal": Syslog(to=f"journal:{socket}")}, "two\nlines") == {"journal": ""}

        def found() -> list[dict[str, str]]:
            command = [
                "journalctl",
                "-q",
                "-o",
                "json",
                "--directory",
                f"{root}/log/journal",
                "BLOCKYARD_EVENT=test",
            ]
            lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
            return [json.loads(line) for line in lines]

        eventually(lambda: bool(found()))
        (entry,) = found()
    finally:
        process.kill()
        process.wait()
    assert (entry["MESSAGE"], entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"]) == ("two\nlines", "6", "blockyard")
    assert b"BLOCKYARD_TARGET=iqn.x\n" in journal_entry(EVENT)


# ---- webhooks


class Hook:
    """A web server that takes what is posted, with the statuses that it is told to give."""

    def __init__(self, certificate: tuple[str, str], statuses: list[int]) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        self.paths: list[str] = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = statuses.pop(0) if statuses else 204
                hook.paths.append(self.path)
                if status < 300:
                    hook.taken.append((dict(self.headers.items()), body))
                self.send_response(status)
                self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: Any) -> None: ...

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}/hook?token=hidden"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_webhook_is_signed(tmp_path: Path, certificate: tuple[str, str]) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    with Hook(certificate, []) as hook:
        receiver = Webhook(url=hook.url, secret_file=str(tmp_path / "secret"), authority=certificate[0])
        assert try_all({"w": receiver}, "is it there?") == {"w": ""}
        ((headers, body),) = hook.taken
    told = Verifier(SECRET).verify(body, {name.lower(): value for name, value in headers.items()})
    assert (told["what"], told["severity"], told["text"]) == ("test", "info", "is it there?")
    with pytest.raises(Exception, match="signature"):
        Verifier(SECRET).verify(body + b" ", {name.lower(): value for name, value in headers.items()})


def test_redirects_are_not_followed_and_urls_not_told(certificate: tuple[str, str]) -> None:
    with Hook(certificate, [307, 500]) as hook:
        receiver = Webhook(url=hook.url, authority=certificate[0])
        redirected, refused = (try_all({"w": receiver}, "x")["w"] for _ in range(2))
        unknown = try_all({"w": Webhook(url=hook.url)}, "x")["w"]
    assert redirected == "127.0.0.1 answers with status 307, and redirects are not followed"
    assert hook.paths == ["/hook?token=hidden"] * 2
    assert "500" in refused
    assert "certificate" in unknown.lower()
    assert "hidden" not in redirected + refused + unknown


def test_what_was_refused_is_sent_again_in_order_and_over_a_restart(
    tmp_path: Path, state: State, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockyard.control.delivery.FIRST_DELAY", 0.01)
    monkeypatch.setattr("blockyard.control.delivery._PARTING", 120.0)
    record, told = EventLog(state), []
    with Hook(certificate, [500, 503, 429]) as hook:
        receivers = Receivers(
            webhook={"w": Webhook(url=hook.url, authority=certificate[0], severity="warning", name="w")}
        )

        def one_life(*texts: str) -> None:
            deliveries = Deliveries(tmp_path / "state", lambda what, text: told.append((what, text)))
            deliveries.configure(receivers)
            eventually(lambda: state.setting("events delivered to webhook.w") is not None)
            for text in texts:
                record.record("pool-space", "not severe enough")
                record.record("pool-full", text)
            record.flush()
            deliveries.wake()
            deliveries.configure(receivers)  # nothing is new
            if texts:
                eventually(lambda: len(hook.taken) == len(texts))
            deliveries.close()

        one_life("a", "b", "c")
        record.record("pool-full", "while nobody was there")
        record.flush()
        one_life()
        texts = [json.loads(body)["text"] for _, body in hook.taken]
        identities = {headers["webhook-id"] for headers, _ in hook.taken}
    assert texts == ["a", "b", "c", "while nobody was there"]
    assert len(identities) == 4
    assert [what for what, _ in told] == ["delivery-failed", "delivery-recovered"]
    assert "hidden" not in str(told)


def test_a_new_receiver_gets_what_is_written_before_its_courier_has_begun(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch, certificate: tuple[str, str]
) -> None:
    record, couriers = EventLog(state), list[Courier]()
    record.record("pool-full", "before")
    record.flush()
    with Hook(certificate, []) as hook:
        deliveries = Deliveries(tmp_path / "state", lambda what, text: None)

        def hold(courier: Courier) -> None:
            couriers.append(courier)

        with monkeypatch.context() as held:
            held.setattr(Courier, "start", hold)
            deliveries.configure(Receivers(webhook={"w": Webhook(url=hook.url, authority=certificate[0])}))
        record.record("pool-full", "at once")
        record.flush()
        couriers[0].start()
        eventually(lambda: [json.loads(body)["text"] for _, body in hook.taken] == ["at once"])
        deliveries.close()


def test_whoever_is_given_the_name_of_one_that_was_taken_out_gets_nothing_from_before(
    tmp_path: Path, state: State, certificate: tuple[str, str]
) -> None:
    """It may be somebody else, who is not to have what the other one has missed."""
    record = EventLog(state)

    def happens(text: str) -> None:
        record.record("pool-full", text)
        record.flush()
        deliveries.wake()

    with Hook(certificate, []) as old, Hook(certificate, []) as new:
        deliveries = Deliveries(tmp_path / "state", lambda what, text: None)
        deliveries.configure(Receivers(webhook={"w": Webhook(url=old.url, authority=certificate[0])}))
        happens("for the old one")
        eventually(lambda: len(old.taken) == 1)
        deliveries.configure(Receivers())
        eventually(
            lambda: all(thread.name != "events to webhook.w" for thread in threading.enumerate()), "it has ended"
        )
        happens("for nobody")
        deliveries.configure(Receivers(webhook={"w": Webhook(url=new.url, authority=certificate[0])}))
        happens("for the new one")
        eventually(lambda: bool(new.taken))
        deliveries.close()
        assert [json.loads(body)["text"] for _, body in new.taken] == ["for the new one"]


def test_what_is_gone_is_told(
    tmp_path: Path, state: State, monkeypatch: pytest.MonkeyPatch, certificate: tuple[str, str]
) -> None:
    monkeypatch.setattr(events, "RETAINED", 2)
    record = EventLog(state)
    state.set_setting("events delivered to webhook.w", "0")
    for number in range(5):
        record.record("pool-full", str(number))
    record.flush()
    told: list[str] = []
    with Hook(certificate, []) as hook:
        deliveries = Deliveries(tmp_path / "state", lambda what, text: told.append(f"{what}: {text}"))
        deliveries.configure(Receivers(webhook={"w": Webhook(url=hook.url, authority=certificate[0])}))
        eventually(lambda: len(hook.taken) == 2)
        deliveries.close()
    assert told == ["delivery-lost: webhook.w: 3 events are gone that it has not had"]


# ---- mail


@contextlib.contextmanager
def mailbox(certificate: tuple[str, str]) -> Iterator[tuple[int, list[Envelope]]]:
    """aiosmtpd, which wants STARTTLS and a password."""
    taken: list[Envelope] = []

    class Handler:
        async def handle_DATA(self, server: SMTP, session: object, envelope: Envelope) -> str:  # noqa: N802
            taken.append(envelope)
            return "250 OK"

    def authenticate(
        server: SMTP, session: object, envelope: object, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        return AuthResult(success=data == LoginPassword(b"storage", b"letmein"), handled=False)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    controller = Controller(
        Handler(), "127.0.0.1", free_port(), tls_context=context, require_starttls=True,
        authenticator=authenticate, auth_required=True, auth_exclude_mechanism=["LOGIN"], ready_timeout=LIMIT,
    )  # fmt: skip
    controller.start()
    try:
        yield controller.port, taken
    finally:
        controller.stop()


def test_a_flood_is_one_mail(
    tmp_path: Path, state: State, certificate: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockyard.control.delivery._PARTING", 120.0)
    (tmp_path / "password").write_text("letmein\n")
    record = EventLog(state)
    with mailbox(certificate) as (port, taken):
        receiver = Mail(
            server=f"127.0.0.1:{port}", sender="storage@example.com", to=("a@example.com", "b@example.com"),
            user="storage", password_file=str(tmp_path / "password"), authority=certificate[0],
        )  # fmt: skip
        deliveries = Deliveries(tmp_path / "state", lambda what, text: None)
        deliveries.configure(Receivers(mail={"us": receiver}))
        eventually(lambda: state.setting("events delivered to mail.us") is not None)
        record.record("pool-full", "first:\nBcc: x@example.com")
        record.flush()
        deliveries.wake()
        eventually(lambda: len(taken) == 1)
        for number in range(300):
            record.record("login-failed", f"attempt {number}")
        record.flush()
        deliveries.wake()
        deliveries.close()  # within the minute: it goes out as the server ends
        (tmp_path / "password").write_text("wrong\n")
        refused = try_all({"us": receiver}, "x")["us"]
    first, flood = (
        email.message_from_bytes(each.original_content or b"", policy=email.policy.default) for each in taken
    )
    assert taken[0].rcpt_tos == ["a@example.com", "b@example.com"]
    assert first["Subject"].endswith("error: first: Bcc: x@example.com")
    assert first["Bcc"] is None
    assert "add a member" in first.get_content().lower()
    assert flood["Subject"].endswith("attempt 0 (and 299 more)")
    assert "and 100 more" in flood.get_content()
    assert "535" in refused
    assert "wrong" not in refused


# ---- all of it


def test_a_server_delivers_and_is_not_held_up(tmp_path: Path, certificate: tuple[str, str]) -> None:
    """One receiver that is there, one that is not: what the first gets does not depend on the other."""
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    with Hook(certificate, []) as hook:
        config = tmp_path / "blockyard.toml"
        config.write_text(f"""
[volumes.disk]
path = "{image}"
[targets."iqn.2026-11.test:disk"]
luns.0 = "disk"
[events.webhook.there]
url = "{hook.url}"
authority = "{certificate[0]}"
[events.syslog.away]
to = "tcp://127.0.0.1:{free_port()}"
severity = "error"
""")
        with serve(tmp_path / "state", "--config", str(config)) as served:
            eventually(lambda: _whats(hook) == ["server-started"])
            command = [sys.executable, "-m", "blockyard", "events", "test", "--state", str(tmp_path / "state")]
            tried = subprocess.run(command, capture_output=True, text=True, check=False)
            assert tried.returncode == 2
            assert "webhook.there  it has arrived" in tried.stdout
            assert "syslog.away    Connection refused" in tried.stdout
            served.stop(signal.SIGTERM)
        eventually(lambda: _whats(hook) == ["server-started", "test", "server-stopped"])
        assert "hidden" not in served.log


def _whats(hook: Hook) -> list[str]:
    return [json.loads(body)["what"] for _, body in hook.taken]


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ('[events.syslog.a]\nto = "loghost"', "unix:PATH, udp://HOST"),
        ('[events.syslog.a]\nfacility = "kern"', "facility is one of"),
        ('[events.syslog.a]\nkinds = ["pool-ful"]', "did you mean 'pool-full'"),
        ('[events.webhook.a]\nurl = "http://example.com/x"', "the URL is to be https"),
        ('[events.webhook.a]\nurl = "https://u:p@example.com/x"', "without user and password"),
        ('[events.webhook.a]\nseverity = "info"', "one of url and url_file"),
        ('[events.mail.a]\nserver = "mx"\nsender = "a@b"\nto = []', "to is empty"),
        ('[events.mail.a]\nserver = "mx"\nsender = "a@b\\nX: y"\nto = ["c@d"]', "is not an address"),
        ('[events.mail.a]\nserver = "mx"\nsender = "a@b"\nto = ["c@d"]\nsecurity = "none"\nuser = "u"\npassword_file = "/p"',
         "only to a server with security"),
    ],
)  # fmt: skip
def test_bad_tables_are_refused(tmp_path: Path, table: str, why: str) -> None:
    (tmp_path / "c.toml").write_text(table)
    with pytest.raises(ControlError, match="events") as refused:
        load(tmp_path / "c.toml")
    assert why in str(refused.value)
    assert "u:p@" not in str(refused.value)


def test_receivers_are_written_as_they_are_read() -> None:
    table = {"syslog": {"a": {"to": "udp://[::1]", "severity": "error"}}, "mail": {"b": {"server": "mx", "sender": "a@b",
             "to": ["c@d"], "kinds": ["pool-*"]}}}  # fmt: skip
    assert records.write(records.read(Receivers, table)) == table
