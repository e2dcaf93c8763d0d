"""Images of RBD that are served: by the wire, the command line, and Ceph's and QEMU's own tools."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockyard.cli.main import main
from blockyard.initiator import Lun, ScsiError, connect
from blockyard.scsi.sense import SenseKey
from tests.ceph import Ceph
from tests.conftest import TargetFactory, need, run
from tests.interop.ready import BECOMING_READY, when_ready
from tests.serving import IQN, Serving
from tests.waiting import eventually

MIB = 1 << 20
INTERVENTION = (SenseKey.NOT_READY, 0x04, 0x03)


@pytest.fixture
def still(ceph: Ceph) -> Iterator[Ceph]:
    """A cluster that goes on after the test, if the test has stopped it."""
    yield ceph
    ceph.continue_osd()


def configuration(ceph: Ceph, **volumes: str) -> str:
    """Volumes by their names: what stands in the parentheses of rbd(…) besides the way to the cluster."""
    declared = "".join(
        f'[volumes.{name}]\nstack = "rbd({inside}, conf={ceph.conf})"\n' for name, inside in volumes.items()
    )
    luns = ", ".join(f"{lun} = '{name}'" for lun, name in enumerate(volumes))
    return f"{declared}[targets.'{IQN}']\nluns = {{{luns}}}\n"


def qemu_img(*words: str | Path) -> str:
    return run([need("qemu-img", "qemu-utils qemu-block-extra"), *words]).stdout


def sense(lun: Lun, *, write: bool = True) -> tuple[int, int, int] | None:
    """What a command ends with; None when it ends well."""
    try:
        if write:
            lun.write(8, b"w" * 512)
        else:
            lun.read(0, 1)
    except ScsiError as error:
        found = error.sense
        return (found.key, found.asc, found.ascq) if found is not None else (-1, -1, -1)
    return None


def command(state: Path, *words: str) -> Callable[[pytest.CaptureFixture[str]], str]:
    def go(capsys: pytest.CaptureFixture[str]) -> str:
        capsys.readouterr()
        status = main([*words, "--state", str(state)])
        printed = capsys.readouterr()
        assert not status, printed.out + printed.err
        return printed.out

    return go


def test_what_comes_by_iscsi_is_what_rbd_exports(
    ceph: Ceph, target: TargetFactory, random_file: Callable[[str, int], Path], tmp_path: Path
) -> None:
    source = random_file("source", 24 * MIB)
    with source.open("r+b") as file:  # some of it zeros, so that WRITE SAME and UNMAP are used too
        file.seek(4 * MIB)
        file.write(bytes(8 * MIB))
    image = ceph.image("converted", "24M")
    serving = target(config=configuration(ceph, disk=image))
    qemu_img("convert", "-n", "-f", "raw", "-O", "raw", source, serving.url())
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "raw", source, serving.url())
    ceph.rbd("export", "--no-progress", image, tmp_path / "exported")
    assert (tmp_path / "exported").read_bytes() == source.read_bytes()
    ceph.rbd("snap", "create", "--no-progress", f"{image}@then")
    with connect(serving.url()) as lun:
        lun.write(0, b"after" + bytes(507))
        lun.execute(bytes([0x89, *bytes(12), 1, 0, 0]), b"after" + bytes(507) + b"again" + bytes(507))
        assert lun.read(0, 1) == b"again" + bytes(507)
    serving.stop()
    serving = target(config=configuration(ceph, disk=f"{image}@then"))
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", "raw", source, serving.url())
    with connect(serving.url()) as lun:
        with pytest.raises(ScsiError) as caught:
            lun.write(0, bytes(512))
        assert caught.value.sense is not None
        assert caught.value.sense.key == SenseKey.DATA_PROTECT


def test_an_image_that_grows_is_told_to_initiators(ceph: Ceph, target: TargetFactory) -> None:
    image = ceph.image("growing", "8M")
    serving = target(config=configuration(ceph, disk=image))
    with connect(serving.url()) as lun:
        assert lun.capacity().size == 8 * MIB
        ceph.rbd("resize", "--no-progress", image, "--size", "16M")

        def told() -> bool:
            response = lun.command(bytes(6))
            return response.sense[2:3] == b"\x06" and response.sense[12:14] == b"\x2a\x09"

        eventually(told)
        data = lun.execute(b"\x25" + bytes(9), read_length=8)
        assert int.from_bytes(data[:4], "big") + 1 == 16 * MIB // 512


def test_a_cluster_that_stands_still_gives_not_ready_and_holds_up_nobody_else(
    still: Ceph, target: TargetFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands end, other LUNs go on, the server is reloaded and stopped meanwhile; with the cluster the disk is back."""
    image = still.image("standing", "8M")
    for name in ("other", "more"):
        (tmp_path / f"{name}.img").write_bytes(bytes(MIB))
    text = configuration(still, disk=f"{image}, timeout=2").replace("0 = 'disk'", "0 = 'disk', 1 = 'other'")
    text = f"[volumes.other]\npath = 'other.img'\n{text}"
    serving = target(config=text)
    with connect(serving.url(), timeout=60) as lun, connect(serving.url(1)) as other:
        when_ready(lambda: lun.write(0, b"before" + bytes(506)))
        still.stop_osd()
        exchanges = [
            lun.session.submit(0, bytes([0x2A, 0, 0, 0, 0, at, 0, 0, 1, 0]), b"x" * 512, 0) for at in range(40)
        ]
        assert sense(other) is None
        for exchange in exchanges:  # more than there are threads
            response = lun.session.wait(exchange)
            assert (response.sense[2] & 15, response.sense[12], response.sense[13]) == BECOMING_READY
        assert sense(lun, write=False) == BECOMING_READY
        shown = json.loads(command(tmp_path / "state-0", "layer", "show", "disk", "--json")(capsys))
        assert "failed" in json.dumps(shown)
        more = text.replace("1 = 'other'", "1 = 'other', 2 = 'more'")
        (tmp_path / "serve-0.toml").write_text(f"[volumes.more]\npath = 'more.img'\n{more}")
        command(tmp_path / "state-0", "reload")(capsys)
        with connect(serving.url(2)) as new:
            assert sense(new) is None
        still.continue_osd()
        assert when_ready(lambda: lun.read(0, 1)).startswith(b"x")
        when_ready(lambda: lun.write(8, b"w" * 512))
        still.stop_osd()
    serving.stop()


def test_a_server_that_starts_while_the_cluster_is_away_serves_it_later(still: Ceph, target: TargetFactory) -> None:
    image = still.image("later", "8M")
    serving = target(config=configuration(still, disk=f"{image}, timeout=1"))
    serving.stop()
    still.stop_osd()
    serving.restart()
    with connect(serving.url(), timeout=60) as lun:
        assert lun.capacity().size == 8 * MIB
        assert sense(lun) == BECOMING_READY
        still.continue_osd()
        when_ready(lambda: lun.write(8, b"w" * 512))


def test_a_second_server_takes_an_image_over(
    ceph: Ceph, target: TargetFactory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image, beside = ceph.image("contended", "8M"), ceph.image("uncontended", "8M")
    first = target(config=configuration(ceph, disk=image, beside=beside))
    second = target(config=configuration(ceph, disk=image))
    with connect(first.url()) as one, connect(second.url()) as two, connect(first.url(1)) as other:
        assert sense(one) is None
        assert sense(two) == INTERVENTION
        stop, fenced = threading.Event(), threading.Event()

        def keep_writing() -> None:
            with connect(first.url()) as writer:
                while not stop.is_set():
                    if sense(writer) == INTERVENTION:
                        fenced.set()

        writing = threading.Thread(target=keep_writing)
        writing.start()
        assert "served here" in command(tmp_path / "state-1", "layer", "do", "disk", "take")(capsys)
        two.write(8, b"2" * 512)
        assert fenced.wait(120)
        stop.set()
        writing.join()
        assert sense(one) == INTERVENTION
        assert sense(one, write=False) == INTERVENTION
        assert sense(other) is None, "what else the first server has is not fenced off with it"
        assert two.read(8, 1) == b"2" * 512
        command(tmp_path / "state-0", "layer", "do", "disk", "take")(capsys)
        told = one.command(bytes(6)).sense
        assert (told[2] & 15, told[12]) == (SenseKey.UNIT_ATTENTION, 0x28), "what it has read may be other by now"
        assert one.read(8, 1) == b"2" * 512
        command(tmp_path / "state-1", "layer", "do", "disk", "take")(capsys)
        eventually(lambda: sense(one) == INTERVENTION)
        first.restart()
    with connect(first.url()) as one, connect(second.url()) as two:
        assert sense(one) == INTERVENTION, "it does not take it back by being started anew"
        assert two.read(8, 1) == b"2" * 512
    events = command(tmp_path / "state-0", "events", "--json")(capsys)
    assert "rbd-fenced" in {json.loads(line)["what"] for line in events.splitlines()}
    _waits_no_more(first, second)


def _waits_no_more(first: Serving, second: Serving) -> None:
    """When the second is stopped, the first, which has been waiting, has the image."""
    second.stop()
    with connect(first.url()) as one:
        eventually(lambda: sense(one) is None)
        assert one.read(8, 1) == b"w" * 512
