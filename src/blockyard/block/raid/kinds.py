"""RAID as layers of a stack: raid5(/dev/sda, /dev/sdb, /dev/sdc) is the array that these are members of, in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from blockyard.block.device import Device
from blockyard.block.layers import MANY, Kind, Opening
from blockyard.block.raid.array import Array
from blockyard.block.raid.assembly import assemble
from blockyard.block.raid.work import RATE
from blockyard.block.size import Size

_RATE = Size(RATE)


@dataclass(frozen=True)
class RaidOptions:
    """Of an array that is in use; what it is stands in its superblocks."""

    rate: Size = _RATE  # bytes a second of each member, for rebuilds and the like

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.rate < 64 << 10:
            raise ValueError("the rate is at least 64K bytes a second")


def _opener(level: int) -> Callable[[Sequence[Device], RaidOptions, Opening], Device]:
    def open(children: Sequence[Device], options: RaidOptions, opening: Opening) -> Array:
        array = assemble(children, level, opening)
        array.background.rate = int(options.rate)
        if not opening.read_only:
            array.background.start()
        return array

    return open


def _kind(level: int, text: str, members: str) -> Kind:
    name = f"raid{level}"
    return Kind(name, text, _opener(level), RaidOptions, (1, MANY), absent=True, example=f"{name}({members})")


KINDS = (
    _kind(0, "An array of RAID 0: spread over its members, all of which are needed.", "/dev/sda, /dev/sdb"),
    _kind(1, "An array of RAID 1: each member is a copy.", "/dev/sda, /dev/sdb"),
    _kind(10, "An array of RAID 10: spread over its members, with two copies or more of everything.",
          "/dev/sda, /dev/sdb, /dev/sdc, /dev/sdd"),
    _kind(5, "An array of RAID 5: one member may be lost.", "/dev/sda, /dev/sdb, /dev/sdc"),
    _kind(6, "An array of RAID 6: two members may be lost.", "/dev/sda, /dev/sdb, /dev/sdc, /dev/sdd"),
)  # fmt: skip
