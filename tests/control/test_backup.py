"""Backups of the state directory: consistent while it is served, private, and refused when they are not what they seem."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from blockyard.api.logins import Logins
from blockyard.cli.main import main
from blockyard.control.revisions import Revisions
from blockyard.control.state import State
from blockyard.control.users import Users
from blockyard.iscsi.chap import Account
from blockyard.worker.configuration import Configuration, Metrics
from blockyard.worker.job_numbers import Numbers
from tests.control.serving import serve

SECRET = b"a secret of sixteen"


def run(*words: object) -> int:
    return main(["state", *map(str, words)])


def fill(directory: Path) -> None:
    with contextlib.closing(State(directory)) as state:
        Revisions(state).put(Configuration(metrics=Metrics("127.0.0.1:9464")), "somebody")
        Users(state).add(Account("alice", SECRET))
        state.volume_uuid("/disk")
        Logins(lambda: state).begin("somebody", 1.0, "192.0.2.1")
    (directory / "keys").mkdir(mode=0o700)
    (directory / "keys" / "disk.key").write_bytes(b"a passphrase")
    (directory / "keys" / "disk.key").chmod(0o600)
    (directory / "units").mkdir(mode=0o700)
    (directory / "units" / "one").write_bytes(b"reservation")
    (directory / "units" / "one").chmod(0o600)


def content(directory: Path) -> tuple[object, ...]:
    with contextlib.closing(State(directory)) as state:
        current = Revisions(state).current()
        return (
            current and current.configuration,
            Users(state).load(),
            state.volume_uuid("/disk"),
            (directory / "units" / "one").read_bytes(),
        )


def test_jobs_that_began_since_then_keep_their_numbers_to_themselves(tmp_path: Path) -> None:
    """Who has kept the address of one must not find another there after a backup was put back."""

    def take(count: int) -> list[int]:
        numbers = Numbers()
        numbers.keep_in(tmp_path / "s" / "units")
        return [numbers.take() for _ in range(count)]

    fill(tmp_path / "s")
    before = take(1)
    assert run("backup", tmp_path / "b.tar.gz", "--state", tmp_path / "s") == 0
    since = take(25)
    assert run("restore", tmp_path / "b.tar.gz", "--state", tmp_path / "s") == 0
    assert min(take(1)) > max(before + since)
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "s" / "units").iterdir()} == {0}


def test_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "s")
    before, backup = content(tmp_path / "s"), tmp_path / "b.tar.gz"
    assert run("backup", backup, "--state", tmp_path / "s") == 0
    assert "without keys" in capsys.readouterr().out
    assert backup.stat().st_mode & 0o777 == 0o600
    with tarfile.open(backup) as archive:
        assert archive.getnames() == ["manifest.json", "state.db", "units/one"]
        everything = b"".join(file.read() for member in archive if (file := archive.extractfile(member)))
        assert SECRET not in everything
    assert run("backup", backup, "--state", tmp_path / "s") == 2  # it takes no other's place
    with contextlib.closing(State(tmp_path / "s")) as state:
        Revisions(state).put(Configuration(), "somebody else")
        Users(state).remove("alice")
    assert run("restore", backup, "--state", tmp_path / "s") == 0
    assert content(tmp_path / "s") == before
    assert (tmp_path / "s" / "keys" / "disk.key").read_bytes() == b"a passphrase", "the one that is here stays"
    with contextlib.closing(State(tmp_path / "s")) as state, state.transaction() as database:
        assert database.execute("SELECT * FROM logins").fetchall() == [], "who has logged out since is not in again"
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "s").rglob("*")} == {0}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    assert len(list((tmp_path / "s").glob("before-restore-*/state.db"))) == 1


def test_on_another_machine_the_key_is_needed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path / "s")
    before = content(tmp_path / "s")
    assert run("backup", tmp_path / "b", "--state", tmp_path / "s") == 0
    assert run("backup", tmp_path / "keys", "--with-keys", "--state", tmp_path / "s") == 0
    assert "with secrets.key, keys/disk.key: keep it as you would keep these" in capsys.readouterr().out
    assert run("restore", tmp_path / "b", "--state", tmp_path / "new") == 5
    assert "put the secrets.key that belongs to the backup" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
    assert run("restore", tmp_path / "keys", "--state", tmp_path / "new") == 0
    assert content(tmp_path / "new") == before
    assert (tmp_path / "new" / "keys" / "disk.key").read_bytes() == b"a passphrase"
    assert run("restore", tmp_path / "b", "--without-users", "--state", tmp_path / "third") == 0
    with contextlib.closing(State(tmp_path / "third")) as state:
        assert not Users(state).load().users


def test_while_it_is_served(tmp_path: Path) -> None:
    with serve(tmp_path / "s") as served:
        assert run("backup", tmp_path / "b", "--state", tmp_path / "s") == 0
        assert run("restore", tmp_path / "b", "--state", tmp_path / "s") == 5
        assert served.stop() == 0
    (tmp_path / "s" / "state.db").unlink()
    assert run("restore", tmp_path / "b", "--state", tmp_path / "s") == 0
    with serve(tmp_path / "s") as again:
        assert again.targets == served.targets
        assert again.stop() == 0


def _archive(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_what_is_no_backup_changes_nothing(tmp_path: Path) -> None:
    fill(tmp_path / "s")
    before, manifest = content(tmp_path / "s"), b'{"format": 1}'
    assert run("backup", tmp_path / "b", "--state", tmp_path / "s") == 0
    whole = (tmp_path / "b").read_bytes()
    bad = [tmp_path / "missing"]
    for number, size in enumerate((0, 10, len(whole) // 2, len(whole) - 9)):
        bad.append(tmp_path / f"cut{number}")
        bad[-1].write_bytes(whole[:size])
    bad += [
        _archive(tmp_path / "other", **{"hello.txt": b"hello"}),
        _archive(tmp_path / "later", **{"manifest.json": b'{"format": 2}'}),
        _archive(tmp_path / "empty", **{"manifest.json": manifest}),
        _archive(tmp_path / "up", **{"manifest.json": manifest, "units/../../evil": b""}),
        _archive(tmp_path / "absolute", **{"manifest.json": manifest, os.fspath(tmp_path / "evil"): b""}),
        _archive(tmp_path / "list", **{"manifest.json": b"5"}),
    ]
    for path in bad:
        assert run("restore", path, "--state", tmp_path / "s") == 2, path
    assert run("restore", _archive(tmp_path / "db", **{"manifest.json": manifest, "state.db": b"x" * 5000}), "--state",
               tmp_path / "s") == 5  # fmt: skip
    assert content(tmp_path / "s") == before
    assert not (tmp_path / "evil").exists()
    assert run("backup", tmp_path / "none", "--state", tmp_path / "nowhere") == 2
