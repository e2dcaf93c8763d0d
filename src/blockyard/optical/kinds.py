"""The kinds of disc that a drive shows, and which one an image is (MMC-6, profiles; ECMA-130, ECMA-267, BD white papers)."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from blockyard.block.size import parse_size

BLOCK = 2048  # bytes of user data in a sector
NO_PROFILE = 0x0000


class Writing(Enum):
    """How a disc can be written."""

    NEVER = "read only"
    ONCE = "once, in order"
    AGAIN = "in order, and blanked"
    ANYWHERE = "any block, again and again"


class Kind(NamedTuple):
    """A kind of disc. Sizes are in blocks, speeds in kilobytes (1000 bytes) a second."""

    name: str
    family: str  # "cd", "dvd", "bd"
    profile: int  # MMC-6, profile list
    layers: tuple[int, ...]  # what discs with one layer, two layers and so on hold
    blocking: int  # blocks that a drive reads at a time
    speed: int
    most: int  # what addresses reach
    writing: Writing = Writing.NEVER
    sizes: tuple[tuple[str, int], ...] = ()  # of blank ones, by what is written on them; the usual one first
    gaps: tuple[int, int] = (0, 0)  # blocks between the first session and the next, and between later ones
    track_gap: int = 0  # and between two tracks of a session
    pseudo_overwrite: bool = False  # what is recorded can be replaced (MMC-6, BD-R POW)
    book: int = 0  # what the physical format information calls it (ECMA-267 and its sisters)

    @property
    def writable(self) -> bool:
        """Whether any block of it can be written, again and again."""
        return self.writing is Writing.ANYWHERE

    @property
    def sequential(self) -> bool:
        """Whether it is written in order."""
        return self.writing in (Writing.ONCE, Writing.AGAIN)

    def layers_of(self, blocks: int) -> int:
        """How many layers a disc with so many blocks has."""
        return next((number for number, size in enumerate(self.layers, 1) if blocks <= size), len(self.layers))


PREGAP = 150  # blocks before the first one: MSF addresses count them (MMC-6, 4.2.3)
FRAMES, SECONDS = 75, 60
_LAST_MSF = 100 * SECONDS * FRAMES  # 99:59:74 is the last one


def _minutes(number: int) -> int:
    """The blocks of a CD of so many minutes: its lead-out begins at the last frame of them."""
    return number * SECONDS * FRAMES - PREGAP - 1


# 80 minutes; DVD-5 and DVD-9; BD of one and two layers, BDXL of three and four
CD = Kind("cd", "cd", 0x0008, (360_000,), 1, 8467, _LAST_MSF - PREGAP)
DVD = Kind("dvd", "dvd", 0x0010, (2_298_496, 4_173_824), 16, 22_160, 4_173_824, book=0x0)
BD = Kind("bd", "bd", 0x0040, (12_219_392, 24_438_784, 48_878_592, 62_500_864), 32, 53_946, 62_500_864)

_CD_SIZES = tuple((f"{number}min", _minutes(number)) for number in (80, 74, 63, 90, 99, 21))
_CD_BLANK = CD._replace(
    sizes=_CD_SIZES, gaps=(6750 + 4500 + PREGAP, 2250 + 4500 + PREGAP), track_gap=PREGAP, most=_minutes(99)
)  # lead-out, lead-in and pregap (MMC-6, multi-session CD)
CD_R = _CD_BLANK._replace(name="cd-r", profile=0x0009, writing=Writing.ONCE)
CD_RW = _CD_BLANK._replace(name="cd-rw", profile=0x000A, writing=Writing.AGAIN)
# Borders of DVD-R and closure and intro zones of DVD+R: as large as the first and the later ones of usual discs
_MINUS = DVD._replace(sizes=(("4.7G", 2_298_496), ("1.4G", 712_880)), gaps=(12_288, 3_072), most=2_298_496)
DVD_R = _MINUS._replace(name="dvd-r", profile=0x0011, writing=Writing.ONCE, book=0x2)
DVD_RW = _MINUS._replace(name="dvd-rw", profile=0x0014, writing=Writing.AGAIN, book=0x3)
DVD_R_DL = DVD_R._replace(name="dvd-r-dl", profile=0x0015, sizes=(("8.5G", 4_171_712),), most=4_171_712)
DVD_RAM = DVD._replace(
    name="dvd-ram", profile=0x0012, writing=Writing.ANYWHERE, book=0x1, most=2_295_072,
    sizes=(("4.7G", 2_295_072), ("2.6G", 1_218_960), ("1.4G", 714_480)),
)  # fmt: skip
_PLUS = DVD._replace(sizes=(("4.7G", 2_295_104), ("1.4G", 714_544)), gaps=(2_048, 2_048), most=2_295_104)
DVD_PLUS_RW = _PLUS._replace(name="dvd+rw", profile=0x001A, writing=Writing.ANYWHERE, book=0x9)
DVD_PLUS_R = _PLUS._replace(name="dvd+r", profile=0x001B, writing=Writing.ONCE, book=0xA)
_PLUS_DL = _PLUS._replace(sizes=(("8.5G", 4_173_824),), most=4_173_824)
DVD_PLUS_RW_DL = _PLUS_DL._replace(name="dvd+rw-dl", profile=0x002A, writing=Writing.ANYWHERE, book=0xD)
DVD_PLUS_R_DL = _PLUS_DL._replace(name="dvd+r-dl", profile=0x002B, writing=Writing.ONCE, book=0xE)
_BD_SIZES = tuple(zip(("25G", "50G", "100G", "128G"), BD.layers, strict=True))
BD_R = BD._replace(name="bd-r", profile=0x0041, writing=Writing.ONCE, sizes=_BD_SIZES)
BD_RE = BD._replace(name="bd-re", profile=0x0043, writing=Writing.ANYWHERE, sizes=_BD_SIZES[:3])

# What formatting makes of discs that come for writing in order: a kind of its own, with another way to be written
DVD_RW_RESTRICTED = DVD_RW._replace(profile=0x0013, writing=Writing.ANYWHERE)
CD_RW_FORMATTED = CD_RW._replace(writing=Writing.ANYWHERE)
BD_R_POW = BD_R._replace(pseudo_overwrite=True)  # SRM+POW
FORMATTED = {DVD_RW.name: DVD_RW_RESTRICTED, CD_RW.name: CD_RW_FORMATTED}

PRESSED = (CD, DVD, BD)
RECORDABLE = (
    CD_R, CD_RW, DVD_R, DVD_RW, DVD_R_DL, DVD_RAM, DVD_PLUS_R, DVD_PLUS_RW, DVD_PLUS_R_DL, DVD_PLUS_RW_DL, BD_R, BD_RE,
)  # fmt: skip
BLANKS = {kind.name: kind for kind in RECORDABLE}
IMAGES = {kind.name: kind for kind in (*PRESSED, BD_RE)}  # what an image can be shown as
KINDS = {kind.name: kind for kind in (*PRESSED, *RECORDABLE)}
EVERY_KIND = (*KINDS.values(), DVD_RW_RESTRICTED, CD_RW_FORMATTED, BD_R_POW)
AUTO = "auto"


def capacity_of(kind: str, size: str | None) -> int:
    """The blocks of a blank disc: of a usual size ("74min", "50G"), another ("64M"), or the most usual. Raises ValueError."""
    if kind not in BLANKS:
        raise ValueError(f"a blank disc is {', '.join(BLANKS)}, not {kind!r}")
    sizes = dict(BLANKS[kind].sizes)
    if size is None:
        return BLANKS[kind].sizes[0][1]
    blocks = sizes.get(size)
    if blocks is None:
        try:
            blocks = parse_size(size) // BLOCK
        except ValueError as error:
            raise ValueError(f"{error}; the usual sizes of a {kind.upper()} are {', '.join(sizes)}") from None
    most = max(BLANKS[kind].most, *sizes.values())
    if not 1 <= blocks <= most:
        raise ValueError(f"a {kind.upper()} has 1 to {most} blocks of {BLOCK} bytes, not {blocks}")
    return blocks


def kind_of(blocks: int, wanted: str = AUTO) -> Kind:
    """The kind of disc that has room for so many blocks, or the one that is wanted. Raises ValueError when it has not."""
    if wanted != AUTO:
        kind = KINDS[wanted]
        if blocks > kind.most:
            raise ValueError(f"it has {blocks} blocks of 2048 bytes, and a {wanted.upper()} has {kind.most} at most")
        return kind
    for kind in PRESSED:
        if blocks <= kind.layers[-1]:
            return kind
    raise ValueError(f"it has {blocks} blocks of 2048 bytes, more than any disc: serve it as a disk")


def msf(lba: int) -> bytes:
    """Minute, second and frame of a logical block address (MMC-6, LBA to MSF translation); the last one for what is beyond.

    Before the first pregap, in the lead-in, addresses count down from 99:59:74.
    """
    frames = lba + PREGAP if lba + PREGAP >= 0 else lba + PREGAP + _LAST_MSF
    frames = min(frames, 256 * SECONDS * FRAMES - 1)
    return bytes([frames // FRAMES // SECONDS, frames // FRAMES % SECONDS, frames % FRAMES])


def lba_of(minute: int, second: int, frame: int) -> int:
    """The logical block address of an MSF address; negative in the first pregap."""
    return (minute * SECONDS + second) * FRAMES + frame - PREGAP
