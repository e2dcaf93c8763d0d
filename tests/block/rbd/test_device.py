"""Images of RBD as devices, on a cluster; what they hold is compared with what Ceph's own tools say."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest

from blockyard.block.building import open_stack
from blockyard.block.device import Device, Run
from blockyard.block.layers import Opening
from blockyard.block.rbd.connection import Spec
from blockyard.block.rbd.device import RbdDevice
from blockyard.block.stack import StackError
from tests.ceph import Ceph
from tests.waiting import eventually

MIB = 1 << 20


def opened(ceph: Ceph, image: str, options: str = "", opening: Opening | None = None) -> RbdDevice:
    device = open_stack(f"rbd({image}, conf={ceph.conf}{options})", opening)
    assert isinstance(device, RbdDevice)
    return device


def content(device: Device, offset: int = 0, length: int | None = None) -> bytes:
    data = bytearray(device.size - offset if length is None else length)
    device.preadv([memoryview(data)], offset)
    return bytes(data)


def exported(ceph: Ceph, image: str, directory: Path) -> bytes:
    """What `rbd export` has of it."""
    path = directory / "exported"
    path.unlink(missing_ok=True)
    ceph.rbd("export", "--no-progress", image, path)
    return path.read_bytes()


def test_what_is_written_is_what_rbd_exports(ceph: Ceph, tmp_path: Path) -> None:
    image = ceph.image("written", "12M")
    device = opened(ceph, image)
    chance, model = random.Random(5), bytearray(12 * MIB)
    for _ in range(200):
        length = chance.choice((512, 4096, 70000 // 512 * 512, 2 * MIB))
        offset = chance.randrange((len(model) - length) // 512) * 512
        what = chance.choice(("write", "zero", "discard", "same", "compare"))
        data = chance.randbytes(length)
        if what == "write":
            device.pwritev([data[:512], memoryview(data)[512:]], offset)
            model[offset : offset + length] = data
        elif what == "same":
            device.write_same(data[:512], offset, length)
            model[offset : offset + length] = data[:512] * (length // 512)
        elif what == "compare":
            assert device.compare_and_write(model[offset : offset + length], data, offset) is None
            model[offset : offset + length] = data
        else:
            (device.write_zeroes if what == "zero" else device.discard)(offset, length)
            model[offset : offset + length] = bytes(length)
    device.flush()
    assert content(device) == model
    device.close()
    assert exported(ceph, image, tmp_path) == model


def test_a_comparison_that_fails_says_where_and_writes_nothing(ceph: Ceph) -> None:
    device = opened(ceph, ceph.image("compared", "16M"))
    for offset in (0, 5 * MIB, 4 * MIB - 512):  # the last lies in two objects
        device.pwritev([b"a" * 1024], offset)
        for at in (0, 511, 700, 1023):
            expected = bytearray(b"a" * 1024)
            expected[at] = 0
            assert device.compare_and_write(expected, b"b" * 1024, offset) == at
        assert content(device, offset, 1024) == b"a" * 1024
        assert device.compare_and_write(b"a" * 1024, b"b" * 1024, offset) is None
        assert content(device, offset, 1024) == b"b" * 1024
    device.close()


def test_a_snapshot_is_what_the_image_was_and_cannot_be_written(ceph: Ceph) -> None:
    image = ceph.image("taken", "8M")
    device = opened(ceph, image)
    device.pwritev([b"before" + bytes(506)], 0)
    ceph.rbd("snap", "create", "--no-progress", f"{image}@then")  # our lock does not stop Ceph's tools
    device.pwritev([b"after" + bytes(507)], 0)
    device.pwritev([b"more" + bytes(508)], 6 * MIB)
    then = opened(ceph, f"{image}@then")
    assert content(then, 0, 6) == b"before"
    assert content(device, 0, 5) == b"after"
    assert then.read_only
    with pytest.raises(OSError, match="reading only") as caught:
        then.pwritev([bytes(512)], 0)
    assert caught.value.errno == errno.EROFS
    with pytest.raises(OSError, match="reading only"):
        then.discard(0, 512)
    then.flush()
    changed = [run for run in device.changes("then", 0, device.size) if run.mapped]
    assert len(changed) == 2
    assert (changed[0].offset, changed[1].offset + changed[1].length) == (0, 6 * MIB + 512)
    then.close()
    device.close()


def test_holes_are_told(ceph: Ceph) -> None:
    device = opened(ceph, ceph.image("holes", "16M"))
    assert list(device.runs(0, device.size)) == [Run(0, 16 * MIB, False)]
    device.pwritev([b"x" * 4096], 8 * MIB)
    runs = list(device.runs(0, device.size))
    assert [run.mapped for run in runs] == [False, True, False]
    assert (runs[1].offset, runs[1].length) == (8 * MIB, 4096)
    assert list(device.runs(8 * MIB + 512, 1024)) == [Run(8 * MIB + 512, 1024, True)]
    device.discard(8 * MIB, 4 * MIB)
    assert list(device.runs(0, device.size)) == [Run(0, 16 * MIB, False)]
    device.close()


def test_a_clone_shows_its_parent_until_it_is_written(ceph: Ceph, tmp_path: Path) -> None:
    image = ceph.image("parent", "8M")
    device = opened(ceph, image)
    data = os.urandom(MIB)
    device.pwritev([data], MIB)
    device.close()
    ceph.rbd("snap", "create", "--no-progress", f"{image}@base")
    ceph.rbd("snap", "protect", f"{image}@base")
    ceph.rbd("clone", f"{image}@base", "rbd/child")
    clone = opened(ceph, "rbd/child")
    assert content(clone, MIB, MIB) == data
    clone.pwritev([b"own" + bytes(509)], MIB)
    assert clone.compare_and_write(data[4096:4608], b"o" * 512, MIB + 4096) is None
    expected = bytearray(content(clone))
    assert expected[MIB + 512 : MIB + 4096] == data[512:4096]
    clone.close()
    assert exported(ceph, "rbd/child", tmp_path) == expected
    assert exported(ceph, image, tmp_path)[MIB : 2 * MIB] == data


def test_a_resize_is_seen_while_it_is_open(ceph: Ceph) -> None:
    image = ceph.image("resized", "8M")
    device = opened(ceph, image)
    ceph.rbd("resize", "--no-progress", image, "--size", "24M")
    eventually(lambda: device.size == 24 * MIB)
    device.pwritev([b"z" * 512], 24 * MIB - 512)
    ceph.rbd("resize", "--no-progress", "--allow-shrink", image, "--size", "4M")
    eventually(lambda: device.size == 4 * MIB)
    with pytest.raises(OSError, match="rbd/resized"):
        device.preadv([memoryview(bytearray(512))], 8 * MIB)
    assert content(device) == bytes(4 * MIB)
    device.close()


def test_what_cannot_be_opened_says_why(ceph: Ceph, tmp_path: Path) -> None:
    image = ceph.image("unlocked", "4M", "--image-feature", "layering")
    for bad, number in (
        ("rbd/none", errno.ENOENT),
        ("none/none", errno.ENOENT),
        (f"{image}@none", errno.ENOENT),
        (image, errno.EINVAL),  # without the feature there is no lock
    ):
        with pytest.raises(OSError, match=f"{bad.partition('/')[0]}") as caught:
            opened(ceph, bad)
        assert caught.value.errno == number
    opened(ceph, image, ", lock=shared").close()
    with pytest.raises(OSError, match="No such file"):
        open_stack(f"rbd(rbd/none, conf={tmp_path}/none)")
    for nonsense in ("rbd(none)", "rbd(a/b/c/d)", "rbd(a/b@)", "rbd(a/b, lock=none)", "rbd(a/b, timeout=0)",
                     "rbd(/b)", "rbd(a/b@c@d)", "rbd()"):  # fmt: skip
        with pytest.raises(StackError):
            open_stack(nonsense)


def test_names() -> None:
    assert Spec.parse("p/i") == Spec("p", "", "i")
    assert Spec.parse("p/n/i@s") == Spec("p", "n", "i", "s")
    assert str(Spec.parse("p/n/i@s")) == "p/n/i@s"


def test_a_namespace_is_a_place_of_its_own(ceph: Ceph) -> None:
    ceph.rbd("namespace", "create", "rbd/team")
    ceph.rbd("create", "rbd/team/vm", "--size", "4M")
    device = opened(ceph, "rbd/team/vm")
    device.pwritev([b"n" * 512], 0)
    device.close()
    assert "vm" in ceph.rbd("ls", "rbd/team")


def test_a_damaged_image_is_refused_and_leaves_others_alone(ceph: Ceph, tmp_path: Path) -> None:
    """Its header is in an object of its own: lost, cut short, or full of something else."""
    well = opened(ceph, ceph.image("well", "4M"))
    for number, damage in enumerate((None, b"", os.urandom(512))):
        image = ceph.image(f"damaged{number}", "4M")
        identity = ceph.rbd("info", image).partition("block_name_prefix: rbd_data.")[2].split()[0]
        header, junk = f"rbd_header.{identity}", tmp_path / "junk"
        ceph.run("rados", "-p", "rbd", "rm", header)
        if damage is not None:
            junk.write_bytes(damage)
            ceph.run("rados", "-p", "rbd", "put", header, junk)
        with pytest.raises(OSError, match="rbd/damaged"):
            opened(ceph, image)
    well.pwritev([b"w" * 512], 0)
    well.close()
