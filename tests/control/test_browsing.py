"""Directories as somebody sees them who looks for a path: with all that can be in one."""

from __future__ import annotations

import fcntl
import os
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from blockyard.block.formats import create_image
from blockyard.control.browsing import Directory, Entry, Kind, Rules, look
from blockyard.worker.configuration import Api, Configuration, Library, Pool, Settled, Volume
from tests.conftest import need, run
from tests.waiting import eventually

LOCK = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


def _rules(state: Path, settled: Settled | None = None, paths: tuple[str, ...] = ()) -> Rules:
    return Rules(Configuration(api=Api("", paths=paths)), settled or Settled(), state)


def _look(directory: Path, rules: Rules | None = None, **more: object) -> Directory:
    return look(str(directory), rules or _rules(directory / "no state"), **more)  # type: ignore[arg-type]


def _by_name(found: Directory) -> dict[str, Entry]:
    return {each.name: each for each in found.entries}


def test_formats_are_seen_by_what_is_in_files(tmp_path: Path) -> None:
    for format in ("raw", "vhd", "vhdx", "qcow2"):
        create_image(tmp_path / f"{format}.img", format, 8 << 20)
    run([need("genisoimage", "genisoimage"), "-quiet", "-o", tmp_path / "disc", Path(__file__)])
    (tmp_path / "small").write_bytes(b"x")
    (tmp_path / "Directory").mkdir()
    found = _look(tmp_path)
    assert {each.name: each.format for each in found.entries} == {
        "Directory": "", "disc": "iso", "qcow2.img": "qcow2", "raw.img": "raw", "small": "", "vhd.img": "vhd",
        "vhdx.img": "vhdx",
    }  # fmt: skip
    assert found.entries[0].kind is Kind.DIRECTORY
    raw = _by_name(found)["raw.img"]
    assert (raw.size, raw.path, raw.problem) == (8 << 20, str(tmp_path / "raw.img"), "")
    assert raw.modified == pytest.approx((tmp_path / "raw.img").stat().st_mtime)
    assert found.writable
    assert 0 < found.free <= found.size
    assert found.parent == str(tmp_path.parent)


def test_what_is_odd_is_told_and_not_touched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")  # who opens it for reading waits
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "a\nb").write_bytes(bytes(512))
    (tmp_path / ("n" * 255)).write_bytes(bytes(512))
    (tmp_path / "link").symlink_to("n" * 255)
    (tmp_path / "right\u202eleft").write_bytes(bytes(512))
    with open(os.fsencode(tmp_path) + b"/latin-\xe9", "wb") as file:
        file.truncate(512)
    found = _by_name(_look(tmp_path))
    assert {name: (each.kind, each.problem.partition(":")[0]) for name, each in found.items() if each.problem} == {
        "fifo": (Kind.OTHER, "it is neither a file nor a block device"),
        "socket": (Kind.OTHER, "it is neither a file nor a block device"),
        "dangling": (Kind.OTHER, "it leads to nothing"),
        "loop": (Kind.OTHER, "Too many levels of symbolic links"),
        "a\nb": (Kind.FILE, "its name has characters that cannot be typed"),
        "right\u202eleft": (Kind.FILE, "its name has characters that cannot be typed"),
        "latin-\ufffd": (Kind.FILE, "its name is not UTF-8"),
    }
    assert found["latin-\ufffd"].path is None
    assert found["link"].link
    assert found["link"].format == "raw"


def test_prefix_limit_and_what_is_hidden(tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / f"Disk-{number:04}").touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "zebra").mkdir()
    found = _look(tmp_path, limit=5)
    assert [each.name for each in found.entries] == ["zebra", "Disk-0000", "Disk-0001", "Disk-0002", "Disk-0003"]
    assert found.more
    found = _look(tmp_path, prefix="disk-059")
    assert len(found.entries) == 10
    assert not found.more
    assert ".hidden" not in _by_name(_look(tmp_path, limit=5000))
    assert ".hidden" in _by_name(_look(tmp_path, limit=5, prefix="."))
    assert ".hidden" in _by_name(_look(tmp_path, limit=5000, hidden=True))


def test_the_server_s_own_is_not_shown_nor_what_is_not_allowed(tmp_path: Path) -> None:
    state, disks, other = tmp_path / "state", tmp_path / "disks", tmp_path / "other"
    for each in (state, state / "keys", disks, other):
        each.mkdir()
    for name in ("state.db", "state.db-wal", "secrets.key", "demo.img"):
        (state / name).write_bytes(bytes(512))
    (other / "to-keys").symlink_to(state / "keys")
    (other / "to-secrets").symlink_to(state / "secrets.key")
    (disks / "out").symlink_to(other)
    rules = _rules(state)
    assert list(_by_name(_look(state, rules))) == ["demo.img"]
    found = _by_name(_look(other, rules))
    assert {each.problem for each in found.values()} == {"it is the server's own"}
    assert found["to-secrets"].format == ""
    for place in (state / "keys", other / "to-keys"):
        with pytest.raises(PermissionError, match="own"):
            _look(place, rules)
    narrow = _rules(state, paths=(str(disks),))
    seen = _look(disks, narrow)
    assert seen.parent is None
    assert seen.entries[0].problem == "api.paths does not have it"
    assert narrow.places() == [str(disks)]
    for place in (other, tmp_path, disks / "out", disks / ".." / "other"):
        with pytest.raises(PermissionError, match=r"api\.paths"):
            _look(place, narrow)
    for nowhere in ("/proc/self", f"/proc/self/root{disks}", f"/proc/{os.getpid()}/cwd"):  # another root may be there
        with pytest.raises(PermissionError, match="no disk"):
            _look(Path(nowhere))


def test_who_uses_it(tmp_path: Path) -> None:
    for name in ("a.img", "b.img", "locked.img", "free.img"):
        (tmp_path / name).write_bytes(bytes(512))
    for name in ("pool", "tapes"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "data").write_bytes(bytes(512))
    settled = Settled(
        volumes={
            "one": Volume("one", path=str(tmp_path / "a.img")),
            "two": Volume("two", stack=f"cache(ram=1M, file({tmp_path}/b.img))"),
        },
        pools={"fast": Pool("fast", str(tmp_path / "pool"))},
        libraries={"vault": Library("vault", str(tmp_path / "tapes"))},
    )
    rules = _rules(tmp_path / "state", settled)
    other = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(tmp_path / "locked.img")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with other:
        assert other.stdin is not None and other.stdout is not None  # noqa: PT018
        assert other.stdout.readline() == b"locked\n"
        found = _by_name(_look(tmp_path, rules))
        assert found["locked.img"].used.endswith(f", process {other.pid}")
        other.stdin.close()
    assert {name: each.used for name, each in found.items() if name != "locked.img"} == {
        "a.img": "volume one", "b.img": "volume two", "free.img": "", "pool": "pool fast", "tapes": "library vault",
    }  # fmt: skip
    inside = _look(tmp_path / "pool", rules).entries
    assert [(each.used, each.format) for each in inside] == [("pool fast", "")]


def test_locks_of_this_process_stay(tmp_path: Path) -> None:
    """Who closes a file gives up all of its POSIX locks on it: SQLite's, here, as control has them."""
    path = tmp_path / "other.db"
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("CREATE TABLE t (x)")
    database.execute("BEGIN EXCLUSIVE")
    _look(tmp_path)
    try_it = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('BEGIN EXCLUSIVE')"
    tried = subprocess.run([sys.executable, "-c", try_it, str(path)], capture_output=True, text=True, check=False)
    assert "database is locked" in tried.stderr
    database.close()


def test_a_directory_that_changes_meanwhile(tmp_path: Path) -> None:
    done = threading.Event()

    def stir() -> None:
        while not done.is_set():
            for number in range(20):
                (tmp_path / f"new-{number}").write_bytes(bytes(512))
            for number in range(20):
                (tmp_path / f"new-{number}").unlink()

    stirring = threading.Thread(target=stir)
    stirring.start()
    try:
        for _ in range(50):
            assert {each.problem for each in _look(tmp_path).entries} <= {""}
    finally:
        done.set()
        stirring.join()


def test_a_disk_says_who_has_it_and_what_is_on_it(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(64 << 20)
    run([need("mkfs.ext4", "e2fsprogs"), "-q", "-F", disk])
    (tmp_path / "mounted").mkdir()
    losetup = need("losetup", "util-linux")
    device = Path(run([losetup, "--find", "--show", disk]).stdout.strip())
    try:
        (tmp_path / "link").symlink_to(device)
        eventually(lambda: not _by_name(_look(tmp_path))["link"].used, "udev has done with it")
        found = _by_name(_look(tmp_path))["link"]
        assert (found.kind, found.size, found.holds[:3], found.problem) == (Kind.DEVICE, 64 << 20, "ext", "")
        run([need("mount", "mount"), device, tmp_path / "mounted"])
        try:
            assert _by_name(_look(tmp_path))["link"].used == f"mounted on {tmp_path / 'mounted'}"
        finally:
            run([need("umount", "mount"), tmp_path / "mounted"])
        with device.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            assert f"process {os.getpid()}" in _by_name(_look(tmp_path))["link"].used
    finally:
        run([losetup, "--detach", device])
