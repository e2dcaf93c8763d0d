"""RAID as layers of a stack: raid5(/dev/sda, /dev/sdb, /dev/sdc) is the array that these are members of, in any order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from blockyard.block.actions import Progress
from blockyard.block.device import Device
from blockyard.block.layers import MANY, Kind, Opening
from blockyard.block.raid.array import Array
from blockyard.block.raid.assembly import assemble
from blockyard.block.raid.creation import CHUNK, Plan, create
from blockyard.block.raid.geometry import geometry
from blockyard.block.raid.work import RATE
from blockyard.block.size import Size, format_size

_RATE, _CHUNK, _NONE = Size(RATE), Size(CHUNK), Size(0)


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


@dataclass(frozen=True)
class RaidCreation:
    """Of an array that is made."""

    name: str = ""  # for people
    spares: int = 0  # so many of the children, the last ones, take the place of others that fail
    chunk: Size = _CHUNK
    copies: int = 2  # of everything, for RAID 10
    journal: bool = False  # RAID 5 and 6: every write goes through the journal, not only those that lack a member
    journal_size: Size = _NONE  # on each member; 0: what suits their size
    region: Size = _NONE  # that a bit of the bitmap stands for; 0: what suits the size
    force: bool = False  # though the children hold something

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.spares < 0:
            raise ValueError("there are no fewer than no spares")


def _maker(level: int) -> Callable[[Sequence[Device], RaidCreation, Opening, Progress], str]:
    def make(children: Sequence[Device], options: RaidCreation, opening: Opening, progress: Progress) -> str:
        plan = Plan(
            level,
            options.name,
            int(options.chunk),
            options.copies,
            options.journal,
            options.journal_size,
            options.region,
        )
        count = len(children) - options.spares
        made = create(children[: max(0, count)], plan, spares=children[count:], force=options.force, progress=progress)
        identity = made.identity
        size = geometry(level, count, identity.chunk, identity.layout, identity.used).size
        text = f"array {identity.array}: RAID {level} of {count} members, {format_size(size)}"
        return text if made.clean else f"{text}; they are brought in line with each other while it is used"

    return make


def _kind(level: int, text: str, members: str) -> Kind:
    name = f"raid{level}"
    return Kind(
        name, text, _opener(level), RaidOptions, (1, MANY), absent=True, create=_maker(level), creation=RaidCreation,
        example=f"{name}({members})", unit="members",
    )  # fmt: skip


KINDS = (
    _kind(0, "An array of RAID 0: spread over its members, all of which are needed.", "/dev/sda, /dev/sdb"),
    _kind(1, "An array of RAID 1: each member is a copy.", "/dev/sda, /dev/sdb"),
    _kind(10, "An array of RAID 10: spread over its members, with two copies or more of everything.",
          "/dev/sda, /dev/sdb, /dev/sdc, /dev/sdd"),
    _kind(5, "An array of RAID 5: one member may be lost.", "/dev/sda, /dev/sdb, /dev/sdc"),
    _kind(6, "An array of RAID 6: two members may be lost.", "/dev/sda, /dev/sdb, /dev/sdc, /dev/sdd"),
)  # fmt: skip
