"""Arrays and Linux: its md runs what we made, and finds it in order; and its ext4 is on an array of ours that loses a member."""

from __future__ import annotations

import hashlib
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice
from blockyard.block.layers import Opening
from blockyard.block.raid.array import Array
from blockyard.block.raid.assembly import assemble, examine
from blockyard.block.raid.creation import Plan, create
from blockyard.block.raid.superblock import ALL, Superblock
from tests.conftest import TargetFactory
from tests.guest.conftest import Guest
from tests.guest.network import HOST, Network

MIB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system that soon has no room: whatever is on it fails then."""
    directory = tmp_path / "small"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(directory)], check=True)
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def made(paths: list[Path], plan: Plan, size: int, spares: int = 0) -> None:
    for path in paths:
        with path.open("wb") as file:
            file.truncate(size)
    devices = [FileDevice(path) for path in paths]
    create(devices[: len(paths) - spares], plan, spares=devices[len(paths) - spares :])
    for device in devices:
        device.close()


def opened(paths: list[Path]) -> Array:
    return assemble([FileDevice(path) for path in paths], None, Opening())


def content(array: Array) -> bytes:
    data = bytearray(array.size)
    array.preadv([memoryview(data)], 0)
    return bytes(data)


@pytest.mark.parametrize(
    "level", [6, *(pytest.param(level, marks=pytest.mark.soak) for level in (0, 1, 10, 5))], ids=str
)
def test_linux_runs_our_arrays_and_stands_on_them(
    level: int, target: TargetFactory, network: Network, guest: Guest, tmp_path: Path, small: Path
) -> None:
    members = [tmp_path / f"m{number}" for number in range(4)]
    made(members, Plan(level, name="ours"), 12 * MIB)
    array = opened(members)
    data = random.Random(level).randbytes(array.size)
    array.pwritev([data], 0)
    array.close()
    served = [tmp_path / "a", tmp_path / "b", small / "c", tmp_path / "spare"]
    made(served, Plan(5), 48 * MIB, spares=1)
    stack = f"stack:raid5({', '.join(map(str, served))})"
    serving = target(*members, stack, size=None, portals=[f"{HOST[0]}:3260"], prefix=network.prefix)

    def seen() -> Superblock | None:
        """That of the spare; None when it is being written."""
        device = FileDevice(served[3], read_only=True, lock=False)
        try:
            return examine(device)
        except (OSError, ValueError):
            return None
        finally:
            device.close()

    def told(condition: Callable[[Superblock], bool]) -> str:
        """Whether it is so; twice, for a superblock has two parts, and one may be newer than the other."""
        first, second = seen(), seen()
        return "yes" if first is not None and first == second and condition(first) else "no"

    def ours() -> str:
        """Copies of the members, as they are in use."""
        for member in members:
            shutil.copy(member, member.with_suffix(".copy"))
        return "yes"

    output = guest(
        "raid.sh",
        variables={"LEVEL": str(level), "SUM": hashlib.sha256(data).hexdigest()},
        marks={
            "ours": ours,
            "degraded": lambda: told(lambda spare: spare.role < 3),
            "rebuilt": lambda: told(lambda spare: spare.role < 3 and spare.recovery_offset == ALL),
        },
    )
    serving.stop()
    for name, paths in (("LINUX", [member.with_suffix(".copy") for member in members]), ("THEIRS", members)):
        (linux,) = re.findall(rf"{name}:(\w+)", output)
        array = opened(paths)
        assert not array.left_out
        assert hashlib.sha256(content(array)).hexdigest() == linux
        if level:
            assert array.check(0, array.members.bitmap.size, repair=False) == 0
        array.close()
    after = opened(served)
    assert after.report()["health"] == "ok"
    assert after.check(0, after.members.bitmap.size, repair=False) == 0
    after.close()
