"""Disk images by their formats: found out, opened, made, converted, merged and compacted.

VHD and VHDX are our own; all others are left to QEMU (engines/), which serves them to us.

A file without a format is raw, and whoever may write to a raw disk may make it look like any image. So the format of a volume is
what its configuration says; it is found out only where that says "auto".
"""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass, field

from blockyard.block.device import Device
from blockyard.block.engines import formats as foreign
from blockyard.block.engines.qemu import QemuImage
from blockyard.block.file import FileDevice
from blockyard.block.file import create as create_file
from blockyard.block.image import BlockImage, Progress
from blockyard.block.image_states import ImageError
from blockyard.block.layers import Notify, unheard
from blockyard.block.parents import Chain, ParentOf, Wanted
from blockyard.block.vhd import DynamicVhd, FixedVhd, find_footer, open_vhd
from blockyard.block.vhd_creation import write_vhd
from blockyard.block.vhd_layout import SECTOR
from blockyard.block.vhdx import Vhdx, open_vhdx
from blockyard.block.vhdx_creation import locator_pairs, write_vhdx
from blockyard.block.vhdx_file import vhdx_size
from blockyard.block.vhdx_layout import SIGNATURE

RAW, VHD, VHDX, AUTO = "raw", "vhd", "vhdx", "auto"
FORMATS = (RAW, VHD, VHDX, AUTO, *foreign.FORMATS)
MADE = (RAW, VHD, VHDX, *foreign.WRITABLE)
READ_ONLY = tuple(name for name in foreign.FORMATS if name not in foreign.WRITABLE)
_ENDINGS = {".vhd": VHD, ".avhd": VHD, ".vhdx": VHDX, ".avhdx": VHDX, ".hdd": "parallels"}
_ENDINGS |= {f".{name}": name for name in foreign.FORMATS if name != "parallels"}
KINDS = ("dynamic", "fixed")
_PIECE = 1 << 20  # bytes that are copied at a time
_GRANULE = 1 << 16  # bytes of zeros that are left out of a copy

Image = FixedVhd | DynamicVhd | Vhdx


def _quiet(done: int, total: int) -> None:
    """Nobody looks at the progress."""


def detect(below: Device) -> str:
    """The format of a file, by what it begins or ends with; "raw" for what is none of the images that are known."""
    first, last = bytearray(min(SECTOR, below.size)), bytearray(SECTOR)
    below.preadv([memoryview(first)], 0)
    below.preadv([memoryview(last)], below.size - SECTOR)
    return format_of(bytes(first), bytes(last))


def format_of(first: bytes, last: bytes) -> str:
    """The same, by its first and its last sector."""
    if first.startswith(SIGNATURE):
        return VHDX
    if first.startswith(b"conectix") or last.startswith(b"conectix"):
        return VHD
    return foreign.looks_like(first) or ("dmg" if last.startswith(b"koly") else RAW)


def format_of_name(path: str | os.PathLike[str]) -> str:
    """The format that the ending of a name speaks of; "raw" for all others."""
    return _ENDINGS.get(os.path.splitext(path)[1].lower(), RAW)


def looks_like(path: str | os.PathLike[str]) -> str:
    """The format that a file seems to have, whoever has it open. Raises OSError."""
    below = FileDevice(path, read_only=True, lock=False)
    try:
        return detect(below)
    finally:
        below.close()


def open_image(
    path: str | os.PathLike[str],
    format: str = AUTO,
    *,
    read_only: bool = False,
    lock: bool = True,
    backing: str = "",
    notify: Notify = unheard,
) -> Device:
    """The disk in a file. Its parents are open for reading only. Raises OSError (ImageError for what is wrong with an image).

    `backing` is the directory where images of other formats may have files that they stand on; "": nowhere.
    """
    if format == AUTO:
        format = looks_like(path)
    if format in foreign.FORMATS:
        return QemuImage(os.fspath(path), format, read_only=read_only, allowed=backing, notify=notify)
    chain = Chain(
        os.fspath(path), lambda parent, kind, parent_of: _open(parent, kind, parent_of, read_only=True, lock=lock)
    )
    device = _open(os.fspath(path), format, chain.parent_of, read_only=read_only, lock=lock)
    if isinstance(device, FixedVhd) and not read_only:
        device.mark_modified()  # the data path writes by the descriptor, without a word to it
    return device


def _open(path: str, kind: str, parent_of: ParentOf, *, read_only: bool, lock: bool) -> Device:
    below = FileDevice(path, read_only=read_only, lock=lock)
    try:
        if kind == AUTO:
            kind = detect(below)
        if kind in foreign.FORMATS:
            raise ImageError(path, f"it is of the format {kind}, which has no place in a chain of VHD and VHDX images")
        if kind == RAW:
            return below
        return open_vhdx(below, path, parent_of) if kind == VHDX else open_vhd(below, path, parent_of)
    except BaseException:
        below.close()
        raise


def create_image(
    path: str | os.PathLike[str],
    format: str,
    size: int = 0,
    *,
    kind: str = "dynamic",
    block_size: int = 0,
    sector_size: int = 0,
    parent: str | None = None,
) -> None:
    """Make an image; with `parent` a differencing one, of its size unless `size` says otherwise. Raises OSError."""
    path = os.fspath(path)
    if parent is not None:
        above = open_image(parent, format, read_only=True)
        try:
            _create(path, format, size or above.size, "differencing", block_size, sector_size, above)
        finally:
            above.close()
    else:
        _create(path, format, size, kind, block_size, sector_size, None)


def _create(
    path: str, kind: str, size: int, type_: str, block_size: int, sector_size: int, parent: Device | None
) -> None:
    if kind in foreign.FORMATS:
        _create_foreign(path, kind, size, type_, block_size)
        return
    if kind == RAW:
        create_file(path, size)
        if type_ == "fixed":
            _reserve(path)
        return
    create_file(path, SECTOR)
    try:
        below = FileDevice(path)
        try:
            if kind == VHD:
                write_vhd(below, path, size, type_, block_size=block_size, parent=parent)
            else:
                write_vhdx(below, path, size, type_, block_size=block_size, sector_size=sector_size, parent=parent)
        finally:
            below.close()
        if type_ == "fixed":
            _reserve(path)
    except BaseException:
        os.unlink(path)
        raise


def _create_foreign(path: str, kind: str, size: int, type_: str, block_size: int) -> None:
    if type_ != "dynamic" or kind not in foreign.WRITABLE or (block_size and kind != "qcow2"):
        what = f"blocks of {block_size} bytes" if block_size else f"kind {type_}"
        raise ImageError(path, f"{what}: images of the format {kind} are made dynamic or not at all")
    create_file(path, 0)  # nobody else may read it, and none is there yet
    try:
        options = ("-o", f"cluster_size={block_size}") if block_size else ()
        foreign.tool("create", "-q", "-f", kind, *options, os.path.abspath(path), str(size))
    except BaseException:
        os.unlink(path)
        raise


def _reserve(path: str) -> None:
    """Have the file system give a file all of its space."""
    with open(path, "r+b") as file:
        os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)


@dataclass
class Information:
    """What there is to know of an image."""

    path: str
    format: str
    kind: str
    size: int  # of the disk, in bytes
    file_size: int
    used: int  # bytes of its file system
    block_size: int = 0
    sector_size: int = 512
    identifier: str = ""
    parents: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lost: int = 0  # bytes of the file that belong to nothing


def describe(path: str | os.PathLike[str], format: str = AUTO, *, lock: bool = True, backing: str = "") -> Information:
    """Look at an image, without changing anything. Raises OSError."""
    if format == AUTO:
        format = looks_like(path)
    if format in foreign.FORMATS:
        return _describe_foreign(os.fspath(path), format, backing)
    device = open_image(path, format, read_only=True, lock=lock)
    try:
        status = os.stat(path)
        found = Information(
            os.fspath(path), RAW, "sparse" if status.st_blocks * 512 < status.st_size else "fixed",
            device.size, status.st_size, status.st_blocks * 512,
        )  # fmt: skip
        if isinstance(device, FixedVhd | DynamicVhd | Vhdx):
            found.format, found.kind, found.notes = device.format, device.kind, device.notes
            found.identifier = str(device.data_write if isinstance(device, Vhdx) else device.identifier)
        if isinstance(device, BlockImage):
            found.block_size, found.sector_size = device.block_size, device.sector_size
        if isinstance(device, DynamicVhd | Vhdx):
            found.lost = device.lost
        parent = getattr(device, "parent", None)
        while parent is not None:
            found.parents.append(parent.path)
            parent = parent.parent
        return found
    finally:
        device.close()


def _describe_foreign(path: str, format: str, backing: str | None = None) -> Information:
    one = backing is None
    found, *parents = [foreign.inspected(path, format)] if one else foreign.chain(path, format, backing or "")
    return Information(
        path, format, "differencing" if found.backing else "dynamic", found.size, found.file_size, found.used,
        found.block_size, parents=[parent.path for parent in parents] or list(filter(None, [found.backing])),
        notes=found.notes,
    )  # fmt: skip


def disk_size(path: str | os.PathLike[str], format: str) -> int:
    """The size of the disk in an image that somebody may have open: what moves meanwhile is not looked at. Raises OSError."""
    if format in foreign.FORMATS:
        return foreign.inspected(os.fspath(path), format).size
    below = FileDevice(path, read_only=True, lock=False)
    try:
        name = os.fspath(path)
        return vhdx_size(below, name) if format == VHDX else find_footer(below, name)[0].size
    finally:
        below.close()


def convert(
    source: str,
    target: str,
    format: str,
    *,
    source_format: str = AUTO,
    kind: str = "dynamic",
    block_size: int = 0,
    backing: str = "",
    progress: Progress = _quiet,
) -> None:
    """Copy a disk into an image of another format; a chain becomes one image. Raises OSError, and leaves no half image."""
    device = open_image(source, source_format, read_only=True, backing=backing)
    try:
        sector_size = device.sector_size if isinstance(device, Vhdx) and format == VHDX else 0
        create_image(target, format, device.size, kind=kind, block_size=block_size, sector_size=sector_size)
        try:
            image = open_image(target, format)
            try:
                _copy(device, image, progress)
                image.flush()
            finally:
                image.close()
        except BaseException:
            os.unlink(target)
            raise
    finally:
        device.close()


def _copy(source: Device, target: Device, progress: Progress) -> None:
    """All of a disk, but for zeros, into one that is new."""
    for run in source.runs(0, source.size):
        for at in range(run.offset, run.offset + run.length, _PIECE) if run.mapped else ():
            data = bytearray(min(_PIECE, run.offset + run.length - at))
            source.preadv([memoryview(data)], at)
            _write_data(target, data, at)
            progress(at + len(data), source.size)
        progress(run.offset + run.length, source.size)


def _write_data(target: Device, data: bytearray, offset: int) -> None:
    """Write what is not zero, in runs of granules."""
    start = None
    for at in range(0, len(data) + _GRANULE, _GRANULE):
        piece = data[at : at + _GRANULE]
        if piece.count(0) != len(piece):
            start = at if start is None else start
        elif start is not None:
            target.pwritev([memoryview(data)[start:at]], offset + start)
            start = None


def resize(path: str, size: int, format: str = AUTO) -> None:
    """Let a disk grow. Raises OSError."""
    format = looks_like(path) if format == AUTO else format
    if format in foreign.FORMATS:
        old = foreign.inspected(path, format).size
        if size < old:
            raise ImageError(path, f"it has {old} bytes: it cannot shrink, data would be cut off")
        foreign.tool("resize", "-q", "-f", format, os.path.abspath(path), str(size))
        return
    device = open_image(path, format)
    try:
        if isinstance(device, FileDevice):
            if size < device.size:
                raise ImageError(path, f"it has {device.size} bytes: it cannot shrink, data would be cut off")
            device.truncate(size)
        elif isinstance(device, FixedVhd | DynamicVhd | Vhdx):
            device.grow(size)
        device.flush()
    finally:
        device.close()


def compact(path: str, format: str = AUTO, *, progress: Progress = _quiet) -> None:
    """Free blocks of zeros, move the others together, and cut the file off behind them. Raises OSError."""
    device = open_image(path, format)
    try:
        if not isinstance(device, DynamicVhd | Vhdx) or device.kind == "fixed":
            raise ImageError(path, "it is not dynamic: all of its space is its own")
        device.free_zeros(progress)
        while device.move_down(progress):
            device.flush()
        device.shorten()
    finally:
        device.close()


def merge(path: str, format: str = AUTO, *, progress: Progress = _quiet) -> str:
    """Bring what a differencing image has into its parent, whose path is returned. The child is not needed any more then.

    An interrupted merge can be begun again: until it is done the child stands on its parent as before. Raises OSError.
    """
    child = open_image(path, format, read_only=True)
    above = getattr(child, "parent", None)
    child.close()
    if above is None:
        raise ImageError(path, "it has no parent that it could be merged into")
    chain = Chain(path, lambda name, kind, parent_of: _open(name, kind, parent_of, read_only=True, lock=True))
    parent = _open(above.path, above.format, chain.parent_of, read_only=False, lock=True)
    try:
        _merge(path, parent, progress)
    finally:
        parent.close()
    return str(above.path)


def _merge(path: str, parent: Device, progress: Progress) -> None:
    def parent_of(wanted: Wanted) -> Device:
        refusal = wanted.refusal(parent)
        if refusal is not None:
            raise ImageError(wanted.child, f"{refusal}")
        return parent

    child = _open(path, AUTO, parent_of, read_only=False, lock=True)
    assert isinstance(child, DynamicVhd | Vhdx)
    try:
        if isinstance(child, Vhdx) and isinstance(parent, Vhdx):
            new = (
                uuid.uuid4()
            )  # what the parent is called with the child's data in it: the child knows it by either name
            child.set_parent(locator_pairs(path, parent, new))
            child.leave_log()
            parent.merge_quietly(new)
        elif isinstance(parent, DynamicVhd):
            parent.merge_quietly()
        if child.size > parent.size:
            assert isinstance(parent, FixedVhd | DynamicVhd | Vhdx)
            parent.grow(child.size)
        for piece in child.own_pieces():
            if piece.position < 0:
                parent.discard(piece.offset, piece.length)
            for at in range(piece.offset, piece.offset + piece.length, _PIECE) if piece.position >= 0 else ():
                data = bytearray(min(_PIECE, piece.offset + piece.length - at))
                child.preadv([memoryview(data)], at)
                parent.pwritev([data], at)
            progress(piece.offset + piece.length, child.size)
        parent.flush()
        if isinstance(parent, FixedVhd | DynamicVhd):
            parent.mark_modified()
            parent.flush()
    finally:
        child.parent = None  # whoever has opened it closes it
        child.close()


def check(path: str, format: str = AUTO, *, mend: bool = False) -> Information:
    """What an image is like, all of its metadata looked at; with `mend` after what can be brought in order was."""
    format = looks_like(path) if format == AUTO else format
    if format in foreign.FORMATS:
        found = _describe_foreign(path, format)
        found.notes += foreign.checked(path, format, mend=mend)
        return found
    return repair(path, format) if mend else describe(path, format)


def repair(path: str, format: str = AUTO) -> Information:
    """Bring an image that was not closed cleanly in order; what it is like then. Raises OSError for what cannot be mended."""
    chain = Chain(path, lambda name, kind, parent_of: _open(name, kind, parent_of, read_only=True, lock=True))
    device = _open(path, format, chain.parent_of, read_only=False, lock=True)
    try:
        if isinstance(device, FixedVhd | DynamicVhd | Vhdx) and device.notes:
            device.repair()
    finally:
        device.close()
    return describe(path, format)
