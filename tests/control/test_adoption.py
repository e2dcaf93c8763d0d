"""Sessions outlive the control process: it is killed or started again, and workers go on and are taken over by the next one."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from blockyard import __version__
from blockyard.cli.main import main
from blockyard.control import adoption
from blockyard.control.administration import ask
from blockyard.control.body import DOORS
from blockyard.initiator import connect
from blockyard.worker.handoff import send_message
from tests.conftest import TargetFactory, need
from tests.control.serving import log_in
from tests.serving import Serving, free_port
from tests.waiting import LIMIT, eventually

OTHER = "iqn.2026-11.test:other"


def state_of(serving: Serving) -> Path:
    return serving.log.with_name("state-0")


def status(serving: Serving) -> dict[str, Any]:
    found: dict[str, Any] = ask(state_of(serving), "status")
    return found


def sessions(serving: Serving) -> list[Any]:
    """What makes a session the one that it is: by which connection it has come, too."""
    return [(each["tsih"], each["initiator"], each["connections"]) for each in status(serving)["sessions"]]


def kill(serving: Serving) -> int:
    """Kill control alone; the worker that goes on."""
    pid: int = status(serving)["workers"][0]["pid"]
    serving.process.kill()
    serving.process.wait(LIMIT)
    return pid


def has_ended(pid: int) -> bool:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([pidfd], [], [], LIMIT)[0])
    finally:
        os.close(pidfd)


@contextmanager
def load(serving: Serving) -> Iterator[list[int]]:
    """Reads and writes on one session all the time; how much has been done. Raises what has gone wrong in it."""
    done = [0]
    wrong: list[BaseException] = []
    over = threading.Event()

    def work() -> None:
        try:
            with connect(serving.url(), timeout=LIMIT) as lun:
                while not over.is_set():
                    block = bytes([done[0] % 251]) * 4096
                    lun.write(8 * (done[0] % 200), block)
                    assert lun.read(8 * (done[0] % 200), 8) == block
                    done[0] += 1
        except BaseException as error:
            wrong.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        eventually(lambda: done[0] > 10 or bool(wrong))
        yield done
        before = done[0]
        eventually(lambda: done[0] > before + 10 or bool(wrong))
    finally:
        over.set()
        thread.join()
    if wrong:
        raise wrong[0]


def test_control_is_killed_under_load(target: TargetFactory) -> None:
    serving = target()
    with load(serving) as done:
        before = sessions(serving)
        worker = kill(serving)
        without = done[0]
        eventually(lambda: done[0] > without + 10)  # with no control there
        serving.restart()
        assert sessions(serving) == before
        assert [each["pid"] for each in status(serving)["workers"]] == [worker]
        worker = kill(serving)  # it can be done again
        serving.restart()
        assert sessions(serving) == before
    os.kill(worker, signal.SIGKILL)  # it is watched as one of its own
    eventually(lambda: status(serving)["workers"][0]["pid"] not in (worker, None))
    with load(serving):
        pass


def test_a_foreign_initiator_does_not_notice(target: TargetFactory, capsys: pytest.CaptureFixture[str]) -> None:
    serving = target()
    command = [
        need("qemu-img", "qemu-utils"),
        "bench",
        "-f",
        "raw",
        "-t",
        "none",
        "-n",
        "-w",
        "-c",
        "100000000",
        "-d",
        "8",
    ]
    process = subprocess.Popen(
        [*command, "-s", "4096", serving.url()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        eventually(lambda: bool(sessions(serving)))
        before = sessions(serving)
        kill(serving)
        serving.restart()
        assert main(["restart", "--state", str(state_of(serving))]) == 0
        assert capsys.readouterr().out == "started again; 1 of 1 sessions went on\n"
        assert status(serving)["pid"] == serving.pid  # what a service manager watches
        assert process.poll() is None
        assert sessions(serving) == before
    finally:
        process.kill()
        process.communicate()


def test_new_logins_wait_meanwhile(target: TargetFactory) -> None:
    serving = target(portals=["127.0.0.1:0"])
    address = status(serving)["portal_groups"]["1"][0]
    host, _, port = address.rpartition(":")
    kill(serving)
    found: list[int] = []
    waiting = threading.Thread(target=lambda: found.append(log_in((host, int(port)), serving.target)[1].status))
    waiting.start()
    serving.restart()
    waiting.join(LIMIT)
    assert found == [0]
    assert status(serving)["portal_groups"]["1"] == [address]  # any free port: the same one again


@pytest.fixture
def doors(target: TargetFactory) -> tuple[Serving, dict[str, bytes]]:
    """A server that is reached by HTTP at two sockets besides the API's; what is asked of each, by its address."""
    metrics, console, plain = (f"127.0.0.1:{free_port()}" for _ in range(3))
    listen = f"metrics.listen = '{metrics}'\napi = {{ listen = '{console}', http = '{plain}' }}\n"
    serving = target(config=listen + _file("a"))
    challenge = state_of(serving) / "acme" / ".well-known" / "acme-challenge" / "token"
    challenge.parent.mkdir(parents=True)
    challenge.write_text("thumb")
    paths = {metrics: "/metrics", plain: "/.well-known/acme-challenge/token"}
    head = "GET %s HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    return serving, {address: (head % path).encode() for address, path in paths.items()}


def _connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=LIMIT)


def _answer(sock: socket.socket, request: bytes) -> bytes:
    """The status line."""
    with sock, sock.makefile("rb") as answer:
        sock.sendall(request)
        return answer.read().partition(b"\r\n")[0]


def test_who_asks_by_http_waits_while_there_is_no_control(doors: tuple[Serving, dict[str, bytes]]) -> None:
    serving, requests = doors
    kill(serving)
    waiting = [(_connect(address), request) for address, request in requests.items()]
    serving.restart()
    assert [_answer(sock, request) for sock, request in waiting] == [b"HTTP/1.1 200 OK"] * 2


def test_nobody_is_refused_while_control_starts_again(doors: tuple[Serving, dict[str, bytes]]) -> None:
    """Who asks at any moment of it, by a new connection each time, is answered by the one or by the other.

    Of who has connected and is slow to ask, the connection may be closed: one at each door at most, as clients have one each.
    """
    serving, requests = doors
    over = threading.Event()
    answers: dict[str, list[object]] = {address: [] for address in requests}

    def ask_on(address: str) -> None:
        while not over.is_set():
            try:
                sock = _connect(address)
            except OSError as error:
                answers[address].append(error)
                continue
            try:
                answers[address].append(_answer(sock, requests[address]))
            except OSError:
                answers[address].append(b"")

    threads = [threading.Thread(target=ask_on, args=[address]) for address in requests]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: all(answers.values()))
        assert main(["restart", "--state", str(state_of(serving))]) == 0
        before = {address: len(found) for address, found in answers.items()}
        eventually(lambda: all(len(answers[address]) > count + 1 for address, count in before.items()))
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert {found for each in answers.values() for found in each} <= {b"HTTP/1.1 200 OK", b""}
    assert all(found.count(b"") <= 1 for found in answers.values())


def test_a_worker_that_is_stopped_while_control_dies_goes_on(target: TargetFactory) -> None:
    """The kernel sends SIGHUP and SIGCONT to a process group that nobody is left for who could continue it."""
    serving = target()
    with connect(serving.url()) as lun:
        before = sessions(serving)
        (worker,) = serving.workers
        os.kill(worker, signal.SIGSTOP)
        threads = [path / "stat" for path in Path(f"/proc/{worker}/task").iterdir()]
        eventually(
            lambda: all(path.read_text().rpartition(")")[2].split()[0] == "T" for path in threads), "it is stopped"
        )
        serving.process.kill()
        serving.process.wait(LIMIT)
        lun.write(0, b"x" * 512)
        serving.restart()
        assert sessions(serving) == before


def test_a_real_stop_ends_workers(target: TargetFactory) -> None:
    serving = target()
    (worker,) = status(serving)["workers"]
    doors = list((state_of(serving) / "workers").iterdir())
    assert len(doors) == 1
    assert {path.stat().st_mode & 0o777 for path in doors} == {0o600}  # nobody else can come by it
    assert (state_of(serving) / "workers").stat().st_mode & 0o777 == 0o700
    serving.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(worker["pid"], 0)
    assert not list((state_of(serving) / "workers").iterdir())
    host, _, port = serving.portals[0].rpartition(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=LIMIT)


def test_nobody_comes(target: TargetFactory) -> None:
    serving = target(options=["--linger", "0.5"])
    assert has_ended(kill(serving))
    serving.restart()
    with load(serving):
        pass


def test_workers_end_with_control_where_that_is_wanted(target: TargetFactory) -> None:
    serving = target(options=["--linger", "0"])
    assert main(["restart", "--state", str(state_of(serving))]) == 2
    assert not (state_of(serving) / "workers").exists()
    assert has_ended(kill(serving))


def test_what_is_served_has_changed_meanwhile(target: TargetFactory) -> None:
    serving = target(config=_file("a"))
    file = serving.log.with_suffix(".toml")
    with connect(serving.url()) as lun:
        lun.write(0, b"x" * 512)
        before = sessions(serving)
        kill(serving)
        file.write_text(_file("a", "b"))
        serving.restart()
        assert sessions(serving) == before
        assert lun.read(0, 1) == b"x" * 512
        with connect(serving.url(target=OTHER)) as other:
            other.write(0, bytes(512))
        kill(serving)
        file.write_text(_file("b"))
        serving.restart()
        assert list(status(serving)["targets"]) == [OTHER]
        assert not sessions(serving)


def _file(*names: str) -> str:
    targets = {"a": "iqn.2024-01.test.blockyard:disk", "b": OTHER}
    return "".join(
        f"[volumes.{name}]\npath = '{name}.img'\nsize = '1M'\n[targets.'{targets[name]}']\nluns = {{0 = '{name}'}}\n"
        for name in names
    )


def test_what_was_listened_on_before_is_in_the_way_of_nothing(target: TargetFactory) -> None:
    """Metrics were to be had at any address, and are at one from now on: workers have kept the socket."""
    port = free_port()
    serving = target(config=f"metrics.listen = '0.0.0.0:{port}'\n{_file('a')}")
    with connect(serving.url()) as lun:
        lun.write(0, b"x" * 512)
        before = sessions(serving)
        kill(serving)
        serving.log.with_suffix(".toml").write_text(f"metrics.listen = '127.0.0.1:{port}'\n{_file('a')}")
        serving.restart()
        assert sessions(serving) == before
        request = b"GET /metrics HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
        assert _answer(_connect(f"127.0.0.1:{port}"), request) == b"HTTP/1.1 200 OK"
        assert lun.read(0, 1) == b"x" * 512


def test_a_start_that_fails_leaves_them_to_the_next(target: TargetFactory) -> None:
    serving = target(config=_file("a"))
    file = serving.log.with_suffix(".toml")
    with load(serving):
        before = sessions(serving)
        kill(serving)
        file.write_text(_file("a") + "[volumes.c]\npath = 'missing'\n")
        command = [sys.executable, "-m", "blockyard", "serve", "--state", str(state_of(serving)), "--config", str(file)]
        failed = subprocess.run([*command, "--portal", serving.portals[0]], capture_output=True, text=True, check=False)
        assert (failed.returncode, "missing does not exist" in failed.stderr) == (4, True)
        file.write_text(_file("a"))
        serving.restart()
        assert sessions(serving) == before


def test_one_of_another_version_is_not_taken_over(target: TargetFactory) -> None:
    serving = target()
    worker = kill(serving)
    program = (
        "import blockyard, sys; blockyard.__version__ = '0.0.other';"
        "from blockyard.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    command = serving.command
    serving.command = [command[0], "-c", program, *command[3:]]
    serving.restart()
    assert has_ended(worker)
    assert "is of version" in serving.tail()
    with load(serving):
        pass


def test_one_that_does_not_answer_is_killed(target: TargetFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = target()
    worker = kill(serving)
    os.kill(worker, signal.SIGSTOP)
    monkeypatch.setattr(adoption, "PATIENCE", 0.2)
    assert adoption.find_orphans(state_of(serving)) == []
    assert has_ended(worker)


def test_one_that_does_not_listen_yet_is_waited_for(tmp_path: Path) -> None:
    """Portals are held from the first message on that control has sent to it, and the next control needs them."""
    (tmp_path / DOORS).mkdir()
    greeting = {"type": "adopted", "version": __version__, "configuration": {}, "listening": 0}
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as door:
        door.bind(str(tmp_path / DOORS / "0123456789abcdef"))

        def begin() -> None:
            door.listen(1)
            control, _ = door.accept()
            with control:
                send_message(control, greeting)

        later = threading.Timer(0.5, begin)
        later.start()
        (orphan,) = adoption.find_orphans(tmp_path)
        later.join()
    orphan.control.close()
    assert orphan.pid == os.getpid()
    assert adoption.find_orphans(tmp_path) == []  # nobody has the door any more
    assert not any((tmp_path / DOORS).iterdir())
