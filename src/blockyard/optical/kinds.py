"""The kinds of disc that a drive shows, and which one an image is (MMC-6, profiles; ECMA-130, ECMA-267, BD white papers)."""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 2048  # bytes of user data in a sector
NO_PROFILE = 0x0000


class Kind(NamedTuple):
    """A kind of disc. Sizes are in blocks, speeds in kilobytes (1000 bytes) a second."""

    name: str
    profile: int  # MMC-6, profile list
    layers: tuple[int, ...]  # what discs with one layer, two layers and so on hold
    blocking: int  # blocks that a drive reads at a time
    speed: int
    most: int  # what addresses reach
    writable: bool = False  # any block, again and again

    def layers_of(self, blocks: int) -> int:
        """How many layers a disc with so many blocks has."""
        return next((number for number, size in enumerate(self.layers, 1) if blocks <= size), len(self.layers))


PREGAP = 150  # blocks before the first one: MSF addresses count them (MMC-6, 4.2.3)
FRAMES, SECONDS = 75, 60
_LAST_MSF = 100 * SECONDS * FRAMES  # 99:59:74 is the last one

# 80 minutes; DVD-5 and DVD-9; BD of one and two layers, BDXL of three and four
CD = Kind("cd", 0x0008, (360_000,), 1, 8467, _LAST_MSF - PREGAP)
DVD = Kind("dvd", 0x0010, (2_298_496, 4_173_824), 16, 22_160, 4_173_824)
BD = Kind("bd", 0x0040, (12_219_392, 24_438_784, 48_878_592, 62_500_864), 32, 53_946, 62_500_864)
BD_RE = BD._replace(name="bd-re", profile=0x0043, writable=True)
PRESSED = (CD, DVD, BD)
KINDS = {kind.name: kind for kind in (*PRESSED, BD_RE)}
AUTO = "auto"


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
    """Minute, second and frame of a logical block address (MMC-6, LBA to MSF translation); the last one for what is beyond."""
    frames = min(lba + PREGAP, 256 * SECONDS * FRAMES - 1)
    return bytes([frames // FRAMES // SECONDS, frames // FRAMES % SECONDS, frames % FRAMES])


def lba_of(minute: int, second: int, frame: int) -> int:
    """The logical block address of an MSF address; negative in the first pregap."""
    return (minute * SECONDS + second) * FRAMES + frame - PREGAP
