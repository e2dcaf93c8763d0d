"""`doctor`, `support-bundle` and `top`."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import socket
import sys
import tarfile
from pathlib import Path

import pytest

from blockyard.cli import doctor, top
from blockyard.cli.main import main
from blockyard.control import audit
from blockyard.control.events import EventLog
from blockyard.control.state import State
from blockyard.control.users import Users
from blockyard.initiator import connect
from blockyard.iscsi.chap import Account
from blockyard.scsi.traffic import pair
from tests.cli.test_completion import read_until
from tests.control.serving import serve
from tests.serving import free_port

SECRETS = ("chap-secret-of-alice", "secret-of-the-target", "pass-in-a-url")


def test_a_bundle_has_everything_but_secrets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, log, file = tmp_path / "s", tmp_path / "server.log", tmp_path / "bundle.tar.gz"
    with serve(state) as served:
        with contextlib.closing(State(state)) as opened:
            account = Account("alice", SECRETS[0].encode(), "target", SECRETS[1].encode())
            Users(opened).add(account)
            events = EventLog(opened)
            events.record("server-says", f"alice said {SECRETS[0]} aloud")
            events.flush()
            entry = audit.Entry(
                "alice", f"changed to {SECRETS[1]}", {"password": "in-the-audit"}, f"nbd://u:{SECRETS[2]}@host/"
            )
            audit.record(opened, entry)
        log.write_text(f"GET https://bob:{SECRETS[2]}@example.com/\nsecret {SECRETS[0]}\n{SECRETS[0].encode().hex()}\n")
        arguments = ["support-bundle", str(file), "--log", str(log), "--state", str(state)]
        assert main(arguments) == 0
        assert main(arguments) == 2  # there is one already
        assert served.stop() == 0
    assert file.stat().st_mode & 0o777 == 0o600
    with tarfile.open(file) as archive:
        found = {member.name.partition("/")[2]: archive.extractfile(member).read().decode() for member in archive}  # type: ignore[union-attr]
    key = (state / "secrets.key").read_bytes()
    for name, text in found.items():
        for secret in (*SECRETS, "in-the-audit", SECRETS[0].encode().hex(), key.hex()):
            assert secret not in text, name
    assert {
        "configuration.json",
        "status.json",
        "events.json",
        "doctor.json",
        "logs/server.log",
        "logs/journal.txt",
    } <= found.keys()
    assert json.loads(found["configuration.json"])["volumes"]["demo.img"]
    assert "alice said (removed) aloud" in found["events.json"]
    assert "https://bob:(removed)@example.com/" in found["logs/server.log"]


def test_a_bundle_without_a_server(tmp_path: Path) -> None:
    assert main(["support-bundle", str(tmp_path / "b"), "--state", str(tmp_path / "none")]) == 0
    with tarfile.open(tmp_path / "b") as archive:
        status = archive.extractfile("blockyard-support/status.json")
        assert status is not None
        assert "nobody serves" in json.load(status)["error"]
    assert not (tmp_path / "none").exists()


def severities(directory: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for finding in doctor.examine(directory):
        found.setdefault(finding.what, set()).add(finding.severity)
    return found


def test_the_doctor_finds_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, disk = tmp_path / "s", tmp_path / "disk.img"
    with serve(state, portal=f"127.0.0.1:{free_port('127.0.0.9')}") as served:
        assert main(["volume", "create", "x", "1M", "--path", str(disk), "--state", str(state)]) == 0
        assert severities(state)["server"] == {"ok"}
        assert main(["doctor", "--state", str(state)]) == 0
        portal = served.portals[0]
        assert main(["portal", "add", portal.replace("127.0.0.1", "127.0.0.9"), "--state", str(state)]) == 0
        assert served.stop() == 0
    disk.unlink()
    state.chmod(0o755)
    with socket.create_server(("127.0.0.9", int(portal.rpartition(":")[2]))):
        found = severities(state)
    assert found["volume x"] == {"error"}
    assert "error" in found["state directory"]
    assert found["portals"] == {"error"}
    assert found["database"] == {"ok"}
    (state / "state.db-wal").unlink(missing_ok=True)
    (state / "state.db").write_bytes(b"rubbish" * 1000)
    capsys.readouterr()
    assert main(["doctor", "--json", "--state", str(state)]) == 1
    told = json.loads(capsys.readouterr().out)
    assert any(each["what"] == "database" and "state restore" in each["advice"] for each in told)


def test_top_for_scripts_and_at_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "s"
    with serve(state) as served, connect(f"iscsi://{served.portals[0]}/{served.targets[0]}/0") as lun:
        lun.write(0, bytes(512))
        assert main(["top", "--interval", "0.1", "--count", "1", "--state", str(state)]) == 0
        shown = capsys.readouterr().out
        assert "1 sessions" in shown
        assert "demo.img" in shown
        assert "INITIATOR" in shown
        assert "READ P50" in shown
        assert main(["top", "--interval", "0", "--state", str(state)]) == 2
        child, terminal = pty.fork()
        if child == 0:
            command = [sys.executable, "-m", "blockyard", "top", "--interval", "0.2", "--state", str(state)]
            os.execv(sys.executable, command)  # noqa: S606
        seen = read_until(terminal, b"demo.img")
        assert b"\x1b[?1049h" in seen
        os.write(terminal, b"q")
        read_until(terminal, b"\x1b[?1049l")  # the screen that was there before
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.close(terminal)


def test_rates() -> None:
    def status(reads: int) -> dict[str, object]:
        counters = dict.fromkeys(top._COUNTED, 0) | {"read_ops": reads, "read_bytes": reads * 4096}
        done = pair()
        done.reads.add(100e-6, reads, reads * 4096)
        return {
            "version": "1", "drives": {}, "sessions": [],
            "volumes": {"a": {"counters": counters}, "b": {"counters": None}},
            "targets": {"t": {"luns": {"0": "b", "1": "a", "2": "a"}}},
            "activity": {"volumes": {"a": done.as_dict()}, "depths": {}, "sessions": {}},
        }  # fmt: skip

    lines = list(top.picture(status(1000), status(3000), 2.0))
    assert "1000 reads/s  3.906 MiB/s" in lines[0]
    rows = [line.split() for line in lines[3:]]
    assert [row[1:4] for row in rows] == [["1", "a", "1000"], ["2", "a", "1000"], ["0", "b", "0"]]  # the busiest first
    assert lines[3].split()[11:] == ["96", "µs", "127", "µs", "-", "-", "0"]
    assert "0 reads/s" in next(iter(top.picture(status(3000), status(10), 1.0)))  # a worker that was started again
