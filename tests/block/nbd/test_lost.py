"""NBD servers that die, hang and come back."""

from __future__ import annotations

import contextlib
import errno
import os
import queue
import random
import signal
import threading
from pathlib import Path

import pytest

from blockyard.block import keeper
from blockyard.block.building import open_stack, tree
from blockyard.block.device import Device
from blockyard.block.layers import Opening
from tests.block.nbd.servers import SERVERS, serving
from tests.waiting import eventually

SECTOR = 512
Events = queue.Queue[tuple[str, str]]


@pytest.fixture
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("n")  # the path of a socket is short


@pytest.fixture
def events() -> Events:
    return queue.Queue()


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who wants something waits for as long as a busy machine may take to start a server."""
    monkeypatch.setattr(keeper, "PATIENCE", 120.0)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a server a request fails soon, though one that is there may take its time."""
    monkeypatch.setattr(keeper, "PATIENCE", 0.5)


def opening(events: Events) -> Opening:
    return Opening(notify=lambda severity, what, text: events.put((severity, what)))


def opened(text: str, events: Events) -> Device:
    """With a silence of a second, which a server may well need now and then on a busy machine."""
    devices: list[Device] = []

    def opens() -> bool:
        with contextlib.suppress(OSError):
            devices.append(open_stack(text, opening(events)))
        return bool(devices)

    eventually(opens)
    return devices[0]


def reads(device: Device) -> bytes | None:
    """The first sector, if it can be read."""
    data = bytearray(SECTOR)
    with contextlib.suppress(OSError):
        device.preadv([memoryview(data)], 0)
        return bytes(data)
    return None


def writes(device: Device, letter: bytes) -> bool:
    """Whether the first sector could be written."""
    with contextlib.suppress(OSError):
        device.pwritev([letter * SECTOR], 0)
        return True
    return False


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("name", ["nbdkit", "qemu-nbd"])
def test_writes_go_on_while_the_server_is_killed_again_and_again(name: str, directory: Path, events: Events) -> None:
    with serving(SERVERS[name], directory) as server:
        device = open_stack(f"nbd({server.uri}, timeout=120)", opening(events))
        stop = threading.Event()
        models = [bytearray(1 << 20) for _ in range(4)]
        failures: list[Exception] = []

        def work(number: int) -> None:
            chance = random.Random(number)
            base, model = number << 20, models[number]
            try:
                while not stop.is_set():
                    length = chance.choice((1, 8, 100)) * SECTOR
                    at = chance.randrange(((1 << 20) - length) // SECTOR) * SECTOR
                    data = chance.randbytes(length)
                    device.pwritev([data], base + at)
                    model[at : at + length] = data
                    if not chance.randrange(50):
                        device.flush()
            except OSError as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            server.kill()
            assert events.get(timeout=120)[1] == "server-lost"
            server.start()
            assert events.get(timeout=120)[1] == "server-back"
        stop.set()
        for thread in threads:
            thread.join()
        assert not failures
        found = bytearray(4 << 20)
        device.preadv([memoryview(found)], 0)
        assert found == b"".join(models)
        device.close()


@pytest.mark.usefixtures("patient")
def test_what_a_server_forgets_is_written_once_more(directory: Path, events: Events) -> None:
    """A copy-on-write layer above the file keeps what is written in memory, and dies with it."""
    with serving(("nbdkit", "-f", "-U", "$", "--filter=cow", "file", "%", "cow-block-size=4096"), directory) as server:
        device = open_stack(f"nbd({server.uri}, timeout=120)", opening(events))
        data = random.Random(1).randbytes(1 << 20)
        device.pwritev([data], 0)
        device.write_zeroes(4096, 8192)
        device.pwritev([b"new" * 1024], 3 * 4096)
        expected = bytearray(data)
        expected[4096 : 3 * 4096] = bytes(8192)
        expected[3 * 4096 : 3 * 4096 + 3072] = b"new" * 1024
        server.kill()
        assert events.get(timeout=120) == ("error", "server-lost")
        server.start()
        assert events.get(timeout=120) == ("info", "server-back")
        found = bytearray(1 << 20)
        device.preadv([memoryview(found)], 0)
        assert found == expected
        device.close()


@pytest.mark.usefixtures("impatient")
def test_without_a_server_requests_fail_soon_and_then_at_once(directory: Path, events: Events) -> None:
    with serving(SERVERS["nbdkit"], directory) as server:
        device = open_stack(f"nbd({server.uri}, timeout=120)", opening(events))
        device.pwritev([b"a" * SECTOR], 0)
        server.kill()
        buffer = memoryview(bytearray(SECTOR))
        for _ in range(2):
            with pytest.raises(OSError, match="cannot be reached") as refused:
                device.preadv([buffer], 0)
            assert refused.value.errno == errno.ENOTCONN
        assert tree(device)["health"] == "failed"
        assert events.get(timeout=120) == ("error", "server-lost")
        server.start()
        assert events.get(timeout=120) == ("info", "server-back")
        device.preadv([buffer], 0)
        assert buffer == b"a" * SECTOR
        assert tree(device)["health"] == "ok"
        device.close()
        assert events.empty()


def test_a_server_that_hangs_is_given_up_and_taken_again(directory: Path, events: Events) -> None:
    with serving(SERVERS["nbdkit"], directory) as server:
        device = opened(f"nbd({server.uri}, timeout=1)", events)
        server.process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, server.process.pid, os.WSTOPPED)
        with pytest.raises(OSError, match="cannot be reached") as refused:
            device.pwritev([b"b" * SECTOR], 0)
        assert refused.value.errno == errno.ENOTCONN
        assert events.get(timeout=120) == ("error", "server-lost")
        server.process.send_signal(signal.SIGCONT)
        assert events.get(timeout=120) == ("info", "server-back")
        eventually(lambda: writes(device, b"c"))
        eventually(lambda: reads(device) == b"c" * SECTOR)
        with contextlib.suppress(OSError):
            device.close()


@pytest.mark.usefixtures("impatient")
def test_a_disk_that_has_become_smaller_is_not_taken(directory: Path, events: Events) -> None:
    with serving(SERVERS["nbdkit"], directory) as server:
        device = open_stack(f"nbd({server.uri}, timeout=120)", opening(events))
        server.kill()
        with server.image.open("r+b") as file:
            file.truncate(1 << 20)
        server.start()
        eventually(lambda: "it had 67108864" in str(device.report()["text"]))
        with pytest.raises(OSError, match="it had 67108864"):
            device.preadv([memoryview(bytearray(SECTOR))], 0)
        device.close()


@pytest.mark.usefixtures("impatient")
def test_closing_does_not_wait_for_a_server_that_is_gone(directory: Path) -> None:
    with serving(SERVERS["nbdkit"], directory) as server:
        device = open_stack(f"nbd({server.uri}, timeout=120)")
        server.kill()
        keepers = [thread for thread in threading.enumerate() if thread.name.startswith("to ")]
        with pytest.raises(OSError, match="cannot be reached"):
            device.flush()
        device.close()
        assert not keepers[-1].is_alive()
