"""Volumes that become larger or smaller.

What lies beyond the end of a volume reads as zeros when it grows again, whatever happened in between: it is freed after it has
become smaller, and again before it grows.
"""

from __future__ import annotations

import errno

from blockyard.block.size import format_size
from blockyard.pool.pool import Pool
from blockyard.pool.volume import VolumeDevice


def resize(pool: Pool, name: str, size: int, *, force: bool = False) -> None:
    """Give a volume another size. Durable when this returns. Raises KeyError, OSError (ENOTEMPTY).

    Where there is data beyond a smaller one, that is refused unless `force`; snapshots keep it. Nobody may be using a volume that
    becomes smaller.
    """
    device = VolumeDevice(pool, name)
    old = device.size
    if size < old:
        _check(device, size, force)
        pool.resize(name, size)
        _free_from(device, size, old)
        pool.flush()
        return
    _free_from(device, old, old + device.granularity)
    pool.resize(name, size)


def _check(device: VolumeDevice, size: int, force: bool) -> None:
    beyond = [run for run in device.runs(size, device.size - size) if run.mapped]
    if beyond and not force:
        held = format_size(sum(run.length for run in beyond))
        what = (
            f"There is data beyond {format_size(size)}: up to {held}, the last of it before "
            f"{format_size(beyond[-1].offset + beyond[-1].length)}. It is cut off only when that is forced"
        )
        raise OSError(errno.ENOTEMPTY, what)


def _free_from(device: VolumeDevice, size: int, end: int) -> None:
    """Free what is mapped between two offsets; all of the last chunk."""
    end += -end % device.granularity
    for run in list(device.runs(size, end - size)):
        if run.mapped:
            device.discard(run.offset, run.length)
