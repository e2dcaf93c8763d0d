"""Tapes as plain files: what is on a partition, in the format of the SIMH simulators (.tap), which many programs read and write.

A block is its length (4 bytes, little-endian), its data, a byte of 0 where the length is odd, and its length again; a filemark is
a length of 0, and FFFFFFFFh is the end of the medium. The upper four bits of a length are the class of the record, of which
only 0, good data, is understood here.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from blockyard.block.file import create, sync_directory
from blockyard.media import cartridge as cartridges
from blockyard.media.cartridge import Cartridge, Description
from blockyard.media.generations import Generation
from blockyard.media.partition import Partition
from blockyard.media.record import HEADER_LENGTH, MAX_BLOCK, Sealed

_END = 0xFFFFFFFF
_LENGTH = 4  # bytes
_EVERY = 256  # objects from one report of progress to the next

Progress = Callable[[int, int], None]  # done, of how much


def export(directory: Path, number: int, target: Path, progress: Progress) -> int:
    """Write what is on a partition of a cartridge to a new file, which others cannot read. Returns how many blocks and
    filemarks that is.

    Raises OSError: EEXIST, ENOKEY where a block is encrypted, EBUSY where a drive has written over some. Then there is
    no such file.
    """
    description = cartridges.describe(directory)
    if number >= len(description.capacities):
        raise OSError(errno.EINVAL, f"It has no partition {number}", str(directory))
    create(target, 0)
    with target.open("r+b") as file:
        try:
            partition = Partition(cartridges.data_file(directory, description, number), read_only=True)
            try:
                count = _write(partition, file, target, progress)
            except OSError:
                partition.check_unchanged()  # which says more than that what was looked for is not there
                raise
            else:
                partition.check_unchanged()  # a drive may have taken the cartridge
                return count
            finally:
                partition.close()
        except BaseException:
            target.unlink()
            raise


def _write(partition: Partition, file: BinaryIO, target: Path, progress: Progress) -> int:
    for number in range(partition.objects):
        if number % _EVERY == 0:
            progress(number, partition.objects)
        block = partition.read(number)
        if isinstance(block, Sealed):
            raise OSError(errno.ENOKEY, f"Object {number} is encrypted: only a host that has the key can copy it")
        if block is None:
            file.write(bytes(_LENGTH))
            continue
        length = len(block).to_bytes(_LENGTH, "little")
        file.writelines((length, block, bytes(len(block) % 2), length))
    file.write(_END.to_bytes(_LENGTH, "little"))
    file.flush()
    os.fsync(file.fileno())
    sync_directory(target.parent)
    progress(partition.objects, partition.objects)
    return partition.objects


def restore(
    source: Path, parent: Path, barcode: str, generation: Generation, *, capacity: int, worm: bool, progress: Progress
) -> Description:
    """Make a cartridge below `parent` with what is in a file.

    Raises OSError, EUCLEAN for a file of another kind; then there is no such cartridge.
    """
    with source.open("rb") as file, cartridges.draft(parent, barcode, generation, capacity=capacity, worm=worm) as made:
        cartridge = Cartridge(made)
        try:
            _read(file, source, cartridge, progress)
        finally:
            cartridge.close()
    return cartridges.describe(parent / barcode)


def _read(file: BinaryIO, source: Path, cartridge: Cartridge, progress: Progress) -> None:
    partition, capacity = cartridge.partitions[0], cartridge.description.capacities[0]
    size = os.fstat(file.fileno()).st_size
    while file.tell() < size:
        if partition.objects % _EVERY == 0:
            progress(file.tell(), size)
        length = _length(file, source)
        if length == _END:
            break
        if not length:
            partition.append_filemark()
            continue
        if partition.end + HEADER_LENGTH + length > capacity:
            raise OSError(errno.ENOSPC, f"More is in it than a cartridge of {capacity} bytes holds", str(source))
        partition.append(_data(file, source, length))
        if partition.checkpoint_due:
            partition.checkpoint()
    progress(size, size)


def _length(file: BinaryIO, source: Path) -> int:
    data = file.read(_LENGTH)
    length = int.from_bytes(data, "little")
    if len(data) < _LENGTH or (length > MAX_BLOCK and length != _END):
        raise _strange(file, source)
    return length


def _data(file: BinaryIO, source: Path, length: int) -> bytes:
    data = file.read(length)
    file.seek(length % 2, os.SEEK_CUR)
    if len(data) < length or _length(file, source) != length:
        raise _strange(file, source)
    return data


def _strange(file: BinaryIO, source: Path) -> OSError:
    return OSError(errno.EUCLEAN, f"What is before byte {file.tell()} is no block of a SIMH tape image", str(source))
