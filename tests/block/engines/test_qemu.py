"""Images of QEMU's formats: served by a qemu-nbd of our own, which dies, hangs and comes back, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import queue
import random
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.block import formats
from blockyard.block.building import open_stack
from blockyard.block.device import Device
from blockyard.block.engines import engine, qemu
from blockyard.block.engines.formats import FORMATS, WRITABLE
from blockyard.block.engines.qemu import QemuImage
from blockyard.block.layers import Opening
from tests.conftest import need, run
from tests.serving import children
from tests.waiting import eventually

MIB = 1 << 20
SIZE = 24 * MIB


def qemu_img(*words: str | Path) -> str:
    return run([need("qemu-img", "qemu-utils"), *words]).stdout


def scattered(seed: str) -> tuple[bytearray, list[tuple[int, bytes]]]:
    """Writes all over a disk, and what it is then."""
    rolls = random.Random(seed)
    content, writes = bytearray(SIZE), []
    for _ in range(40):
        length = rolls.choice((512, 4096, 65536, 256 << 10))
        offset = rolls.randrange((SIZE - length) // 512) * 512
        writes.append((offset, rolls.randbytes(length)))
        content[offset : offset + length] = writes[-1][1]
    return content, writes


def read(image: Device) -> bytes:
    data = bytearray(image.size)
    image.preadv([memoryview(data)], 0)
    return bytes(data)


def engines() -> list[int]:
    """The processes of ours that serve an image, or are about to."""
    found = []
    for pid in children(os.getpid()):
        with contextlib.suppress(OSError):
            if b"qemu-nbd" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def engine_of(device: Device) -> int:
    """The process that serves the only device that is open."""
    (pid,) = engines()
    return pid


def ended(pid: int) -> None:
    """Wait until a process that is not ours has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], (), (), 120)[0], "it goes on"
    finally:
        os.close(pidfd)


@pytest.mark.parametrize("format", WRITABLE)
def test_both_ways_with_qemu(format: str, tmp_path: Path) -> None:
    raw, ours, theirs = tmp_path / "raw", tmp_path / "ours", tmp_path / "theirs"
    content, writes = scattered(format)
    raw.write_bytes(content)
    formats.create_image(ours, format, SIZE)
    device = formats.open_image(ours)
    assert isinstance(device, QemuImage)
    for offset, data in writes:
        device.pwritev([data], offset)
    device.close()
    assert "identical" in qemu_img("compare", "-f", "raw", "-F", format, raw, ours)
    assert formats.check(str(ours)).notes == []
    qemu_img("convert", "-f", "raw", "-O", format, raw, theirs)
    device = formats.open_image(theirs, format, read_only=True)
    assert read(device) == content
    for run_ in device.runs(0, SIZE):
        assert run_.mapped or not any(content[run_.offset : run_.offset + run_.length])
    device.close()


@pytest.mark.parametrize("format", WRITABLE)
def test_what_was_acknowledged_survives_the_engine(format: str, tmp_path: Path) -> None:
    """It is killed after each few writes, none of which is ever flushed."""
    path = tmp_path / "image"
    formats.create_image(path, format, SIZE)
    events: queue.Queue[str] = queue.Queue()
    device = formats.open_image(path, format, notify=lambda severity, what, text: events.put(what))
    content, writes = scattered(format)
    for number, (offset, data) in enumerate(writes):
        device.pwritev([data], offset)
        if number % 15 == 14:
            os.kill(engine_of(device), signal.SIGKILL)
            while events.get(timeout=120) != "server-back":
                pass
    assert read(device) == content
    device.close()
    assert engines() == []
    device = formats.open_image(path, format, read_only=True)
    assert read(device) == content
    device.close()


_WRITER = """
import sys
from blockyard.block.formats import open_image
device = open_image(sys.argv[1], "qcow2")
device.pwritev([b"acknowledged" * 512], 6144)
print("done", flush=True)
sys.stdin.read()
"""


def test_neither_data_nor_an_engine_is_left_behind_by_who_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "image"
    formats.create_image(path, "qcow2", SIZE)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    command = [sys.executable, "-c", _WRITER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"done\n"
        (server,) = children(process.pid)
        process.kill()
    ended(server)
    assert not list(temporary.iterdir())
    device = formats.open_image(path, "qcow2")
    data = bytearray(6144)
    device.preadv([memoryview(data)], 6144)
    assert data == b"acknowledged" * 512
    device.close()


def written(device: Device, data: bytes, offset: int) -> bool:
    """Whether it could be written: an engine that has a second for each answer may be given up for no reason."""
    with contextlib.suppress(OSError):
        device.pwritev([data], offset)
        return True
    return False


def first_of(device: Device) -> bytes | None:
    """Its first three sectors, if they can be read."""
    data = bytearray(1536)
    with contextlib.suppress(OSError):
        device.preadv([memoryview(data)], 0)
        return bytes(data)
    return None


def test_an_engine_that_hangs_is_ended_and_another_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_GRACE", 0.2)
    monkeypatch.setattr(qemu, "SILENCE", 1.0)
    path = tmp_path / "image"
    formats.create_image(path, "qcow2", SIZE)
    device = formats.open_image(path, "qcow2")
    eventually(lambda: written(device, b"x" * 512, 512))
    hanging = engine_of(device)
    os.kill(hanging, signal.SIGSTOP)
    eventually(lambda: written(device, b"y" * 512, 1024))
    assert hanging not in engines()
    eventually(lambda: first_of(device) == bytes(512) + b"x" * 512 + b"y" * 512)
    with contextlib.suppress(OSError):
        device.close()
    assert engines() == []


def test_a_guest_that_writes_an_image_to_its_raw_disk_gets_what_it_wrote(tmp_path: Path) -> None:
    secret, disk, image = tmp_path / "secret", tmp_path / "disk", tmp_path / "image"
    secret.write_bytes(b"secret" * 100 + bytes(424))
    qemu_img("create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", image)
    disk.write_bytes(image.read_bytes())
    device = formats.open_image(disk, "raw")
    assert read(device)[:4] == b"QFI\xfb"
    device.close()
    for format in ("qcow2", "auto"):
        with pytest.raises(OSError, match=r"it uses another file, .*secret: say in which directory"):
            formats.open_image(disk, format)


def test_files_beside_an_image_have_to_be_where_they_are_allowed(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    base, child = there / "base.qcow2", here / "child.qcow2"
    formats.create_image(base, "qcow2", SIZE)
    device = formats.open_image(base)
    device.pwritev([b"b" * 512], 0)
    device.close()
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", child)
    for allowed in ("", str(here), str(tmp_path / "the")):
        with pytest.raises(OSError, match=r"it uses "):
            formats.open_image(child, "qcow2", backing=allowed)
    device = formats.open_image(child, "qcow2", backing=str(there))
    assert read(device)[:512] == b"b" * 512
    device.close()
    (here / "link").symlink_to("/etc/hostname")
    for target, text in ((here / "link", "is not in"), (here / ".." / "there" / "base.qcow2", "is not in"),
                         ("nbd://127.0.0.1:1/x", "is not in"), (here / "none", "not a file")):  # fmt: skip
        qemu_img("rebase", "-u", "-f", "qcow2", "-b", target, "-F", "raw", child)
        with pytest.raises(OSError, match=text):
            formats.open_image(child, "qcow2", backing=str(here))
    qemu_img("rebase", "-u", "-f", "qcow2", "-b", child, "-F", "qcow2", child)
    with pytest.raises(OSError, match="stands on itself"):
        formats.open_image(child, "qcow2", backing=str(here))
    data_file = here / "data.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", "-o", f"data_file={there / 'data'}", data_file, "1M")
    with pytest.raises(OSError, match="it uses another file"):
        formats.open_image(data_file, "qcow2")
    flat = here / "flat.vmdk"
    qemu_img("create", "-q", "-f", "vmdk", "-o", "subformat=monolithicFlat", flat, "1M")
    flat.write_text(flat.read_text().replace("flat-flat.vmdk", "/etc/hostname"))
    with pytest.raises(OSError, match=r"hostname"):
        formats.open_image(flat, "vmdk", backing=str(here))


def test_formats_are_told_by_what_they_begin_with(tmp_path: Path) -> None:
    for format in WRITABLE:
        path = tmp_path / format
        formats.create_image(path, format, MIB)
        assert formats.looks_like(path) == format
        assert formats.describe(path).format == format
        path.unlink()
    (tmp_path / "flat.vmdk").write_bytes(b"# Disk DescriptorFile\n" + bytes(1024))
    assert formats.looks_like(tmp_path / "flat.vmdk") == "vmdk"


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_no_image_is_refused_in_words(format: str, tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(random.Random(format).randbytes(4096))
    with pytest.raises(OSError, match=r"."):
        formats.open_image(path, format)
    assert engines() == []


@pytest.mark.parametrize("format", WRITABLE)
def test_damaged_images_are_refused_or_read(format: str, tmp_path: Path) -> None:
    """Whatever QEMU makes of them: errors are errors of reading, and the engine does not outlive them."""
    path = tmp_path / "image"
    rolls = random.Random(format)
    formats.create_image(path, format, MIB)
    whole = path.read_bytes()
    for _ in range(4):
        data = bytearray(whole)
        for _ in range(8):
            data[rolls.randrange(4, 112)] = rolls.randrange(256)
        path.write_bytes(data)
        try:
            device = formats.open_image(path, format, read_only=True)
        except OSError:
            continue
        try:
            part = bytearray(min(device.size, MIB))
            device.preadv([memoryview(part)], 0)
        except OSError:
            pass
        finally:
            device.close()
    assert engines() == []


def test_stacks_of_what_others_serve(tmp_path: Path) -> None:
    formats.create_image(tmp_path / "a,b.qcow2", "qcow2", MIB)
    device = open_stack(f'qemu("{tmp_path}/a,b.qcow2", format=qcow2)')
    device.pwritev([b"x" * 512], 512)
    device.close()
    said: list[str] = []
    opening = Opening(notify=lambda severity, what, text: said.append(text))
    device = open_stack('nbdkit(memory, parameters=[4M, "rdelay=0"], filters=[delay])', opening)
    assert device.size == 4 * MIB
    device.pwritev([b"y" * 512], 512)
    assert read(device)[512:1024] == b"y" * 512
    device.close()
    with pytest.raises(OSError, match="No such file"):
        open_stack("nbdkit(file, parameters=[/nowhere])", opening)
    with pytest.raises(ValueError, match="no name of a plugin"):
        open_stack('nbdkit("--run", parameters=["id"])', opening)


def test_what_an_engine_says_is_told(tmp_path: Path) -> None:
    said: queue.Queue[tuple[str, str, str]] = queue.Queue()
    script = tmp_path / "plugin.sh"
    script.write_text(
        'case "$1" in\n get_size) echo 1M;;\n pread) echo EIO it is broken >&2; exit 1;;\n *) exit 2;;\nesac\n'
    )
    script.chmod(0o755)
    device = open_stack(f"nbdkit(sh, parameters=[{script}])", Opening(notify=lambda *event: said.put(event)))
    with pytest.raises(OSError, match=r"broken|error"):
        read(device)
    severity, what, text = said.get(timeout=120)
    assert (severity, what) == ("warning", "server-says")
    assert "it is broken" in text
    device.close()
