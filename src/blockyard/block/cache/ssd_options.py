"""What there is to choose of a cache on a persistent device."""

from __future__ import annotations

from dataclasses import dataclass

from blockyard.block.size import Size

BACK, THROUGH = "back", "through"
MODES = (BACK, THROUGH)
_BYPASS, _BLOCK = Size(256 << 10), Size(4096)


class Rate(Size):
    """Bytes a second, or "unlimited"."""

    @classmethod
    def read(cls, data: object) -> Rate:
        return cls(0) if data == "unlimited" else cls(super().read(data))

    def __str__(self) -> str:
        return super().__str__() if self else "unlimited"


_UNLIMITED = Rate(0)


@dataclass(frozen=True)
class SsdOptions:
    """Of a cache that is opened."""

    mode: str = THROUGH  # or back
    dirty: int = 50  # per cent of the cache that may wait to be written back
    rate: Rate = _UNLIMITED  # of writing back while less than half of that waits
    delay: float = (
        5.0  # seconds that what is written may wait before it is written back; sooner when a quarter of `dirty` waits
    )
    bypass: Size = _BYPASS  # longer reads are not put into the cache

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f'mode is "{BACK}" or "{THROUGH}", not "{self.mode}"')
        if not 1 <= self.dirty <= 90:
            raise ValueError("dirty is from 1 to 90 per cent")
        if not 0 <= self.delay <= 86400:
            raise ValueError("delay is from 0 to 86400 seconds")


@dataclass(frozen=True)
class SsdCreation:
    """Of a cache that is made."""

    block: Size = _BLOCK  # bytes: smaller ones hold more of what is really used, larger ones need less memory
    force: bool = False  # whatever is there already

    def __post_init__(self) -> None:
        if self.block not in (1 << shift for shift in range(12, 17)):
            raise ValueError("block is a power of two from 4K to 64K")


@dataclass(frozen=True)
class Switching:
    """To which mode."""

    mode: str

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(f'mode is "{BACK}" or "{THROUGH}", not "{self.mode}"')


@dataclass(frozen=True)
class Tuning:
    """How what is written gets to the origin; what is not said stays as it is."""

    dirty: int | None = None
    rate: Rate | None = None
    delay: float | None = None


@dataclass(frozen=True)
class Resizing:
    """How much of its device a cache is to have."""

    size: Size | None = (
        None  # bytes of the device, a file is made so large; all that there is of it where it is not said
    )
