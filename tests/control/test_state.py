"""What outlives the process: names and identities."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.control.errors import StateError
from blockyard.control.state import State, default_directory
from blockyard.iscsi.names import validate
from tests.waiting import LIMIT


def test_names_and_identities_last(tmp_path: Path) -> None:
    state = State(tmp_path / "state")
    name, one, two = state.default_target_name(), state.volume_uuid("/one"), state.volume_uuid("/two")
    state.close()
    again = State(tmp_path / "state")
    assert (again.default_target_name(), again.volume_uuid("/one"), again.volume_uuid("/two")) == (name, one, two)
    assert one != two
    assert validate(name) == name
    assert re.fullmatch(r"iqn\.2026-11\.org\.blockyard:[a-z0-9-]+-[0-9a-f]{6}", name)
    again.close()


def test_a_new_volume_in_an_old_place_has_an_identity_of_its_own(tmp_path: Path) -> None:
    state = State(tmp_path)
    old = state.volume_uuid("/disk")
    found = state.volume_uuids(["/disk", "/other"], new=["/disk"])
    assert found["/disk"] != old
    assert state.volume_uuid("/disk") == found["/disk"]
    state.close()


def test_ports_keep_their_numbers(tmp_path: Path) -> None:
    ports = [("iqn.a", 1), ("iqn.a", 2), ("iqn.b", 1)]
    state = State(tmp_path)
    numbers = state.relative_ports(ports)
    assert sorted(numbers.values()) == [1, 2, 3]
    assert numbers["iqn.a", 1] == 1
    state.close()
    again = State(tmp_path)
    more = again.relative_ports([("iqn.c", 7), *reversed(ports)])
    assert more == {**numbers, ("iqn.c", 7): 4}
    with pytest.raises(StateError, match="no number is left"):
        again.relative_ports([("iqn.d", tag) for tag in range(65536)])
    assert again.relative_ports([("iqn.e", 1)])["iqn.e", 1] == 5
    again.close()


def test_a_database_of_the_first_version_is_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID")
        database.execute("CREATE TABLE volumes (key TEXT PRIMARY KEY, uuid TEXT NOT NULL UNIQUE) WITHOUT ROWID")
        database.execute("INSERT INTO volumes VALUES ('/disk', '5e3a7c1e-6f0b-4c55-9a39-0f0c9a2d7b11')")
        database.execute("PRAGMA user_version = 1")
    database.close()
    state = State(tmp_path)
    assert str(state.volume_uuid("/disk")) == "5e3a7c1e-6f0b-4c55-9a39-0f0c9a2d7b11"
    assert state.relative_ports([("iqn.a", 1)]) == {("iqn.a", 1): 1}
    state.close()


def test_nobody_else_may_look(tmp_path: Path) -> None:
    state = State(tmp_path / "a" / "b")
    state.volume_uuid("/disk")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "a" / "b").iterdir()} == {0o600}
    state.close()


def test_processes_agree(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from blockyard.control.state import State; s = State(pathlib.Path(sys.argv[1]));"
        "print(s.default_target_name(), *(s.volume_uuid(f'/disk{i}') for i in range(50)))"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, tmp_path / "state"], stdout=subprocess.PIPE) for _ in range(6)
    ]
    answers = {process.communicate(timeout=LIMIT)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * 6
    assert len(answers) == 1


def test_a_damaged_database_is_told_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "state.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(StateError, match=r"state\.db is damaged .*move it away"):
        State(tmp_path)


def test_a_damaged_identity_is_told(tmp_path: Path) -> None:
    State(tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("INSERT INTO volumes VALUES ('/disk', 'rubbish')")
    database.close()
    state = State(tmp_path)
    with pytest.raises(StateError, match="damaged"):
        state.volume_uuid("/disk")
    assert state.volume_uuid("/other")
    state.close()


def test_a_later_version_is_left_alone(tmp_path: Path) -> None:
    State(tmp_path).close()
    with sqlite3.connect(tmp_path / "state.db") as database:
        database.execute("PRAGMA user_version = 1000")
    database.close()
    with pytest.raises(StateError, match="later Blockyard"):
        State(tmp_path)


def test_places_that_cannot_be_used(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for directory in (file, file / "below", Path("/proc/blockyard")):
        with pytest.raises(StateError, match="--state"):
            State(directory)


def test_the_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", "/var/state")
    assert default_directory() == Path("/var/state/blockyard")
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_STATE_HOME", ignored)
        assert default_directory() == tmp_path / ".local/state/blockyard"


def test_opening_it_again_does_not_take_it_from_who_has_it_open(tmp_path: Path) -> None:
    """As a reload does, while another process looks at it and goes again."""
    look = "import sys, pathlib; from blockyard.control.state import State; State(pathlib.Path(sys.argv[1])).close()"
    with contextlib.closing(State(tmp_path)) as first:
        State(tmp_path).close()
        subprocess.run([sys.executable, "-c", look, tmp_path], check=True)
        identity = first.volume_uuid("a")
        seen = look.replace(".close()", ".volume_uuid('a')").replace("State(pathlib", "print(State(pathlib") + ")"
        told = subprocess.run([sys.executable, "-c", seen, tmp_path], check=True, capture_output=True, text=True)
        assert told.stdout.strip() == str(identity)
