"""What becomes of an image when its cluster stands still, and when another server takes it."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.block.layers import Opening
from blockyard.block.rbd.device import RbdDevice
from tests.block.rbd.test_device import content, exported, opened
from tests.ceph import Ceph
from tests.waiting import eventually

BLOCK = 512


@pytest.fixture
def still(ceph: Ceph) -> Iterator[Ceph]:
    """A cluster that goes on after the test, if the test has stopped it."""
    yield ceph
    ceph.continue_osd()


class Events:
    """What an image has told."""

    def __init__(self, directory: Path | None = None) -> None:
        self.what: list[str] = []
        self.opening = Opening(notify=self._note, directory=directory)

    def _note(self, severity: str, what: str, text: str) -> None:
        self.what.append(what)


def write(device: RbdDevice, letter: bytes, offset: int = 0) -> None:
    device.pwritev([letter * BLOCK], offset)


def failure(device: RbdDevice) -> int | None:
    """The errno that a write fails with."""
    try:
        write(device, b"f", 8 * BLOCK)
    except OSError as error:
        return error.errno
    return None


def hastily(ceph: Ceph, image: str, opening: Opening | None = None) -> RbdDevice:
    """Open an image whose cluster has a second for each answer; on a busy machine it may need more than one attempt."""
    found: list[RbdDevice] = []

    def opens() -> bool:
        try:
            found.append(opened(ceph, image, ", timeout=1", opening))
        except OSError as error:
            if error.errno != errno.ETIMEDOUT:
                raise
        return bool(found)

    eventually(opens)
    return found[0]


def seen(device: RbdDevice, length: int) -> bytes | None:
    """Its first bytes, if the cluster is quick enough with them."""
    with contextlib.suppress(OSError):
        return content(device, 0, length)
    return None


def test_a_cluster_that_stands_still_is_told_and_goes_on(still: Ceph) -> None:
    events = Events()
    device = hastily(still, still.image("still", "4M"), events.opening)
    eventually(lambda: failure(device) is None)
    still.stop_osd()
    assert failure(device) == errno.ENOTCONN
    with pytest.raises(OSError, match="does not answer") as caught:
        content(device)
    assert caught.value.errno == errno.ENOTCONN
    eventually(lambda: "rbd-away" in events.what)
    eventually(lambda: device.report()["health"] == "failed")
    still.continue_osd()
    eventually(lambda: failure(device) is None)
    eventually(lambda: device.report()["health"] == "ok")
    # a cluster that is slow to wake may be silent once more: what is told alternates all the same
    eventually(lambda: events.what == ["rbd-away", "rbd-ready"] * (len(events.what) // 2))
    eventually(lambda: seen(device, 9 * BLOCK) == bytes(8 * BLOCK) + b"f" * BLOCK)
    device.close()


def test_accesses_that_overlap_end_too(still: Ceph) -> None:
    """As many as one likes, without a thread for each; those on a dead cluster when their time is up."""
    device = hastily(still, still.image("many", "4M"))
    outcomes: list[OSError | None] = []

    def reap() -> bool:
        device.overlap.reap()
        return len(outcomes) == 32

    def all_well() -> bool:
        outcomes.clear()
        for number in range(32):
            device.overlap.write(bytes([number]) * BLOCK, number * BLOCK, outcomes.append)
        assert len(device.overlap) == 32
        eventually(reap)
        return outcomes == [None] * 32

    eventually(all_well)
    expected = b"".join(bytes([number]) * BLOCK for number in range(32))
    eventually(lambda: seen(device, 32 * BLOCK) == expected)
    outcomes.clear()
    still.stop_osd()
    for number in range(32):
        device.overlap.write(b"x" * BLOCK, number * BLOCK, outcomes.append)
    eventually(reap)
    assert {error.errno for error in outcomes if error} == {errno.ENOTCONN}
    assert None not in outcomes
    still.continue_osd()
    device.close()


def test_beginning_an_access_waits_for_nothing(still: Ceph) -> None:
    """Of more accesses than librados has under way by default (1024) none holds up the loop, which begins them."""
    device = opened(still, still.image("begun", "4M"), ", timeout=120")
    device.pwritev([b"b" * BLOCK], 0)  # there is an object, so that the OSD is asked
    outcomes: list[bytearray | OSError] = []
    still.stop_osd()
    for _ in range(1200):
        device.overlap.read(0, BLOCK, outcomes.append)
    still.continue_osd()  # comes in time for all of them, only if none has waited

    def reap() -> bool:
        device.overlap.reap()
        return len(outcomes) == 1200

    eventually(reap)
    assert outcomes == [bytearray(b"b" * BLOCK)] * 1200
    device.close()


def test_closing_does_not_wait_for_a_dead_cluster(still: Ceph) -> None:
    device = hastily(still, still.image("closed", "4M"))
    still.stop_osd()
    assert failure(device) == errno.ENOTCONN
    closing = threading.Thread(target=device.close)
    closing.start()
    closing.join(120)
    assert not closing.is_alive()


def test_an_image_whose_cluster_is_away_is_opened_if_its_size_is_known(still: Ceph, tmp_path: Path) -> None:
    image, events = still.image("known", "4M"), Events(tmp_path)
    hastily(still, image, events.opening).close()
    still.stop_osd()
    device = opened(still, image, ", timeout=1", events.opening)
    assert device.size == 4 << 20
    assert failure(device) == errno.ENOTCONN
    with pytest.raises(OSError, match="nobody here knows how large") as caught:
        opened(still, image, ", timeout=1")
    assert caught.value.errno == errno.ETIMEDOUT
    still.continue_osd()
    eventually(lambda: failure(device) is None)
    device.close()


def test_the_second_waits_until_the_first_lets_go(ceph: Ceph) -> None:
    image, events = ceph.image("waiting", "4M"), Events()
    first = opened(ceph, image)
    second = opened(ceph, image, "", events.opening)
    assert failure(second) == errno.ESHUTDOWN
    assert events.what == ["rbd-waiting"]
    assert failure(first) is None
    first.close()
    eventually(lambda: failure(second) is None)
    second.close()


def test_who_takes_an_image_fences_the_other_off(ceph: Ceph, tmp_path: Path) -> None:
    image, events = ceph.image("taken-over", "4M"), Events()
    first, beside = opened(ceph, image, "", events.opening), opened(ceph, ceph.image("beside", "4M"))
    write(first, b"1")
    second = opened(ceph, image)
    take = second.actions()["take"]
    assert "served here" in take.run(take.options(), lambda done, total: None)
    write(second, b"2")
    assert failure(first) == errno.ESHUTDOWN
    with pytest.raises(OSError, match="taken the image over"):
        content(first)
    eventually(lambda: "rbd-fenced" in events.what)
    assert first.report()["lock"] == "other"
    write(beside, b"b")  # another image of the same server is not fenced with it
    second.close()
    assert failure(first) == errno.ESHUTDOWN  # it does not come back by itself
    assert exported(ceph, image, tmp_path)[: 9 * BLOCK] == b"2" * BLOCK + bytes(8 * BLOCK)
    with pytest.raises(OSError, match="A layer above"):  # for all that it knows
        first.actions()["take"].run(None, lambda done, total: None)
    replaced: list[bool] = []
    first.on_replaced = lambda: replaced.append(True)
    first.actions()["take"].run(None, lambda done, total: None)
    assert failure(first) is None
    assert replaced == [True]
    for device in (first, beside):
        device.close()


def test_writes_under_way_while_it_is_taken_never_come_after(ceph: Ceph) -> None:
    """What the first server has sent before it was fenced off is there before the second writes, or never."""
    image = ceph.image("race", "4M")
    first = opened(ceph, image)
    second = opened(ceph, image)
    stop, failed = threading.Event(), threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            try:
                write(first, b"1")
            except OSError:
                failed.set()

    writers = [threading.Thread(target=keep_writing) for _ in range(4)]
    for writer in writers:
        writer.start()
    second.actions()["take"].run(None, lambda done, total: None)
    write(second, b"2")
    assert failed.wait(120)
    for _ in range(50):
        assert content(second, 0, BLOCK) == b"2" * BLOCK
    stop.set()
    for writer in writers:
        writer.join()
    second.close()
    first.close()


_OWNER = """
import sys, time
from blockyard.block.building import open_stack
device = open_stack(sys.argv[1])
device.pwritev([b"o" * 512], 0)
print("open", flush=True)
time.sleep(600)
"""


def test_the_lock_of_a_server_that_died_passes_on(ceph: Ceph) -> None:
    image = ceph.image("orphan", "4M")
    command = [sys.executable, "-c", _OWNER, f"rbd({image}, conf={ceph.conf})"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "open\n"
        device = opened(ceph, image)
        assert failure(device) == errno.ESHUTDOWN
        os.kill(owner.pid, signal.SIGKILL)
    eventually(lambda: failure(device) is None)
    assert content(device, 0, BLOCK) == b"o" * BLOCK
    device.close()


def test_two_servers_may_share_an_image(ceph: Ceph) -> None:
    """The lock goes to and fro between them, and what is compared and written is one step for both."""
    image = ceph.image("shared", "4M", "--image-feature", "layering")
    first, second = opened(ceph, image, ", lock=shared"), opened(ceph, image, ", lock=shared")
    write(first, bytes(1))
    won: list[int] = []

    def count(device: RbdDevice, times: int = 25) -> None:
        while times:
            before = content(device, 0, BLOCK)
            after = bytes([before[0] + 1]) * BLOCK
            if device.compare_and_write(before, after, 0) is None:
                times -= 1
                won.append(after[0])

    counters = [threading.Thread(target=count, args=(device,)) for device in (first, second, first)]
    for counter in counters:
        counter.start()
    for counter in counters:
        counter.join()
    assert sorted(won) == list(range(1, 76)), "each number was won by one"
    first.close()
    second.close()
