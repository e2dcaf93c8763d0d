"""Everything of a configuration made, changed and taken away by commands, while it is served and while it is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.control.administration import ask
from blockyard.initiator import connect
from tests.control.serving import serve
from tests.serving import free_port

IQN = "iqn.2026-11.test:made"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in the test's directory; what it printed. With `fails`, it has to end with that status."""
    monkeypatch.chdir(tmp_path)

    def command(*words: str, fails: int = 0) -> str:
        capsys.readouterr()
        status = main([*words, "--state", str(tmp_path / "s")])
        captured = capsys.readouterr()
        assert status == fails, captured.err
        return captured.err if fails else captured.out

    return command


def test_all_of_it_by_commands(tmp_path: Path, run: Callable[..., str]) -> None:
    with serve(tmp_path / "s") as served:
        assert run("volume", "create", "db", "8M", "--path", "db.img", fails=0) == "+ volumes.db\n"
        assert (tmp_path / "db.img").stat().st_size == 8 << 20
        assert run("target", "create", IQN, "--alias", "Made here") == f'+ targets."{IQN}"\n'
        assert run("lun", "map", IQN, "db") == f'+ targets."{IQN}".luns\n'
        run("lun", "map", IQN, "demo.img", "--lun", "7")
        with connect(f"iscsi://{served.portals[0]}/{IQN}/0") as lun:
            assert lun.capacity().blocks == 16384
        assert json.loads(run("lun", "list", IQN, "--json")) == {IQN: {"0": "db", "7": "demo.img"}}
        assert "LUN 7 is demo.img" in run("lun", "map", IQN, "db", "--lun", "7", fails=2)
        assert "there is no volume 'dbb'; did you mean 'db'?" in run("lun", "map", IQN, "dbb", fails=6)
        assert "there is no target iqn.x" in run("lun", "map", "iqn.x", "db", fails=2)
        assert run("volume", "set", "db", "--read-only") == "+ volumes.db.read_only = true\n"
        assert run("volume", "set", "db", "--no-read-only", "--size", "16M").splitlines() == [
            '~ volumes.db.size: "8M" → "16M"',
            "- volumes.db.read_only = true",
        ]
        assert ask(tmp_path / "s", "status")["volumes"]["db"]["size"] == 16 << 20
        run("access", "add", IQN, "--initiator", "iqn.2026-11.test:*", "--address", "127.0.0.0/8", "--lun", "0=db")
        run("access", "add", IQN, "--right", "refuse", "--at", "0", "--initiator", "iqn.bad")
        rules = json.loads(run("access", "list", IQN, "--json"))
        assert [rule.get("right", "full") for rule in rules] == ["refuse", "full"]
        run("access", "remove", IQN, "0")
        assert "there is no rule 5" in run("access", "remove", IQN, "5", fails=2)
        assert "a right is one of" in run("access", "add", IQN, "--right", "all", fails=6)
        run("access", "add", "discovery", "--address", "127.0.0.1")
        run("portal", "add", "127.0.0.3:0", "--group", "2")
        assert "127.0.0.3:0" in run("portal", "list")
        assert len(ask(tmp_path / "s", "status")["portal_groups"]) == 2
        run("target", "set", IQN, "--portal-group", "1", "--portal-group", "2")
        assert "there is no portal group 2" in run("portal", "remove", "127.0.0.3:0", fails=6)
        run("target", "set", IQN, "--portal-group", "1")
        run("portal", "remove", "127.0.0.3:0")
        run("pool", "create", "fast", "--size", "64M", "--name", "fast", "--export")
        run("schedule", "create", "nightly", "--at", "daily at 02:00", "--volume", "fast/*", "--keep", "daily=7")
        assert "nightly" in run("schedule", "list")
        run("volume", "create", "fast/vm", "32M")
        assert any(name.endswith(":vm") for name in ask(tmp_path / "s", "status")["targets"])
        run("drive", "create", "dvd", "--jukebox", ".")
        run("lun", "map", IQN, "dvd", "--lun", "2")
        run("tape", "library", "create", "vault", "--directory", "tapes", "--drives", "2")
        run("target", "create", "iqn.2026-11.test:tapes", "--library", "vault")
        assert "vault" in run("tape", "library", "list")
        assert "drives" in run("tape", "library", "set", "vault", "--drives", "0", fails=6)
        place = f"127.0.0.1:{free_port()}"
        run("metrics", "set", place)
        assert run("metrics", "show") == f"listen {place}\n"
        run("metrics", "off")
        place = f"127.0.0.1:{free_port()}"
        run("api", "set", place)
        assert run("api", "off") == f'~ api.listen: "{place}" → ""\n'
        assert "there is a target" in run("target", "create", IQN, fails=2)
        assert "there is nothing to change" in run("target", "set", IQN, fails=2)
        assert "alias                Made here" in run("target", "show", IQN)
        before = run("config", "show")
        assert served.stop() == 0
    assert run("config", "show") == before
    run("lun", "unmap", IQN, "7")
    run("volume", "delete", "demo.img", fails=6)  # its own target shows it
    run("target", "delete", served.targets[0])
    run("volume", "delete", "demo.img")
    assert (tmp_path / "s" / "demo.img").exists()
    run("schedule", "delete", "nightly")
    run("pool", "detach", "fast")
    run("target", "create", "iqn.2026-11.test:second")
    with serve(tmp_path / "s") as served:
        assert served.targets == [IQN, "iqn.2026-11.test:tapes", "iqn.2026-11.test:second"]
        assert served.stop() == 0


def test_who_has_a_file_changes_that(tmp_path: Path, run: Callable[..., str]) -> None:
    (tmp_path / "a.toml").write_text("")
    with serve(tmp_path / "s", "--config", str(tmp_path / "a.toml")) as served:
        assert "change it there, then `blockyard reload`" in run("target", "create", IQN, fails=2)
        assert served.stop() == 0


def test_what_makes_no_sense_is_said(tmp_path: Path, run: Callable[..., str]) -> None:
    assert "needs a size" in run("volume", "create", "fast/vm", fails=2)
    assert "none of the options" in run("volume", "create", "fast/vm", "1G", "--path", "x", fails=2)
    assert "is not UNIT=N" in run("schedule", "create", "x", "--at", "hourly", "--keep", "lots", fails=2)
    assert "is no address" in run("portal", "add", "nowhere", fails=2)
    assert "--lun is LUN=VOLUME" in run("access", "add", IQN, "--lun", "zero", fails=2)
