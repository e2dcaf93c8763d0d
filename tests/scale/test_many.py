"""As many LUNs and targets as there may be, and volumes as large."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockyard.initiator import Lun, ScsiError, connect, discover
from tests.conftest import need, run
from tests.control.serving import serve

MANY = "iqn.2026-11.test:many"
LARGEST = (1 << 63) - 512  # bytes: 8 EiB less one block, the last size that a file offset can tell


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory on a file system that has no limit on the size of a sparse file."""
    with tempfile.TemporaryDirectory(prefix="blockyard-", dir="/dev/shm") as directory:
        yield Path(directory)


def volumes(folder: Path, names: list[str]) -> str:
    for name in names:
        with (folder / f"{name}.img").open("wb") as file:
            file.truncate(1 << 20)
    return "".join(f"[volumes.{name}]\npath = '{name}.img'\n" for name in names)


def test_16384_luns_on_one_target(memory: Path) -> None:
    names = [f"v{number}" for number in range(32)]
    luns = "".join(f"{lun} = 'v{lun % 32}'\n" for lun in range(16384))
    (memory / "c.toml").write_text(f"{volumes(memory, names)}[targets.'{MANY}'.luns]\n{luns}")
    with serve(memory / "s", "--config", str(memory / "c.toml")) as served:
        url = f"iscsi://{served.portals[0]}/{MANY}"
        with connect(f"{url}/16383", timeout=120) as last:
            assert last.luns() == list(range(16384))
            last.write(1, b"last" * 128)
            assert Lun(last.session, 31).read(1) == b"last" * 128, "the same volume"
            assert Lun(last.session, 255).read(1) == b"last" * 128, (
                "by peripheral addressing, the last that it can name"
            )
            assert Lun(last.session, 256).read(1) == bytes(512), "by flat space addressing"
        found = run(
            [need("iscsi-inq", "libiscsi-bin"), f"{url}/{0x4000 | 16383}"]
        )  # libiscsi takes the field's 16 bits
        assert "Peripheral Device Type:DIRECT_ACCESS" in found.stdout
        assert served.stop() == 0


@pytest.mark.soak
def test_16384_volumes(memory: Path) -> None:
    names = [f"v{number}" for number in range(16384)]
    luns = "".join(f"{lun} = 'v{lun}'\n" for lun in range(16384))
    (memory / "c.toml").write_text(f"{volumes(memory, names)}[targets.'{MANY}'.luns]\n{luns}")
    with serve(memory / "s", "--config", str(memory / "c.toml")) as served:
        with connect(f"iscsi://{served.portals[0]}/{MANY}/16383", timeout=120) as lun:
            assert lun.luns() == list(range(16384))
            lun.write(0, b"x" * 512)
            assert lun.read(0) == b"x" * 512
        assert served.stop() == 0


def test_1000_targets(memory: Path) -> None:
    names = [f"v{number}" for number in range(8)]
    targets = [f"iqn.2026-11.test:target-{number}" for number in range(1000)]
    parts = [f"[targets.'{name}']\nluns = {{0 = 'v{number % 8}'}}\n" for number, name in enumerate(targets)]
    (memory / "c.toml").write_text(volumes(memory, names) + "".join(parts))
    with serve(memory / "s", "--config", str(memory / "c.toml"), "--workers", "2") as served:
        portal = served.portals[0]
        assert len(served.workers()) == 2
        found = discover(portal, timeout=120)
        assert [target.name for target in found] == targets
        assert {str(address) for target in found for address, _ in target.portals} == {portal}
        for number in (0, 499, 999):
            with connect(f"iscsi://{portal}/{targets[number]}/0", timeout=120) as lun:
                lun.write(number % 8, b"%03d!" % number * 128)
                assert lun.read(number % 8) == b"%03d!" % number * 128
        listed = run([need("iscsi-ls", "libiscsi-bin"), f"iscsi://{portal}"]).stdout
        assert listed.count("Target:iqn.2026-11.test:target-") == 1000
        assert served.stop() == 0


def test_a_volume_of_8_eib_less_one_block(memory: Path) -> None:
    with (memory / "large.img").open("wb") as file:
        file.truncate(LARGEST)
    with serve(memory / "s", str(memory / "large.img")) as served:
        url = f"iscsi://{served.portals[0]}/{served.targets[0]}/0"
        with connect(url, timeout=120) as lun:
            blocks = LARGEST // 512
            capacity = lun.capacity()
            assert (capacity.blocks, capacity.size) == (blocks, LARGEST)
            assert lun.execute(b"\x25" + bytes(9), read_length=8)[:4] == b"\xff" * 4, "READ CAPACITY (10) cannot tell"
            for lba in (0, (1 << 32) - 8, 1 << 32, blocks - 8):
                lun.write(lba, lba.to_bytes(8, "big") * 512)
            for lba in (0, (1 << 32) - 8, 1 << 32, blocks - 8):
                assert lun.read(lba, 8) == lba.to_bytes(8, "big") * 512
            for lba, count in ((blocks, 1), (blocks - 1, 2), ((1 << 64) - 1, 1)):
                with pytest.raises(ScsiError) as error:
                    lun.execute(
                        b"\x88\0" + lba.to_bytes(8, "big") + count.to_bytes(4, "big") + bytes(2), read_length=1024
                    )
                assert error.value.sense is not None
                assert (error.value.sense.key, error.value.sense.asc) == (5, 0x21)
            lun.flush()
        told = run(
            [need("iscsi-readcapacity16", "libiscsi-bin"), url]
        ).stdout  # qemu-img takes 8 EiB less 1 GiB at most
        assert f"RETURNED LOGICAL BLOCK ADDRESS:{blocks - 1}" in told
        assert f"Total size:{LARGEST}" in told
        assert served.stop() == 0
    with (memory / "large.img").open("rb") as file:
        assert os.pread(file.fileno(), 8, LARGEST - 4096) == (LARGEST // 512 - 8).to_bytes(8, "big")
