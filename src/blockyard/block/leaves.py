"""The leaves that every stack can have: files and block devices, images of disks, memory, volumes of pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blockyard.block.device import Device
from blockyard.block.file import FileDevice
from blockyard.block.formats import AUTO, VHD, VHDX, open_image
from blockyard.block.layers import Kind, Opening
from blockyard.block.memory import MemoryDevice
from blockyard.block.size import Size

MEMORY_LIMIT = 1 << 40  # bytes: more than that is a slip of the pen


@dataclass(frozen=True)
class FileOptions:
    """A file or block device."""

    path: str

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not self.path or "\0" in self.path:
            raise ValueError("a path has one character at least, and no NUL")

    @property
    def claims(self) -> list[str]:
        return [f"file:{self.path}"]


@dataclass(frozen=True)
class MemoryOptions:
    """Bytes in memory."""

    size: Size

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if not 512 <= self.size <= MEMORY_LIMIT or self.size % 512:
            raise ValueError(
                f"the size of memory is a multiple of 512 up to {Size(MEMORY_LIMIT)}, not {int(self.size)}"
            )


@dataclass(frozen=True)
class PoolOptions:
    """A volume of a pool, or a snapshot of one."""

    volume: str  # POOL/VOLUME or POOL/VOLUME@SNAPSHOT

    def __post_init__(self) -> None:
        """Raises ValueError."""
        pool, _, volume = self.volume.partition("/")
        if not pool or not volume:
            raise ValueError(f"{self.volume!r} is not POOL/VOLUME: write for example pool(fast/vm1)")

    @property
    def pool(self) -> str:
        return self.volume.partition("/")[0]


def _open_file(children: Sequence[Device], options: FileOptions, opening: Opening) -> Device:
    return FileDevice(options.path, read_only=opening.read_only)


def _open_memory(children: Sequence[Device], options: MemoryOptions, opening: Opening) -> Device:
    return MemoryDevice(options.size, read_only=opening.read_only)


def _open_volume(children: Sequence[Device], options: PoolOptions, opening: Opening) -> Device:
    return opening.volume(options.volume)


def _image(format: str, name: str, text: str) -> Kind:
    def open(children: Sequence[Device], options: FileOptions, opening: Opening) -> Device:
        return open_image(options.path, format, read_only=opening.read_only, notify=opening.notify)

    return Kind(
        name, text, open, FileOptions, (0, 0), "path", ("path",), claims=_claims, example=f"{name}(/srv/disk.{name})"
    )


def _claims(options: FileOptions) -> Sequence[str]:
    return options.claims


KINDS = (
    Kind("file", "A file or a block device; a path alone means the same.", _open_file, FileOptions, (0, 0), "path", ("path",),
         claims=_claims, example="file(/dev/sda)"),
    Kind("memory", "Bytes in memory, gone with the process.", _open_memory, MemoryOptions, (0, 0), "size",
         example="memory(1G)"),
    Kind("pool", "A volume of a pool, or a snapshot of one.", _open_volume, PoolOptions, (0, 0), "volume",
         claims=lambda options: [f"pool:{options.volume}"], example="pool(fast/vm1)"),
    _image(VHD, "vhd", "A VHD image, with its parents."),
    _image(VHDX, "vhdx", "A VHDX image, with its parents."),
    _image(AUTO, "auto", "An image, of the format that it looks like."),
)  # fmt: skip
