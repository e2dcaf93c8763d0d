"""`blockyard serve` with pools: their volumes and snapshots are disks like any other."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice, create
from blockyard.cli.main import main
from blockyard.initiator import ScsiError, connect
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.scsi.sense import Asc
from tests.conftest import TargetFactory, need, run
from tests.control.serving import serve
from tests.control.test_live import attention, settle
from tests.serving import Serving
from tests.waiting import eventually

ONE, TWO = "iqn.2026-11.test:one", "iqn.2026-11.test:two"
BLOCKYARD = [sys.executable, "-m", "blockyard"]


def make_pool(directory: Path, prepare: Callable[[Pool], None]) -> None:
    """A pool with one member of 64 MiB, and what `prepare` does to it."""
    directory.mkdir()
    member = str(directory / "member")
    create(member, 64 << 20)
    create_pool(directory, [member])
    with Pool(directory, FileDevice) as pool:
        prepare(pool)


def two_volumes(pool: Pool) -> None:
    pool.create_volume("vm", 8 << 20, 16)
    pool.create_volume("db", 4 << 20, 12)


def change(serving: Serving, tmp_path: Path, text: str) -> str:
    """Another configuration file; what `blockyard reload` prints."""
    (tmp_path / "serve-0.toml").write_text(text)
    done = run([*BLOCKYARD, "reload", "--state", tmp_path / "state-0"], check=False)
    return done.stdout


def test_volumes_and_snapshots_are_disks(target: TargetFactory, tmp_path: Path) -> None:
    def prepare(pool: Pool) -> None:
        two_volumes(pool)
        pool.snapshot(["db"], "monday", 1.0)

    make_pool(tmp_path / "fast", prepare)
    serving = target(
        config=f"""
        [pools.fast]
        directory = "fast"
        [volumes.vm]
        pool = "fast"
        [volumes.then]
        pool = "fast"
        volume = "db"
        snapshot = "monday"
        [volumes.now]
        pool = "fast"
        volume = "db"
        block_size = 4096
        [targets."{ONE}"]
        luns = {{0 = "vm", 1 = "now"}}
        [targets."{TWO}"]
        luns = {{7 = "then"}}
        """,
        options=["--workers", "4"],
    )
    assert len(serving.workers) == 1, "what is in one pool belongs to one worker"
    urls = serving.url(0, target=ONE), serving.url(1, target=ONE), serving.url(7, target=TWO)
    with connect(urls[0]) as vm, connect(urls[1]) as now, connect(urls[2]) as then:
        assert [lun.capacity().size >> 20 for lun in (vm, now, then)] == [8, 4, 4]
        assert (now.block_size, then.block_size) == (4096, 512)
        vm.write(3, b"v" * 512)
        now.write(3, b"n" * 4096)
        assert vm.read(2, 3) == bytes(512) + b"v" * 512 + bytes(512)
        assert then.read(24, 8) == bytes(4096), "a snapshot stays what it was"
        with pytest.raises(ScsiError) as error:
            then.write(0, bytes(512))
        assert error.value.sense is not None
        assert error.value.sense.key == 7, "DATA PROTECT"
    identities = [run([need("iscsi-inq", "libiscsi-bin"), "-e", "1", "-c", "128", url]).stdout for url in urls]
    assert len(set(identities)) == 3
    # the worker dies and is started again: all that was written is there
    os.kill(serving.workers[0], signal.SIGKILL)
    with connect(urls[0], timeout=120) as vm, connect(urls[1], timeout=120) as now:
        assert vm.read(2, 3) == bytes(512) + b"v" * 512 + bytes(512)
        assert now.read(3) == b"n" * 4096
    serving.restart()
    assert [run([need("iscsi-inq", "libiscsi-bin"), "-e", "1", "-c", "128", url]).stdout for url in urls] == identities
    with connect(urls[0]) as vm:
        assert vm.read(3) == b"v" * 512


def test_pools_and_volumes_come_and_go_while_they_are_served(target: TargetFactory, tmp_path: Path) -> None:
    make_pool(tmp_path / "fast", two_volumes)
    make_pool(tmp_path / "slow", lambda pool: pool.create_volume("archive", 1 << 20, 16))
    (tmp_path / "plain.img").write_bytes(bytes(1 << 20))
    plain = f"[volumes.plain]\npath = 'plain.img'\n[targets.'{TWO}']\nluns = {{0 = 'plain'}}\n"
    fast = "[pools.fast]\ndirectory = 'fast'\n[volumes.vm]\npool = 'fast'\n"
    serving = target(config=plain, options=["--workers", "2"])
    with connect(serving.url(0, target=TWO)) as undisturbed:
        assert change(serving, tmp_path, plain + fast).splitlines() == ["+ volumes.vm", "+ pools.fast"]
        assert len(serving.workers) == 2, "a pool is open in some worker, also when no target shows it"
        change(serving, tmp_path, plain + fast + f"[targets.'{ONE}']\nluns = {{0 = 'vm'}}\n")
        with connect(serving.url(0, target=ONE)) as vm:
            vm.write(0, b"v" * 512)
            settle(vm)
            more = "[volumes.db]\npool = 'fast'\nread_only = true\n"
            more += "[pools.slow]\ndirectory = 'slow'\n[volumes.archive]\npool = 'slow'\n"
            luns = f"[targets.'{ONE}']\nluns = {{0 = 'vm', 1 = 'db', 2 = 'archive'}}\n"
            assert "+ pools.slow" in change(serving, tmp_path, plain + fast + more + luns)
            assert attention(vm) == Asc.REPORTED_LUNS_DATA_HAS_CHANGED
            assert vm.luns() == [0, 1, 2]
            assert vm.read(0) == b"v" * 512
            # another name for the same pool: it is let go of and opened again
            renamed = (plain + fast + more + luns).replace("pool = 'fast'", "pool = 'quick'")
            renamed = renamed.replace("pools.fast", "pools.quick")
            change(serving, tmp_path, renamed)
        with connect(serving.url(0, target=ONE)) as vm:
            assert vm.read(0) == b"v" * 512
        wrong = change(serving, tmp_path, plain + fast + "[volumes.x]\npool = 'fast'\nvolume = 'vn'\n")
        assert "there is no volume 'vn' in the pool fast; did you mean 'vm', or is it to be made" in wrong
        change(serving, tmp_path, plain)
        assert undisturbed.read(0) == bytes(512)
    with Pool(tmp_path / "fast", FileDevice) as pool:  # nobody has it open any more
        assert pool.volumes == ["db", "vm"]


def test_a_pool_is_exported(tmp_path: Path) -> None:
    def prepare(pool: Pool) -> None:
        two_volumes(pool)
        pool.create_volume("Web_1", 1 << 20, 16)

    make_pool(tmp_path / "fast", prepare)
    with serve(tmp_path / "s", "--pool", str(tmp_path / "fast"), "--target", ONE) as served:
        assert served.targets == [f"{ONE}:web-1", f"{ONE}:db", f"{ONE}:vm"]
        listed = run([need("iscsi-ls", "libiscsi-bin"), "-s", f"iscsi://{served.portals[0]}"]).stdout
        found = [word.removeprefix("Target:") for word in listed.split() if word.startswith("Target:")]
        assert sorted(found) == sorted(served.targets)
        with connect(f"iscsi://{served.portals[0]}/{ONE}:vm/0") as vm:
            assert vm.capacity().size == 8 << 20
        assert served.stop() == 0


FAST = "[pools.fast]\ndirectory = 'fast'\n"
IN_FAST = f"{FAST}[volumes.vm]\npool = 'fast'\n"


@pytest.mark.parametrize(
    ("text", "status", "message"),
    [
        ("[pools.x]\ndirectory = 'none'", 4, "there is no pool: make one with `blockyard pool create"),
        ("[pools.'a/b']\ndirectory = 'fast'", 6, 'pools."a/b": '),
        (f"{FAST}access = [{{}}]", 6, "pools.fast.access: that is for pools that are exported"),
        (f"{FAST}export = true\ntarget = 'x'", 6, "pools.fast.target: "),
        (f"{FAST}[volumes.a]\npool = 'fats'", 6, "volumes.a.pool: there is no pool 'fats'; did you mean 'fast'?"),
        (f"{FAST}[volumes.a]\npool = 'fast'", 4, "make it with `blockyard volume create fast/a SIZE`"),
        (f"{IN_FAST}snapshot = 'x'", 4, "there is no snapshot 'x' of fast/vm: make it with"),
        (f"{IN_FAST}size = '1G'", 6, "volumes.vm.size: the pool knows the size"),
        (f"{IN_FAST}path = 'x'", 6, "volumes.vm.path: a volume is in a pool or has a path"),
        (f"{IN_FAST}protection = 1", 6, "volumes.vm.protection: volumes of pools have none"),
        (f"{IN_FAST}[volumes.b]\npool = 'fast'\nvolume = 'vm'", 6, "volumes.b: volumes.vm is fast/vm too"),
        (f"{FAST}[pools.slow]\ndirectory = 'fast'", 4, "is the pool fast and the pool slow: name it once"),
        ("[volumes.vm]\npath = 'x'\nsnapshot = 'y'", 6, "volumes.vm.snapshot: that is for volumes of pools"),
        ("[volumes.vm]\nread_only = true", 6, "volumes.vm.path: "),
    ],
)
def test_what_makes_no_sense_is_told(
    text: str, status: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_pool(tmp_path / "fast", two_volumes)
    file = tmp_path / "blockyard.toml"
    file.write_text(text)
    assert main(["serve", "--config", str(file), "--state", str(tmp_path / "s"), "--portal", "127.0.0.1:0"]) == status
    assert message in capsys.readouterr().err


def test_a_pool_that_another_process_has_open(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_pool(tmp_path / "fast", two_volumes)
    fd = os.open(tmp_path / "fast", os.O_RDONLY)
    fcntl.flock(fd, fcntl.LOCK_EX)
    arguments = ["serve", "--pool", str(tmp_path / "fast"), "--state", str(tmp_path / "s"), "--portal", "127.0.0.1:0"]
    assert main(arguments) == 4
    assert "Another process has this pool open" in capsys.readouterr().err
    os.close(fd)


def _take(fd: int, serving: Serving) -> None:
    """Have the lock before the worker that takes the place of one that is killed."""
    while True:
        for pid in serving.workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return


def test_a_pool_that_cannot_be_opened_again_does_not_take_the_rest_with_it(
    target: TargetFactory, tmp_path: Path
) -> None:
    make_pool(tmp_path / "fast", two_volumes)
    (tmp_path / "plain.img").write_bytes(b"p" * (1 << 20))
    serving = target(
        config=f"[pools.fast]\ndirectory = 'fast'\n[volumes.vm]\npool = 'fast'\n[targets.'{ONE}']\nluns = {{0 = 'vm'}}\n"
        f"[volumes.plain]\npath = 'plain.img'\n[targets.'{TWO}']\nluns = {{0 = 'plain'}}\n",
        options=["--workers", "1"],
    )
    with connect(serving.url(target=ONE)) as vm:
        vm.write(0, b"v" * 512)
    fd = os.open(tmp_path / "fast", os.O_RDONLY)
    _take(fd, serving)
    with connect(serving.url(target=TWO), timeout=120) as plain:
        assert plain.read(0) == b"p" * 512
        listed = run([*BLOCKYARD, "pool", "list", "--state", tmp_path / "state-0"])
        assert re.search(r"^fast +- +- +- +- +- +/", listed.stdout, re.MULTILINE)
        assert "blockyard: fast: " in listed.stdout
        assert "there is no volume" in run([*BLOCKYARD, "volume", "list", "--state", tmp_path / "state-0"]).stdout
        os.close(fd)
        with connect(serving.url(target=ONE), timeout=120) as vm:
            eventually(lambda: vm.luns() == [0])
            assert vm.read(0) == b"v" * 512
        told = "the pool fast is not served, as it cannot be opened"  # they are written once a second
        eventually(lambda: told in run([*BLOCKYARD, "events", "--state", tmp_path / "state-0"]).stdout)
