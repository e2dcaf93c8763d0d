"""What other programs serve as kinds of layers: qemu(/srv/vm.qcow2, format=qcow2), nbdkit(curl, parameters=[url=https://…])."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace

from blockyard.block.device import Device
from blockyard.block.engines.engine import OPENING, Engine
from blockyard.block.engines.formats import FORMATS
from blockyard.block.engines.qemu import SILENCE, QemuImage
from blockyard.block.layers import Kind, Opening
from blockyard.block.nbd.device import NbdDevice


@dataclass(frozen=True)
class QemuOptions:
    """An image of a format that QEMU knows."""

    path: str
    format: str  # which has to be said: an image names other files, and whoever may write to a disk can make it look like one
    backing: str = ""  # directory where files that the image stands on may be; "": nowhere

    def __post_init__(self) -> None:
        """Raises ValueError."""
        if self.format not in FORMATS:
            raise ValueError(f"format is one of {', '.join(FORMATS)}, not {self.format!r}")
        if not self.path or "\0" in self.path:
            raise ValueError("a path has one character at least, and no NUL")


@dataclass(frozen=True)
class NbdkitOptions:
    """A disk that a plugin of nbdkit makes."""

    plugin: str
    parameters: tuple[str, ...] = ()  # of the plugin and the filters: KEY=VALUE
    filters: tuple[str, ...] = ()  # the first is the outermost
    export: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError."""
        for word in (self.plugin, *self.filters, *self.parameters):
            if not word or word.startswith("-") or "\0" in word:
                raise ValueError(f"{word!r} is no name of a plugin or filter, and no parameter of one")


def _open_qemu(children: Sequence[Device], options: QemuOptions, opening: Opening) -> Device:
    return QemuImage(
        options.path, options.format, read_only=opening.read_only, allowed=options.backing, notify=opening.notify
    )


def _open_nbdkit(children: Sequence[Device], options: NbdkitOptions, opening: Opening) -> Device:
    name = f"nbdkit {options.plugin}"
    if shutil.which("nbdkit") is None:
        raise OSError(errno.ENOPKG, "nbdkit is not installed: it is in the package of that name", name)
    filters = [f"--filter={each}" for each in options.filters]
    command = ["nbdkit", "-f", *(["-r"] if opening.read_only else []), *filters, options.plugin, *options.parameters]
    engine = Engine(name, command, export=options.export, timeout=SILENCE, notify=opening.notify)
    return NbdDevice(engine, replace(opening, directory=None), timeout=SILENCE, seconds=OPENING)


KINDS = (
    Kind("qemu", "An image of a format that QEMU knows, served by a qemu-nbd of its own.", _open_qemu, QemuOptions, (0, 0),
         "path", claims=lambda options: [f"file:{options.path}"], example="qemu(/srv/vm.qcow2, format=qcow2)"),
    Kind("nbdkit", "What a plugin of nbdkit makes of something, served by an nbdkit of its own.", _open_nbdkit, NbdkitOptions,
         (0, 0), "plugin", example="nbdkit(file, parameters=[/srv/disk.img])"),
)  # fmt: skip
