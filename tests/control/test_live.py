"""Changes while initiators are logged in: LUNs, targets, portals, sizes and rights come and go, and they are told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.control.administration import ask
from blockyard.control.supervisor import GRACE
from blockyard.initiator import InitiatorError, LoginError, Lun, ScsiError, connect
from blockyard.scsi.sense import Asc
from tests.conftest import need, run
from tests.control.serving import Served, discover, log_in, serve
from tests.serving import free_port, workers_of
from tests.waiting import eventually

ONE, TWO, THREE = (f"iqn.2026-11.test:{name}" for name in ("one", "two", "three"))


class Site:
    """A server with a configuration file that the test writes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "s"
        self.file = folder / "blockyard.toml"
        self.portals = [f"127.0.0.{number}:{free_port()}" for number in (1, 2)]
        self.served: Served

    def write(self, targets: str, *, volumes: str = "abc", groups: str = "", **sizes: str) -> None:
        """`targets` beside volumes a, b, c of 1 MiB (or other sizes)."""
        groups = groups or f"1 = {{portals = ['{self.portals[0]}']}}"
        lines = [f"portal_groups = {{{groups}}}"]
        lines += [f"[volumes.{name}]\npath = '{name}.img'\nsize = '{sizes.get(name, '1M')}'" for name in volumes]
        self.file.write_text("\n".join(lines) + f"\n{targets}\n")

    @contextmanager
    def serve(self, *options: str) -> Iterator[Served]:
        with serve(self.state, "--config", str(self.file), *options, portal=None) as self.served:
            yield self.served
            assert self.served.stop() == 0, self.served.log

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "blockyard", *words, "--state", str(self.state)],
            capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip

    def reload(self) -> list[str]:
        """`blockyard reload`; what it prints."""
        done = self.run("reload")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    def connect(self, target: str, lun: int = 0, portal: int = 0) -> Lun:
        return connect(f"iscsi://{self.portals[portal]}/{target}/{lun}", timeout=120)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def one(luns: str) -> str:
    return f"[targets.'{ONE}']\nluns = {{{luns}}}\n"


def attention(lun: Lun) -> int:
    """The unit attention that TEST UNIT READY ends with."""
    response = lun.command(bytes(6))
    sense = bytes(response.sense)
    assert (response.status, sense[2] & 0xF) == (2, 6), (response.status, sense.hex())
    return sense[12] << 8 | sense[13]


def settle(lun: Lun) -> None:
    """Take the unit attentions that are pending."""
    while lun.command(bytes(6)).status:
        pass


def test_luns_come_and_go(site: Site) -> None:
    site.write(one("0 = 'a', 1 = 'b'"))
    with site.serve() as served:
        workers = served.workers()
        lun, second = site.connect(ONE), site.connect(ONE, 1)
        for each in (lun, second):
            each.write(0, b"1" * 512)
            settle(each)
        site.write(one("0 = 'a', 5 = 'c', 300 = 'b'"))
        assert site.reload() == [
            f'- targets."{ONE}".luns.1 = "b"', f'+ targets."{ONE}".luns.5 = "c"', f'+ targets."{ONE}".luns.300 = "b"',
        ]  # fmt: skip
        assert attention(lun) == Asc.REPORTED_LUNS_DATA_HAS_CHANGED
        assert lun.luns() == [0, 5, 300]
        assert lun.read(0) == b"1" * 512
        with pytest.raises(ScsiError) as error:
            second.read(0)
        assert error.value.sense is not None
        assert (error.value.sense.key, error.value.sense.asc) == (5, 0x25)
        moved = Lun(second.session, 300)
        assert moved.read(0) == b"1" * 512, "volume b under its other number"
        fresh = Lun(lun.session, 5)
        fresh.write(0, b"2" * 512)
        assert fresh.read(0) == b"2" * 512
        listed = run([need("iscsi-ls", "libiscsi-bin"), "-s", f"iscsi://{site.portals[0]}"]).stdout
        assert [line.split()[0] for line in listed.splitlines()[1:]] == ["Lun:0", "Lun:5", f"Lun:{0x4000 | 300}"]
        assert served.workers() == workers
        assert site.reload() == ["nothing has changed"]
        lun.close()
        second.close()


def test_a_volume_that_is_taken_out_ends_its_tasks_first_and_is_free(site: Site) -> None:
    site.write(one("0 = 'a', 1 = 'b'"))
    with site.serve() as served:
        lun = site.connect(ONE, 1)
        lun.read(0)
        stop = threading.Event()
        failures: list[ScsiError] = []

        def work() -> None:
            while not stop.is_set() and not failures:
                try:
                    lun.write(0, bytes(64 << 10))
                except ScsiError as error:
                    failures.append(error)

        thread = threading.Thread(target=work)
        thread.start()
        site.write(one("0 = 'a'"), volumes="a")
        site.reload()
        thread.join(120)
        stop.set()
        assert failures[0].sense is not None
        assert failures[0].sense.asc == 0x25, "every write ended, the first one after by LOGICAL UNIT NOT SUPPORTED"
        opened = [place for pid in served.workers() for place in _opened(pid)]
        assert str(site.folder / "a.img") in opened
        assert str(site.folder / "b.img") not in opened
        lun.close()


def _opened(pid: int) -> Iterator[str]:
    """What a process has open; some of it may be closed meanwhile."""
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            yield os.readlink(fd)


def test_a_volume_grows_and_does_not_shrink(site: Site) -> None:
    site.write(one("0 = 'a'"))
    with site.serve():
        lun = site.connect(ONE)
        settle(lun)
        site.write(one("0 = 'a'"), a="3M")
        assert site.reload() == ['~ volumes.a.size: "1M" → "3M"', "~ a has 3M now, after 1M"]
        assert attention(lun) == Asc.CAPACITY_DATA_HAS_CHANGED
        assert lun.capacity().size == 3 << 20
        lun.write((3 << 20) // 512 - 1, b"z" * 512)
        site.write(one("0 = 'a'"), a="2M")
        done = site.run("reload")
        assert (done.returncode, done.stdout) == (4, "")
        assert "shrinking would cut off data" in done.stderr
        assert lun.capacity().size == 3 << 20
        done = site.run("volume", "resize", "a", "4M")
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert f"the size of a stands in {site.file}" in done.stderr
        lun.close()


def test_volume_resize(tmp_path: Path) -> None:
    with serve(tmp_path / "s", str(tmp_path / "disk.img"), "--size", "1M") as served:
        lun = connect(f"iscsi://{served.portals[0]}/{served.targets[0]}/0")
        settle(lun)
        state = ["--state", str(tmp_path / "s")]
        assert main(["volume", "resize", "disk.img", "5M", *state]) == 0
        assert attention(lun) == Asc.CAPACITY_DATA_HAS_CHANGED
        assert lun.capacity().size == 5 << 20
        url = f"iscsi://{served.portals[0]}/{served.targets[0]}/0"
        assert f"Total size:{5 << 20}" in run([need("iscsi-readcapacity16", "libiscsi-bin"), url]).stdout
        assert main(["volume", "resize", "disk.img", "1M", *state]) == 4
        assert main(["volume", "resize", "disk.img", "1000", *state]) == 2
        assert main(["volume", "resize", "disk.img", "much", *state]) == 2
        assert main(["volume", "resize", "other", "5M", *state]) == 2
        os.truncate(tmp_path / "disk.img", 6 << 20)
        assert main(["reload", *state]) == 4, "--size said otherwise"
        assert lun.capacity().size == 5 << 20
        lun.close()
        assert served.stop() == 0


def test_a_volume_becomes_read_only_and_writable_again(site: Site) -> None:
    site.write(one("0 = 'a'"))
    with site.serve():
        lun = site.connect(ONE)
        lun.write(0, b"x" * 512)
        settle(lun)
        text = site.file.read_text()
        site.file.write_text(text.replace("[volumes.a]", "[volumes.a]\nread_only = true"))
        assert site.reload() == ["+ volumes.a.read_only = true"]
        assert attention(lun) == Asc.MODE_PARAMETERS_CHANGED
        with pytest.raises(ScsiError) as error:
            lun.write(0, b"y" * 512)
        assert error.value.sense is not None
        assert (error.value.sense.key, error.value.sense.asc) == (7, 0x27)
        assert lun.read(0) == b"x" * 512
        site.file.write_text(text)
        site.reload()
        lun.write(0, b"y" * 512)
        assert lun.read(0) == b"y" * 512
        lun.close()


def test_a_volume_that_is_replaced_by_another_file(site: Site) -> None:
    site.write(one("0 = 'a'"))
    with site.serve():
        lun = site.connect(ONE)
        lun.write(0, b"x" * 512)
        (site.folder / "z.img").write_bytes(bytes(2 << 20))
        site.file.write_text(site.file.read_text().replace("'a.img'\nsize = '1M'", "'z.img'"))
        site.reload()
        assert lun.read(0) == bytes(512)
        assert lun.capacity().size == 2 << 20
        site.file.write_text(site.file.read_text().replace("'z.img'", "'z.img'\nblock_size = 4096"))
        site.reload()  # the same file, closed and opened anew
        with site.connect(ONE) as again:
            assert again.block_size == 4096
        lun.close()


def test_targets_come_and_go_beside_a_session_that_does_not_notice(site: Site) -> None:
    site.write(one("0 = 'a'"))
    with site.serve("--workers", "3") as served:
        assert len(served.workers()) == 1
        lun = site.connect(ONE)
        lun.write(0, b"x" * 512)
        site.write(one("0 = 'a'") + f"[targets.'{TWO}']\nluns = {{0 = 'b'}}\n[targets.'{THREE}']\n")
        assert site.reload() == [f'+ targets."{TWO}"', f'+ targets."{THREE}"']
        assert len(served.workers()) == 3
        with site.connect(TWO) as other:
            other.write(0, b"y" * 512)
        site.write(one("0 = 'a'"))
        site.reload()
        with pytest.raises(LoginError):
            site.connect(TWO)
        assert [value for name, value in discover(served.address) if name == "TargetName"] == [ONE]
        assert len(served.workers()) == 1
        assert lun.read(0) == b"x" * 512
        lun.close()


def test_targets_that_come_to_share_a_volume_move_together(site: Site) -> None:
    site.write(one("0 = 'a'") + f"[targets.'{TWO}']\nluns = {{0 = 'b'}}\n[targets.'{THREE}']\nluns = {{0 = 'c'}}")
    with site.serve("--workers", "3") as served:
        luns = [site.connect(name) for name in (ONE, TWO, THREE)]
        for lun in luns:
            lun.write(0, b"x" * 512)
        before = served.workers()
        assert len(before) == 3
        threads = follow_requests(luns)
        site.write(
            one("0 = 'a'") + f"[targets.'{TWO}']\nluns = {{0 = 'b', 1 = 'a'}}\n[targets.'{THREE}']\nluns = {{0 = 'c'}}"
        )
        assert site.reload() == [f'+ targets."{TWO}".luns.1 = "a"']
        assert len(served.workers()) == 2
        assert set(served.workers()) < set(before)
        with site.connect(TWO, 1) as shared, site.connect(ONE) as same:
            same.write(1, b"s" * 512)
            assert shared.read(1) == b"s" * 512
        for thread in threads:
            thread.stop()
        assert luns[2].read(0) == b"x" * 512, "the third never noticed"
        for lun in luns:
            with contextlib.suppress(InitiatorError):  # one of the first two has logged out
                lun.close()


class Follower(threading.Thread):
    """An idle initiator that logs out when it is asked to."""

    def __init__(self, lun: Lun) -> None:
        super().__init__(daemon=True)
        self._lun = lun
        self._stopping = threading.Event()

    def run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._lun.session.poll()
                if self._lun.session.logout_requested:
                    self._lun.close()
                    return
            except InitiatorError:  # cut off
                return
            self._stopping.wait(0.02)

    def stop(self) -> None:
        self._stopping.set()
        self.join(120)


def follow_requests(luns: list[Lun]) -> list[Follower]:
    followers = [Follower(lun) for lun in luns]
    for follower in followers:
        follower.start()
    return followers


def test_portals_come_and_go(site: Site) -> None:
    first, second = site.portals
    both = f"1 = {{portals = ['{first}', '{second}']}}"
    site.write(one("0 = 'a'"))

    def leaves() -> float:
        """How long it takes that the second portal goes."""
        site.write(one("0 = 'a'"), groups=both)
        site.reload()
        (follower,) = follow_requests([site.connect(ONE, portal=1)])
        site.write(one("0 = 'a'"))
        began = time.monotonic()
        ask(site.state, "reload")
        took = time.monotonic() - began
        follower.join(120)
        return took

    with site.serve() as served:
        lun = site.connect(ONE)
        site.write(one("0 = 'a'"), groups=both)
        assert site.reload() == [f'~ portal_groups.1.portals: ["{first}"] → ["{first}", "{second}"]']
        assert {value for name, value in discover(served.address) if name == "TargetAddress"} == {
            f"{first},1", f"{second},1",
        }  # fmt: skip
        other = site.connect(ONE, portal=1)
        other.write(0, b"x" * 512)
        (follower,) = follow_requests([other])
        host, port = second.split(":")
        asking, _ = log_in((host, int(port)), None)
        site.write(one("0 = 'a'"))
        began = time.monotonic()
        ask(site.state, "reload")
        took = time.monotonic() - began
        with asking:
            assert asking.recv(1) == b"", "a discovery session by that portal is over too"
        follower.join(120)
        assert took < GRACE or any(leaves() < GRACE for _ in range(5)), "an initiator that logs out is not waited for"
        with pytest.raises(OSError, match="refused"):
            site.connect(ONE, portal=1)
        assert lun.read(0) == b"x" * 512
        lun.close()


def test_a_portal_of_ipv6_and_a_group_that_a_target_leaves(site: Site) -> None:
    first, second = site.portals[0], f"[::1]:{free_port('::1')}"
    groups = f"1 = {{portals = ['{first}']}}, 2 = {{portals = ['{second}']}}"
    target = one("0 = 'a'") + "portal_groups = [1, 2]\n"
    site.write(target, groups=groups)
    with site.serve():
        lun, other = site.connect(ONE), connect(f"iscsi://{second}/{ONE}/0")
        other.write(0, b"x" * 512)
        site.write(target.replace("[1, 2]", "[1]"), groups=groups)
        site.reload()  # the initiator does not log out: it is cut off after its grace
        with pytest.raises(LoginError) as error:
            connect(f"iscsi://{second}/{ONE}/0")
        assert error.value.status == 0x0203
        assert lun.read(0) == b"x" * 512
        lun.close()
        with contextlib.suppress(InitiatorError):
            other.close()


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ("[volumes.new]\npath = 'no/such/dir.img'\nsize = '1M'\n", 4, "the directory"),
        ("[volumes.d]\npath = 'd.img'\nsize = '1M'\n[volumes.new]\npath = 'none.img'\n", 4, "does not exist"),
        ("[volumes.new]\npath = 'busy.img'\n", 4, "in use by process"),
        ("[volumes.new]\npath = 'a.img'\n", 4, "are one volume"),
        ("[volumes.new]\npth = 'x.img'\n", 6, "volumes.new.pth: there is no such key; did you mean path?"),
        ("[portal_groups.2]\nportals = ['203.0.113.77:3260']\n", 3, "not an address of this machine"),
        ("nonsense", 6, "is not TOML"),
    ],
)
def test_all_or_nothing(site: Site, change: str, status: int, message: str) -> None:
    groups = f"1 = {{portals = ['{site.portals[0]}']}}"
    site.write(one("0 = 'a'"))
    text = site.file.read_text().replace(
        f"portal_groups = {{{groups}}}", f"[portal_groups.1]\nportals = ['{site.portals[0]}']"
    )
    site.file.write_text(text)
    (site.folder / "busy.img").write_bytes(bytes(1 << 20))
    holder = subprocess.Popen(["flock", site.folder / "busy.img", "sleep", "600"])
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    try:
        eventually(lambda: bool(children.read_text()))  # it has the lock
        with site.serve() as served:
            lun = site.connect(ONE)
            lun.write(0, b"x" * 512)
            settle(lun)
            busy = f"[targets.'{TWO}']\nluns = {{0 = 'new'}}\n" if "busy" in change else ""
            site.file.write_text(change + text.replace("'a'}", "'b'}") + busy)
            done = site.run("reload")
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (status, "", 1)
            assert message in done.stderr
            assert lun.read(0) == b"x" * 512
            assert not (site.folder / "d.img").exists()
            assert [value for name, value in discover(served.address) if name == "TargetName"] == [ONE]
            lun.close()
    finally:
        for pid in children.read_text().split():
            os.kill(int(pid), signal.SIGTERM)
        holder.wait(120)


def test_rules_change(site: Site) -> None:
    rule = f"[[targets.'{ONE}'.access]]\n"
    site.write(one("0 = 'a', 1 = 'b'") + rule + "luns = {0 = 'b', 3 = 'a'}\n")
    with site.serve():
        lun = site.connect(ONE)
        lun.write(0, b"b" * 512)
        assert lun.luns() == [0, 3]
        settle(lun)
        site.write(one("0 = 'a', 1 = 'b'") + rule + "luns = {0 = 'b', 3 = 'a'}\ninitiators = ['iqn.*']\n")
        site.reload()
        assert lun.read(0) == b"b" * 512, "the session's right is what it was"
        site.write(one("0 = 'a', 1 = 'b'") + rule + "right = 'refuse'\n")
        site.reload()
        with pytest.raises(InitiatorError):
            eventually(lambda: not lun.read(0))
        with pytest.raises(LoginError):
            site.connect(ONE)


def test_sighup_reloads_and_a_restarted_worker_has_the_current_state(site: Site) -> None:
    site.write(one("0 = 'a'"))
    with site.serve() as served:
        site.write(one("0 = 'a', 1 = 'b'"))
        served.process.send_signal(signal.SIGHUP)
        eventually(lambda: len(json.loads(site.run("status", "--json").stdout)["targets"][ONE]["luns"]) == 2)
        (worker,) = workers_of(served.process.pid)
        os.kill(worker, signal.SIGKILL)
        eventually(lambda: served.workers() not in ([], [worker]))
        with site.connect(ONE, 1) as lun:
            assert lun.luns() == [0, 1]
        site.file.write_text("nonsense")
        served.process.send_signal(signal.SIGHUP)
        assert site.run("reload").returncode == 6  # after the one that the signal has begun
        with site.connect(ONE, 1) as lun:
            assert lun.luns() == [0, 1]
    assert "reload: nothing has changed" in served.log
