"""Dynamic images beside a raw file, and beside qemu-nbd serving the same image through us: `python -m bench.images`.

All blocks are allocated before. The CPU time is that of the target's processes; for qemu-nbd its own comes on top.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.beside import Compared, Served, measure, parser, places
from bench.clients import WORKS
from blockyard.block.file import create as create_file
from blockyard.block.formats import RAW, create_image

_SIZE = 512 << 20  # bytes of each disk
_WORKS = {"r4k-d32": "4 KiB random reads", "w4k-d32": "4 KiB random writes"}
_QEMU_NAMES = {"vhd": "vpc", "vhdx": "vhdx"}
_LEAST_TO_RAW, _LEAST_TO_QEMU = 0.85, 2.0


class Image(Served):
    """A raw file, or an image that we read and write by ourselves."""

    def __init__(self, name: str, backing: Path, directory: Path) -> None:
        self.name = name
        super().__init__(backing / f"{name}.img", directory)

    def start(self) -> int:
        self._make()
        return self.serve([self.file], ["--format", self.name])

    def _make(self) -> None:
        if self.name == RAW:
            create_file(self.file, _SIZE)
        else:
            create_image(self.file, self.name.partition("-")[0], _SIZE)


class ByQemu(Image):
    """The same kind of image, behind a qemu-nbd and our NBD client."""

    def start(self) -> int:
        self._make()
        socket = self.directory / f"{self.name}.sock"
        format = _QEMU_NAMES[self.name.partition("-")[0]]
        command = ("qemu-nbd", "-f", format, "-t", "-e", "8", "--cache=writeback", "-k", str(socket), str(self.file))
        qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._ends.callback(qemu.wait)
        self._ends.callback(qemu.kill)
        while not socket.exists() and qemu.poll() is None:
            time.sleep(0.01)
        return self.serve([f"stack:nbd(nbd+unix:///?socket={socket})"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a table. Returns 0 however fast it was."""
    described = parser("images", __doc__)
    described.add_argument("--only", metavar="FORMAT,…", default="vhd,vhdx", help="(default: %(default)s)")
    described.add_argument("--no-qemu", action="store_true", help="do not measure beside qemu-nbd")
    options = described.parse_args(arguments)
    formats = options.only.split(",")
    with places(options) as (backing, directory), ExitStack() as running:
        images = [running.enter_context(Image(RAW, backing, directory))]
        for format in formats:
            images.append(running.enter_context(Image(format, backing, directory)))
            if not options.no_qemu:
                images.append(running.enter_context(ByQemu(f"{format}-qemu", backing, directory)))
        for image in images:
            image.fill(_SIZE)
        for work, title in _WORKS.items():
            figures = measure(dict.fromkeys(images, WORKS[work]), images, options)
            found = dict(zip((image.name for image in images), figures, strict=True))
            for format in formats:
                for other, least in ((RAW, _LEAST_TO_RAW), (f"{format}-qemu", _LEAST_TO_QEMU)):
                    if other in found:
                        compared = Compared.of(found[other], found[format])
                        print(compared.told(f"{format}, {title}", least, other), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
