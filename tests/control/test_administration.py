"""The control socket: status and commands, for whoever owns the state directory, of one server at a time."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.control.administration import NotServing, ask
from blockyard.control.configuration_file import load
from blockyard.control.events import read_events
from blockyard.control.state import State
from blockyard.initiator import connect
from tests.control.serving import serve, start
from tests.waiting import LIMIT


def test_status_and_sessions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = tmp_path / "s"
    with serve(state, str(tmp_path / "disk.img"), "--size", "8M") as served:
        (target,) = served.targets
        with contextlib.closing(State(state)) as opened:
            assert next(read_events(opened)).what == "server-started", "whoever records something now comes after it"
        assert (state / "control.sock").stat().st_mode & 0o777 == 0o600
        lun = connect(f"iscsi://{served.portals[0]}/{target}/0", initiator_name="iqn.2026-11.test:me")
        lun.write(0, bytes(4096))
        assert main(["status", "--json", "--state", str(state)]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["targets"] == {
            target: {"alias": "", "portal_groups": [1], "library": "", "luns": {"0": "disk.img"}}
        }
        volume = found["volumes"]["disk.img"]
        assert (volume["size"], volume["block_size"], volume["path"]) == (8 << 20, 512, str(tmp_path / "disk.img"))
        assert volume["counters"]["write_bytes"] == 4096
        assert found["portal_groups"] == {"1": served.portals}
        (session,) = found["sessions"]
        assert (session["initiator"], session["target"], session["right"]) == ("iqn.2026-11.test:me", target, "full")
        assert session["connections"][0]["portal"] == served.portals[0]
        assert main(["status", "--state", str(state)]) == 0
        printed = capsys.readouterr().out
        for words in (
            f"target {target}, portal groups 1",
            "8 MiB  read-write",
            "iqn.2026-11.test:me",
            "portal group 1: 127",
        ):
            assert words in printed
        assert main(["session", "drop", "iqn.2026-11.test:me", "--target", "iqn.other", "--state", str(state)]) == 2
        assert main(["session", "drop", "iqn.2026-11.test:me", "--state", str(state)]) == 0
        assert capsys.readouterr().out == "1 session ended\n"
        assert not ask(state, "status")["sessions"]
        assert served.stop() == 0
    assert not (state / "control.sock").exists()
    assert main(["status", "--state", str(state)]) == 7


def test_the_running_configuration_as_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "disk.img").write_bytes(bytes(4096))
    with serve(tmp_path / "s", str(tmp_path / "disk.img"), "--thick") as served:
        assert main(["config", "show", "--state", str(tmp_path / "s")]) == 0
        file = tmp_path / "blockyard.toml"
        file.write_text(capsys.readouterr().out)
        shown = load(file)
        assert list(shown.targets) == served.targets
        assert shown.volumes["disk.img"].path == str(tmp_path / "disk.img")
        assert shown.volumes["disk.img"].thick
        assert served.stop() == 0


def test_one_server_for_a_state_directory(tmp_path: Path) -> None:
    with serve(tmp_path / "s") as served:
        second = start(tmp_path / "s", str(tmp_path / "other.img"), "--size", "1M")
        _, error = second.communicate(timeout=LIMIT)
        assert second.returncode == 5
        assert f"is in use by another `blockyard serve` (pid {served.process.pid})" in error
        assert error.count("\n") == 1
        assert not (tmp_path / "other.img").exists()
        assert ask(tmp_path / "s", "status")["pid"] == served.process.pid
        served.process.kill()
        served.process.wait(LIMIT)
    with serve(tmp_path / "s") as served:  # what was killed stands in nobody's way
        assert ask(tmp_path / "s", "status")["pid"] == served.process.pid
        assert served.stop() == 0


def test_a_state_directory_with_a_long_name(tmp_path: Path) -> None:
    state = tmp_path / ("long" * 40)
    with serve(state) as served:
        assert ask(state, "status")["targets"].keys() == set(served.targets)
        assert served.stop() == 0


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"nonsense\n", "a request is a line of JSON"),
        (b"[]\n", "a request is a JSON object"),
        (b"{}\n", "the server has no command None"),
        (b'{"command": "volume resize"}\n', "the request has no size"),
        (b'{"command": "session drop", "initiator": 5}\n', "the request has no initiator"),
    ],
)
def test_what_is_no_request(tmp_path: Path, line: bytes, error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(tmp_path / "s") as served:
        monkeypatch.chdir(tmp_path / "s")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(LIMIT)
            sock.connect("control.sock")
            sock.sendall(line)
            answer = json.loads(sock.makefile("rb").readline())
        assert answer["status"] == 2
        assert error in answer["error"]
        assert served.stop() == 0


def test_nobody_serves(tmp_path: Path) -> None:
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(NotServing, match="nobody serves with the state directory"):
            ask(directory, "status")
