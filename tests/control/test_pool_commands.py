"""`blockyard pool`, `volume`, `snapshot` and `clone`, against a server that runs and with other people's initiators."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blockyard.cli.main import main
from blockyard.cli.pools import watch_job
from blockyard.control.errors import ControlError
from blockyard.initiator import ScsiError, connect
from blockyard.scsi.sense import Asc
from tests.conftest import need, run
from tests.control.serving import Served, serve
from tests.control.test_live import attention, settle
from tests.waiting import eventually

IQN = "iqn.2026-11.test:pool"


class Site:
    """A server of one pool, `fast`, that is exported."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.state = folder / "s"
        self.directory = folder / "fast"
        self._capsys = capsys
        self.served: Served

    def run(self, *words: str) -> str:
        """What a command prints."""
        status, printed = self.attempt(*words)
        assert not status, printed
        return printed

    def attempt(self, *words: str) -> tuple[int, str]:
        """The exit status of a command, and what it prints."""
        self._capsys.readouterr()
        try:
            status = main([*words, "--state", str(self.state)])
        except SystemExit as end:
            status = int(end.code or 0)
        printed = self._capsys.readouterr()
        return status, printed.out + printed.err

    def json(self, *words: str) -> Any:
        return json.loads(self.run(*words, "--json"))

    def url(self, volume: str) -> str:
        return f"iscsi://{self.served.portals[0]}/{IQN}:{volume}/0"

    def io(self, volume: str, *commands: str) -> str:
        """What qemu-io does to a volume; all of it has to succeed."""
        words = [word for command in commands for word in ("-c", command)]
        output = run([need("qemu-io", "qemu-utils"), "-f", "raw", *words, self.url(volume)]).stdout
        assert "failed" not in output, output
        return output


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Site]:
    site = Site(tmp_path, capsys)
    site.run("pool", "create", str(site.directory), "--size", "256M")
    with serve(site.state, "--pool", str(site.directory), "--target", IQN) as site.served:
        yield site
        assert site.served.stop() == 0, site.served.log


def test_volumes_snapshots_and_clones(site: Site) -> None:
    site.run("volume", "create", "fast/vm", "64M")
    site.run("volume", "create", "fast/log", "1T", "--chunk", "4K")
    site.io("vm", "write -P 1 0 4M", "write -P 2 60M 4M", "flush")
    site.io("log", "write -P 3 900G 64k")
    assert site.run("snapshot", "create", "fast/vm@monday", "fast/log") == "fast/vm@monday\nfast/log@monday\n"
    site.io("vm", "write -P 9 1M 1M", "discard 60M 4M")
    site.io("log", "write -P 9 900G 4k")
    site.run("clone", "create", "fast/vm@monday", "fast/copy")
    site.io("copy", "read -P 1 0 4M", "read -P 2 60M 4M", "write -P 5 2M 64k")
    site.io("vm", "read -P 1 0 1M", "read -P 9 1M 1M", "read -P 1 2M 2M", "read -P 0 60M 4M")
    with connect(site.url("vm")) as vm:
        settle(vm)
        site.run("volume", "resize", "fast/vm", "80M")
        assert attention(vm) == Asc.CAPACITY_DATA_HAS_CHANGED
        assert vm.capacity().size == 80 << 20
        status, printed = site.attempt("snapshot", "rollback", "fast/vm@monday", "--yes")
        assert (status, "fast/vm is in use by iqn." in printed) == (2, True), printed
        status, printed = site.attempt("volume", "delete", "fast/vm", "--yes")
        assert (status, "fast/vm is in use by iqn." in printed) == (2, True), printed
    site.run("snapshot", "rollback", "fast/vm@monday", "--yes")
    site.run("snapshot", "rollback", "fast/log@monday", "--yes")
    site.io("vm", "read -P 1 0 4M", "read -P 2 60M 4M")
    site.io("log", "read -P 3 900G 64k")
    site.io("copy", "read -P 1 0 2M", "read -P 5 2M 64k")
    with connect(site.url("vm")) as vm:
        assert vm.capacity().size == 64 << 20, "also the size is that of the snapshot"
    volumes = site.json("volume", "list")
    assert {name: (each["size"] >> 20, each["chunk"], each["origin"]) for name, each in volumes.items()} == {
        "fast/copy": (64, 16384, "fast/vm@monday"),
        "fast/log": (1 << 20, 4096, "fast/log@monday"),
        "fast/vm": (64, 16384, "fast/vm@monday"),
    }
    assert [each["name"] for each in site.json("snapshot", "list", "fast/vm")] == ["monday"]
    site.run("snapshot", "delete", "fast/vm@monday", "--yes")
    site.io("copy", "read -P 1 0 2M", "read -P 5 2M 64k")
    site.run("volume", "delete", "fast/copy", "--yes")
    used = site.json("pool", "show", "fast")["used"]
    site.run("volume", "delete", "fast/log", "--yes", "--snapshots", "--wait")
    assert site.json("pool", "show", "fast")["used"] < used
    targets = run([need("iscsi-ls", "libiscsi-bin"), f"iscsi://{site.served.portals[0]}"]).stdout
    assert {line.split()[0] for line in targets.splitlines()} == {f"Target:{IQN}:{name}" for name in ("vm",)}
    assert "fast" in site.run("pool", "list")
    assert "snapshots  0" in site.run("volume", "show", "fast/vm")


def test_limits_and_events(site: Site) -> None:
    site.run("volume", "create", "fast/vm", "1G", "--quota", "128M", "--zero-detection", "on")
    site.run("volume", "create", "fast/db", "64M", "--reservation", "32M")
    site.io("vm", "write -P 1 0 32M", "write -P 0 32M 32M")
    shown = site.json("volume", "show", "fast/vm")
    assert [shown[key] >> 20 for key in ("mapped", "used", "quota")] == [32, 32, 128]
    assert "32 MiB, with its snapshots" in site.run("volume", "show", "fast/vm")
    with connect(site.url("vm")) as vm:
        settle(vm)
        site.run("pool", "set", "fast", "--soft", "240M", "--hard", "16M")
        eventually(lambda: bool(vm.command(bytes(6)).status))  # it is looked at once a second
        eventually(lambda: "the pool fast has reached its soft threshold (240M)" in site.run("events"))
        status, printed = site.attempt("volume", "resize", "fast/vm", "128M")
        assert (status, "have them log out before it becomes smaller" in printed) == (2, True), printed
    status, printed = site.attempt("volume", "resize", "fast/vm", "16M")
    assert (status, "There is data beyond 16 MiB" in printed) == (2, True), printed
    site.run("volume", "resize", "fast/vm", "64M")
    site.run("volume", "resize", "fast/vm", "16M", "--force")
    site.run("volume", "resize", "fast/vm", "64M")
    site.io("vm", "read -P 1 0 16M", "read -P 0 16M 48M")
    site.run("volume", "set", "fast/vm", "--quota", "none")
    pool = site.json("pool", "show", "fast")
    assert (pool["level"], pool["reserved"] >> 20, pool["soft"], pool["hard"]) == ("soft", 32, "240M", "16M")
    assert "thresholds soft 240M, hard 16M" in site.run("pool", "show", "fast")


def test_members_come_grow_and_go(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, capsys)
    site.run("pool", "create", str(site.directory), "--size", "16M")
    with serve(site.state, "--pool", str(site.directory), "--target", IQN) as site.served:
        assert site.json("pool", "show", "fast")["size"] == 12 << 20, "all but the slab of the header"
        (tmp_path / "more").mkdir()
        site.run("pool", "add", "fast", str(tmp_path / "more"), "--size", "16M")
        site.run("pool", "grow", "fast", "1", "32M")
        shown = site.json("pool", "show", "fast")
        assert (shown["size"], len(shown["members"])) == (40 << 20, 2)
        site.run("volume", "create", "fast/vm", "1G")
        site.io("vm", "write -P 1 0 30M", "read -P 1 0 30M")
        status, printed = site.attempt("pool", "remove", "fast", "0")
        assert (status, printed.count("\n")) == (2, 1), printed
        status, printed = site.attempt("pool", "destroy", str(site.directory), "--yes")
        assert (status, "Another process has this pool open" in printed) == (2, True), printed
        assert site.served.stop() == 0
    member = shown["members"]["1"]["path"]
    assert member in site.run("pool", "destroy", str(site.directory), "--yes")
    assert not site.directory.exists()
    site.run("pool", "create", str(site.directory), member)


def test_a_full_pool_refuses_writes_until_there_is_space(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, capsys)
    site.run("pool", "create", str(site.directory), "--size", "16M")
    with serve(site.state, "--pool", str(site.directory), "--target", IQN) as site.served:
        site.run("volume", "create", "fast/vm", "1G")
        site.run("volume", "create", "fast/small", "1G", "--quota", "1M")
        with connect(site.url("vm")) as vm, connect(site.url("small")) as small:
            for lun, room in (small, 1 << 20), (vm, 11 << 20):
                for at in range(0, room, 1 << 20):
                    lun.write(at // 512, b"w" * (1 << 20))
                with pytest.raises(ScsiError) as error:
                    for at in range(room, 2 * room + (1 << 20), 1 << 20):
                        lun.write(at // 512, b"w" * (1 << 20))
                assert error.value.sense is not None
                assert (error.value.sense.key, error.value.sense.asc, error.value.sense.ascq) == (7, 0x27, 0x07)
                lun.write(0, b"o" * 4096)  # what is there already can be written over
            eventually(lambda: "pool-full" in site.run("events"))
            assert site.json("pool", "show", "fast")["level"] == "full"
            site.run("pool", "add", "fast", str(tmp_path / "more"), "--size", "32M")
            settle(vm)
            vm.write((20 << 20) // 512, b"n" * (1 << 20))
            assert vm.read(0, 9) == b"o" * 4096 + b"w" * 512
            assert vm.read((20 << 20) // 512, 1) == b"n" * 512
            eventually(lambda: "pool-space" in site.run("events"))
        assert site.served.stop() == 0


def test_the_largest_and_the_smallest_volume(site: Site) -> None:
    for name, size in ("large", 1 << 63), ("small", 1 << 20):
        site.run("volume", "create", f"fast/{name}", str(size))
        with connect(site.url(name)) as lun:
            assert lun.capacity().size == size
            lun.write(size // 512 - 1, b"e" * 512)
            assert lun.read(size // 512 - 2, 2) == bytes(512) + b"e" * 512
        assert run([need("iscsi-inq", "libiscsi-bin"), site.url(name)]).stdout
    assert site.json("volume", "list")["fast/large"]["size"] == 1 << 63


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("volume create fast/vm 10", "a volume has from 1M to 8E"),
        ("volume create fast/vm 1000000000", "1000000000 bytes are not a multiple of 4096"),
        ("volume create fast/vm 1G --chunk 5K", "a chunk is from 4K to 4M"),
        ("volume create fast/vm big", "'big' is not a size"),
        ("volume create fast/- 1G", "'-': the name of a pool or of a volume in one has"),
        ("volume create fast 1G", "'fast' is not POOL/VOLUME"),
        ("volume create fats/vm 1G", "there is no pool fats: `blockyard pool list`"),
        ("volume create fast/one 1G", "There is a volume of this name"),
        ("volume resize fast/one 10K", "a volume has from 1M to 8E"),
        ("volume set fast/one", "there is nothing to change"),
        ("volume set fast/one --quota 1G --reservation 2G", "a quota that is less than the reservation"),
        ("volume create fast/two 1G --reservation 2G", "There is not so much space that could be reserved"),
        ("pool set fast --soft 200%", "'200%' is not a threshold"),
        ("pool set fast", "there is nothing to change"),
        ("volume resize fast/none 1G", "there is no volume fast/none: `blockyard volume list fast`"),
        ("volume show fast/none", "there is no volume fast/none"),
        ("volume delete fast/none --yes", "there is no volume fast/none"),
        ("volume delete fast/one", "fast/one and all that is in it will be lost: say --yes"),
        ("volume delete fast/one --yes", "fast/one has a snapshot: delete them first, or say --snapshots"),
        ("snapshot create fast/one@x", "There is a snapshot of this name"),
        ("snapshot create fast/one@a fast/one", "each once"),
        ("snapshot create fast/one@!", "'!': the name of a snapshot has"),
        ("snapshot rollback fast/one@y --yes", "there is no snapshot fast/one@y: `blockyard snapshot list fast/one`"),
        ("snapshot rollback fast/one --yes", "'fast/one' is not POOL/VOLUME@SNAPSHOT"),
        ("snapshot delete fast/one@x fast/one@y --yes", "there is no snapshot fast/one@y"),
        ("clone create fast/one@x fast/one", "There is a volume of this name"),
        ("clone create fast/one@x slow/one", "a clone shares space with its snapshot"),
        ("pool cancel fast 7", "there is no job 7"),
        ("pool show fats", "there is no pool fats"),
    ],
)
def test_what_cannot_be_is_told(words: str, message: str, shared: Site) -> None:
    status, printed = shared.attempt(*words.split())
    assert status == 2, printed
    assert message in printed
    assert printed.count("\n") == 1
    assert shared.json("volume", "list").keys() == {"fast/one"}


def test_a_job_that_the_server_does_not_know_any_more(shared: Site) -> None:
    """As when its worker has died meanwhile."""
    with pytest.raises(ControlError, match="job 99 of fast is not known any more"):
        watch_job(shared.state, "fast", 99)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server whose pool has one volume with one snapshot."""
    folder = tmp_path_factory.mktemp("one")
    assert main(["pool", "create", str(folder / "fast"), "--size", "64M"]) == 0
    with serve(folder / "s", "--pool", str(folder / "fast"), "--target", IQN) as served:
        for words in ("volume create fast/one 8M", "snapshot create fast/one@x"):
            assert main([*words.split(), "--state", str(folder / "s")]) == 0
        served.folder = folder  # type: ignore[attr-defined]
        yield served
        assert served.stop() == 0, served.log


@pytest.fixture
def shared(one: Served, capsys: pytest.CaptureFixture[str]) -> Site:
    site = Site(one.folder, capsys)  # type: ignore[attr-defined]
    site.served = one
    return site


def test_what_stands_in_the_configuration_is_not_deleted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, capsys)
    site.run("pool", "create", str(site.directory), "--size", "64M")
    file = tmp_path / "blockyard.toml"
    file.write_text("[pools.fast]\ndirectory = 'fast'\n")
    with serve(site.state, "--config", str(file)) as site.served:
        site.run("volume", "create", "fast/db", "8M")
        site.run("snapshot", "create", "fast/db@a")
        file.write_text(
            "[pools.fast]\ndirectory = 'fast'\n[volumes.db]\npool = 'fast'\n"
            "[volumes.then]\npool = 'fast'\nvolume = 'db'\nsnapshot = 'a'\n"
            f"[targets.'{IQN}']\nluns = {{0 = 'db', 1 = 'then'}}\n"
        )
        site.run("reload")
        for words, name in (("volume delete fast/db", "volumes.db"), ("snapshot delete fast/db@a", "volumes.then")):
            status, printed = site.attempt(*words.split(), "--yes")
            assert (status, f"stands in the configuration, as {name}: take it out there" in printed) == (2, True)
        with connect(f"iscsi://{site.served.portals[0]}/{IQN}/0") as lun:
            settle(lun)
            site.run("volume", "resize", "db", "16M")  # as the configuration calls it
            assert attention(lun) == Asc.CAPACITY_DATA_HAS_CHANGED
            assert site.json("status")["volumes"]["db"]["size"] == 16 << 20
        site.run("snapshot", "rollback", "fast/db@a", "--yes")
        assert site.json("status")["volumes"]["db"]["size"] == 8 << 20
        assert site.served.stop() == 0


@pytest.mark.parametrize(
    ("arrange", "words", "message"),
    [
        (lambda folder: None, [], "A size of at least"),
        (lambda folder: (folder / "d").write_bytes(b"x" * (9 << 20)), ["d"], "There is something on it"),
        (lambda folder: (folder / "fast").mkdir() or (folder / "fast" / "x").touch(), [], "is not empty"),
        (lambda folder: (folder / "fast").touch(), ["--size", "64M"], "File exists"),
        (lambda folder: None, ["--size", "1X"], "'1X' is not a size"),
    ],
)
def test_pools_that_cannot_be_made(
    arrange: Callable[[Path], object],
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    arrange(tmp_path)
    assert main(["pool", "create", str(tmp_path / "fast"), *words]) == 2
    assert message in capsys.readouterr().err


def test_schedules(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Listed and run by command: snapshots of two volumes at one moment, of which two are kept; others stay."""
    site = Site(tmp_path, capsys)
    site.run("pool", "create", str(site.directory), "--size", "64M")
    (tmp_path / "file.toml").write_text(
        "[pools.fast]\ndirectory = 'fast'\nexport = true\n"
        "[schedules.nightly]\nat = 'daily at 02:00'\nzone = 'Europe/Berlin'\nvolumes = ['fast/vm*']\nkeep = {last = 2}\n"
    )
    with serve(site.state, "--config", str(tmp_path / "file.toml")) as site.served:
        for name in ("vm1", "vm2", "db"):
            site.run("volume", "create", f"fast/{name}", "1M")
        site.run("snapshot", "create", "fast/vm1@mine")
        taken = site.run("schedule", "run", "nightly").split()
        assert [each.partition("-")[0] for each in taken] == ["fast/vm1@nightly", "fast/vm2@nightly"]
        (found,) = site.json("schedule", "list").values()
        assert (found["at"], found["zone"], found["keep"]) == ("daily at 02:00", "Europe/Berlin", {"last": 2})
        assert found["matching"] == ["fast/vm1", "fast/vm2"]
        assert found["last"] < found["next"]
        assert "nightly" in site.run("schedule", "list")
        status, printed = site.attempt("schedule", "run", "weekly")
        assert (status, "there is no schedule weekly" in printed) == (2, True)
        assert {each["name"].partition("-")[0] for each in site.json("snapshot", "list", "fast")} == {"mine", "nightly"}
        assert site.served.stop() == 0, site.served.log


def test_whose_space_is_whose(site: Site) -> None:
    site.run("volume", "create", "fast/vm", "64M")
    site.io("vm", "write -P 1 0 1M", "flush")
    site.run("snapshot", "create", "fast/vm@s")
    site.io("vm", "write -P 2 0 128k", "flush")
    found = site.json("volume", "usage", "fast/vm")
    assert found["now"] == {"seen": 1 << 20, "own": 128 << 10}
    assert found["snapshots"] == {"s": {"seen": 1 << 20, "own": 128 << 10}}
    (line,) = [line for line in site.run("volume", "usage", "fast/vm").splitlines() if "@s" in line]
    assert line.split() == ["fast/vm@s", "1", "MiB", "128", "KiB", "896", "KiB"]
