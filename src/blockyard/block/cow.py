"""A copy-on-write layer of a stack: what is written goes to a file of its own, and is gone with it (block/overlay.py)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from blockyard.block.device import Device
from blockyard.block.layers import Kind, Opening
from blockyard.block.overlay import Budget, OverlayDevice
from blockyard.block.size import Size, format_size


@dataclass(frozen=True)
class OverlayOptions:
    """How much may be written."""

    limit: Size = Size(1 << 30)  # noqa: RUF009  (a number, which cannot change)
    directory: str = ""  # where the file is, which has no name; "": where temporary files are


class Overlay(OverlayDevice):
    """The device below, which it owns, with writes that are forgotten when it is closed."""

    def __init__(self, below: Device, options: OverlayOptions) -> None:
        directory = Path(options.directory) if options.directory else None
        super().__init__(below, budget=Budget(options.limit), directory=directory)
        self.children = (below,)
        self._limit = options.limit

    def report(self) -> dict[str, object]:
        return {"text": f"{format_size(self.written)} of {format_size(self._limit)} written"}

    def close(self) -> None:
        super().close()
        self.below.close()


def _open(children: Sequence[Device], options: OverlayOptions, opening: Opening) -> Device:
    return Overlay(children[0], options)


KINDS = (
    Kind("overlay", "Takes writes for itself, up to a limit, and forgets them when it is closed.", _open, OverlayOptions,
         paths=("directory",), only_reads=True, example="overlay(limit=10G, /srv/golden.img)"),
)  # fmt: skip
