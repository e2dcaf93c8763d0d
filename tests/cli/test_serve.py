"""`blockyard serve` as people meet it: what it prints, what it refuses, how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.control.portals import listen, parse_portal
from blockyard.iscsi.pdu import AsyncEvent, AsyncMessage, LoginStatus
from tests.control.serving import discover, log_in, receive, serve, start
from tests.waiting import LIMIT, eventually

NAMED = "iqn.2026-11.test:named"


@pytest.fixture(autouse=True)
def _home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test touches the state of whoever runs it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--size", "ten", "a.img"], 2, "'ten' is not a size: write a number with K, M, G or T"),
        (["--size", "0", "a.img"], 2, "is not a size that a disk can have"),
        (["--size", "1000", "a.img"], 2, "not a multiple of the block size 512"),
        (["--size", "1000000K", "--block-size", "4096", "--read-only", "a.img"], 4, "cannot be --read-only"),
        (["--size", "8E", "a.img"], 2, "is not a size"),
        (["--size", "8000P", "a.img"], 4, "more than a file there can have"),
        (["a.img"], 4, "a.img does not exist: to create it, give its size"),
        (["."], 4, "is a directory"),
        ([""], 2, "the PATH is empty"),
        ([f"{NAMED}="], 2, "the PATH is empty"),
        (["/proc/version"], 4, "/proc/version"),
        (["/dev/null"], 4, "neither a file nor a block device"),
        (["no/such/place.img", "--size", "1G"], 4, "the directory no/such does not exist"),
        (["--target", "disk"], 2, "'disk' is not an iSCSI name; it should look like iqn."),
        (["iqn.bad=a.img"], 2, "'iqn.bad' is not an iSCSI name"),
        (["--portal", "somewhere"], 2, "has no IP address"),
        (["--portal", "127.0.0.1:99999"], 2, "port"),
        (["--portal", "203.0.113.77:0"], 3, "not an address of this machine"),
        (["--workers", "0"], 2, "--workers 0: there must be one at least"),
        (["--workers", "many"], 2, "invalid int value: 'many'"),
        (["--block-size", "1024"], 2, "invalid choice"),
        (["--no-such-option"], 2, "unrecognized arguments"),
        (["--state", "/dev/null"], 5, "name one with --state"),
        (["--state", "/proc/x"], 5, "name another directory with --state"),
    ],
)
def test_errors_are_one_line_and_a_status(
    arguments: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    portal = [] if "--portal" in arguments else ["--portal", "127.0.0.1:0"]
    try:
        got = main(["serve", *arguments, *portal])
    except SystemExit as end:  # argparse's own
        got = int(end.code or 0)
    out, err = capsys.readouterr()
    assert (got, out) == (status, "")
    assert message in err
    assert err.startswith("blockyard")
    assert err.count("\n") == 1
    assert not Path("a.img").exists()


def test_help_tells_the_exit_statuses(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["serve", "--help"])
    assert end.value.code == 0
    printed = capsys.readouterr().out
    for words in ("exit status:", "--portal ADDR[:PORT]", "--size SIZE", "--write-through", "[IQN=]PATH"):
        assert words in printed


def test_one_volume_is_not_exported_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.img").write_bytes(bytes(4096))
    (tmp_path / "b.img").hardlink_to(tmp_path / "a.img")
    assert main(["serve", "--portal", "127.0.0.1:0", "a.img", f"{NAMED}=b.img"]) == 4
    assert "b.img and a.img are one volume" in capsys.readouterr().err


def test_a_port_that_is_taken_creates_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken, portal = listen(parse_portal("127.0.0.1:0"))
    with taken:
        assert main(["serve", "new.img", "--size", "1M", "--portal", str(portal)]) == 3
    assert f"{portal} is taken by" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["state"]  # where it has made sure that it is the only one


def test_without_arguments_a_demo_disk_is_served(tmp_path: Path) -> None:
    with serve(tmp_path / "s") as served:
        assert (tmp_path / "s" / "demo.img").stat().st_size == 1 << 30
        assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
        (target,) = served.targets
        portal = served.portals[0]
        for line in (
            f"iscsiadm -m discovery -t sendtargets -p {portal}",
            f"iscsiadm -m node -T {target} -p {portal} --login",
            f"qemu-img info iscsi://{portal}/{target}/0",
            f"<source protocol='iscsi' name='{target}/0'>",
            "New-IscsiTargetPortal -TargetPortalAddress",
            f"Connect-IscsiTarget -NodeAddress {target}",
            "esxcli iscsi adapter discovery sendtarget add",
            f"{tmp_path / 's' / 'demo.img'} (new)",
        ):
            assert line in served.printed
        assert discover(served.address) == [("TargetName", target), ("TargetAddress", f"{portal},1")]
        sock, response = log_in(served.address, target)
        assert response.status == 0
        sock.close()
        assert served.stop() == 0
        assert served.log == ""


def test_names_and_identities_are_the_same_after_a_restart(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        with serve(tmp_path / "s", str(tmp_path / "a.img"), "--size", "1M") as served:
            found.append(served.targets)
            assert served.stop() == 0
    assert found[0] == found[1]


def test_several_targets_portals_and_workers(tmp_path: Path) -> None:
    names = [f"{NAMED}-{letter}" for letter in "ab"]
    paths = [f"{names[0]}=1.img", f"{names[1]}=2.img", f"{names[0]}=3.img", "4.img"]
    with serve(
        tmp_path / "s", *paths, "--size", "1M", "--target", NAMED, "--portal", "[::1]:0", "--workers", "2"
    ) as served:
        assert served.targets == [*names, NAMED]
        assert len(served.portals) == 2
        assert len(served.workers()) == 2
        for address in (served.address, ("::1", int(served.portals[1].rpartition(":")[2]))):
            told = discover(address)
            assert [value for key, value in told if key == "TargetName"] == [*names, NAMED]
            assert {value for key, value in told if key == "TargetAddress"} == {f"{p},1" for p in served.portals}
            for name in served.targets:
                sock, response = log_in(address, name)
                assert response.status == 0
                sock.close()
        sock, response = log_in(served.address, "iqn.2026-11.test:nowhere")
        assert response.status == LoginStatus.NOT_FOUND
        sock.close()
        assert served.stop(signal.SIGINT) == 0


def test_initiators_are_asked_to_log_out(tmp_path: Path) -> None:
    with serve(tmp_path / "s") as served:
        sock, _ = log_in(served.address, served.targets[0])
        served.process.send_signal(signal.SIGTERM)
        message = receive(sock)
        assert isinstance(message, AsyncMessage)
        assert message.event == AsyncEvent.LOGOUT_REQUESTED
        sock.close()
        assert served.process.wait(LIMIT) == 0


def test_a_second_signal_does_not_wait(tmp_path: Path) -> None:
    with serve(tmp_path / "s") as served:
        sock, _ = log_in(served.address, served.targets[0])
        served.process.send_signal(signal.SIGTERM)
        assert isinstance(receive(sock), AsyncMessage)  # and the initiator stays
        assert served.stop() == 1
        assert "without waiting" in served.log
        sock.close()


def test_a_worker_that_is_killed_comes_back(tmp_path: Path) -> None:
    with serve(tmp_path / "s") as served:
        sock, _ = log_in(served.address, served.targets[0])
        (worker,) = served.workers()
        os.kill(worker, signal.SIGKILL)
        assert sock.recv(1) == b""
        sock.close()
        again, response = log_in(served.address, served.targets[0])  # waits for the new one
        assert response.status == 0
        assert served.workers() != [worker]
        again.close()
        assert served.stop() == 0
        assert "killed by SIGKILL; it is started again" in served.log


def test_a_name_that_is_not_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"disk-\xff\xfe.img")
    for _ in range(2):
        with serve(tmp_path / "s", name, *([] if Path(name).exists() else ["--size", "1M"])) as served:
            assert "disk-\\udcff\\udcfe.img" in served.printed
            sock, response = log_in(served.address, served.targets[0])
            assert response.status == 0
            sock.close()
            assert served.stop() == 0


def test_a_volume_that_is_served_already(tmp_path: Path) -> None:
    with serve(tmp_path / "s", "a.img", "--size", "1M") as served:
        second = start(tmp_path / "other", "a.img")
        _, error = second.communicate(timeout=LIMIT)
        assert second.returncode == 4
        assert "a.img" in error
        assert "in use by process" in error
        assert error.count("\n") == 1
        assert served.stop() == 0


def test_workers_do_not_outlive_control_where_that_is_wanted(tmp_path: Path) -> None:
    with serve(tmp_path / "s", "--linger", "0") as served:
        (worker,) = served.workers()
        served.process.kill()
        eventually(lambda: not Path(f"/proc/{worker}").exists(), "the end of the worker")


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(LIMIT)
        told: list[bytes] = []

        def listen_until(line: bytes, count: int = 1) -> None:
            while sum(line in message.split(b"\n") for message in told) < count:
                told.append(manager.recv(4096))

        with serve(tmp_path / "s", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="200000") as served:
            listen_until(b"READY=1")
            listen_until(b"WATCHDOG=1", 3)
            served.process.send_signal(signal.SIGHUP)
            listen_until(b"RELOADING=1")
            listen_until(b"READY=1", 2)
            assert discover(served.address)
            served.process.terminate()
            listen_until(b"STOPPING=1")
            assert served.process.wait(LIMIT) == 0
    assert b"STATUS=Serving 1 target" in b"\n".join(told)


def test_a_portal_that_others_reach_is_warned_of(tmp_path: Path) -> None:
    with serve(tmp_path / "s", "--log-format", "json", portal="0.0.0.0:0") as served:
        _, port = served.address
        told = discover(("127.0.0.1", port))
        assert told[1] == ("TargetAddress", f"127.0.0.1:{port},1")
        assert "On another machine\n" in served.printed
        assert served.stop() == 0
    (line,) = served.log.splitlines()
    assert re.match(r"anyone who can reach 0\.0\.0\.0:\d+ can read and write iqn", json.loads(line)["message"])


def test_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    process = start(tmp_path / "s", portal="127.0.0.1:0")
    assert process.stdout is not None
    process.stdout.close()
    # It answers once it has said that it is ready.
    eventually(lambda: process.poll() is not None or not main(["status", "--state", str(tmp_path / "s")]))
    assert process.poll() is None
    process.terminate()
    assert process.wait(LIMIT) == 0
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()


def test_thin_disks_that_cannot_be_filled_are_told(tmp_path: Path) -> None:
    with serve(tmp_path / "s", "big.img", "--size", "8T" if _can_be(tmp_path, 8 << 40) else "1T") as served:
        assert served.stop() == 0
    assert "writes will fail when it is full" in served.log


def _can_be(folder: Path, size: int) -> bool:
    probe = folder / "probe"
    try:
        with probe.open("wb") as file:
            file.truncate(size)
    except OSError:
        return False
    finally:
        probe.unlink()
    return True
