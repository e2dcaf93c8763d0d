"""Images of every format that QEMU knows as block devices, by way of qemu-nbd."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil

from blockyard.block.device import Space
from blockyard.block.engines.engine import OPENING, Engine
from blockyard.block.engines.formats import WRITABLE, Found, chain, checked
from blockyard.block.file import lock_file
from blockyard.block.layers import Notify, Opening
from blockyard.block.nbd.device import NbdDevice

SILENCE = 120.0  # seconds: a flush on a slow disk may take long, and who serves is known to be alive


class QemuImage(NbdDevice):
    """The disk in an image of `format`. Files that it stands on have to be in the directory `allowed`; raises OSError."""

    kind = "dynamic"
    parent = None

    def __init__(self, path: str, format: str, *, read_only: bool, notify: Notify, allowed: str = "") -> None:
        if shutil.which("qemu-nbd") is None:
            raise OSError(errno.ENOPKG, "qemu-nbd is not installed: it is in the package qemu-utils or qemu-nbd", path)
        if not read_only and format not in WRITABLE:
            raise OSError(errno.EROFS, f"An image of the format {format} can only be read: serve it read-only", path)
        self.path = os.path.abspath(path)
        self.format = format
        self._file = os.open(path, (os.O_RDONLY if read_only else os.O_RDWR) | os.O_CLOEXEC)
        try:
            lock_file(self._file, path, shared=read_only)
            self.chain = list(chain(path, format, allowed))
            engine = Engine(
                path, command(self.path, format, read_only=read_only), timeout=SILENCE, notify=notify,
                prepare=self._mend if format == "parallels" and not read_only else None,
            )  # fmt: skip
            super().__init__(engine, Opening(read_only=read_only, notify=notify), timeout=SILENCE, seconds=OPENING)
        except BaseException:
            os.close(self._file)
            raise

    def _mend(self) -> None:
        """QEMU does not write to an image of Parallels that was not closed, until it has been checked."""
        checked(self.path, self.format, mend=True)

    @property
    def found(self) -> Found:
        """What was seen of the image when it was opened."""
        return self.chain[0]

    def space(self) -> Space | None:
        with contextlib.suppress(OSError):
            free, used = os.fstatvfs(self._file), os.fstat(self._file)
            return Space(free.f_bavail * free.f_frsize, used.st_blocks * 512)
        return None

    def refresh(self) -> None:
        """An image does not change its size while it is open."""

    def close(self) -> None:
        try:
            super().close()
        finally:
            os.close(self._file)


def command(path: str, format: str, *, read_only: bool) -> list[str]:
    """How qemu-nbd is called. It ends with its last connection. Options are named, so that no part of a path can be one."""
    options = f"driver={format},file.driver=file,file.filename={path.replace(',', ',,')}"
    return [
        "qemu-nbd", "--image-opts", options, "--cache=writeback", "--discard=unmap", *(["--read-only"] if read_only else []),
    ]  # fmt: skip
