"""The block devices of a machine, as sysfs and proc tell of them."""

from __future__ import annotations

from pathlib import Path
from shutil import rmtree

import pytest

from blockyard.control import devices
from blockyard.control.devices import BlockDevice, block_devices


def _device(sysfs: Path, name: str, sectors: int, *, disk: str = "", **files: str) -> None:
    place = sysfs / "devices" / disk / name
    place.mkdir(parents=True)
    for file, text in {"size": f"{sectors}\n", "ro": "0\n", **files}.items():
        (place / file.replace("__", "/")).parent.mkdir(exist_ok=True)
        (place / file.replace("__", "/")).write_text(text)
    (sysfs / "class" / "block").mkdir(parents=True, exist_ok=True)
    (sysfs / "class" / "block" / name).symlink_to(place)


def test_what_there_is_and_what_is_used(tmp_path: Path) -> None:
    sysfs, dev, proc = tmp_path / "sys", tmp_path / "dev", tmp_path / "proc"
    _device(sysfs, "sda", 2048, device__model="TALL DISK\n", queue__rotational="1\n")
    _device(sysfs, "sda1", 1024, disk="sda", partition="1\n")
    _device(sysfs, "nvme0n1", 4096, queue__rotational="0\n", holders__md0="")
    _device(sysfs, "loop0", 2048)
    _device(sysfs, "sdb", 0)
    _device(sysfs, "sdc", 2048, ro="1\n", dev="8:32\n")
    by_id = dev / "disk" / "by-id"
    by_id.mkdir(parents=True)
    for link in ("ata-TALL_DISK_1", "wwn-0x5000000000000001"):
        (by_id / link).symlink_to("../../sda")
    (dev / "sda").touch()
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "mountinfo").write_text(f"36 25 8:1 / /home rw shared:1 - ext4 {dev}/sda1 rw\n")
    udev = tmp_path / "run" / "udev" / "data"
    udev.mkdir(parents=True)
    (udev / "b8:32").write_text("I:1\nE:ID_FS_TYPE=zfs_member\nE:ID_FS_USAGE=raid\n")
    (proc / "swaps").write_text(f"Filename Type Size Used Priority\n{dev}/sdc partition 1 0 -2\n")
    found = {each.name: each for each in block_devices(sysfs, dev, proc, tmp_path / "run")}
    assert list(found) == ["sda", "sdc", "sda1", "nvme0n1"]
    assert found["sda"] == BlockDevice(
        str(by_id / "ata-TALL_DISK_1"),
        "sda",
        1 << 20,
        "TALL DISK",
        True,
        False,
        "sda1 is mounted on /home",
        "partitions",
    )
    assert (found["sda1"].model, found["sda1"].used) == ("TALL DISK", "mounted on /home")
    assert (found["nvme0n1"].used, found["nvme0n1"].rotational) == ("part of md0", False)
    assert (found["sdc"].holds, found["sdc"].number) == ("zfs_member", (8, 32))
    assert (found["sdc"].read_only, found["sdc"].used) == (True, "used for swapping")


def test_a_disk_that_is_pulled_out_meanwhile_hides_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sysfs = tmp_path / "sys"
    for name in ("sda", "sdb"):
        _device(sysfs, name, 2048)
    held = devices._held

    def pull(directory: Path) -> str:
        if directory.name == "sda":
            rmtree(directory.resolve())
        return held(directory)

    monkeypatch.setattr(devices, "_held", pull)
    found = block_devices(sysfs, tmp_path / "dev", tmp_path / "proc", tmp_path / "run")
    assert [each.name for each in found] == ["sdb"]
