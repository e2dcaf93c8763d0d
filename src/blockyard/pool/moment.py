"""A moment of a protected volume as a block device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blockyard.block.device import ReadOnly, Run, merged
from blockyard.pool.pool import Pool
from blockyard.pool.space import NOWHERE
from blockyard.pool.spans import runs
from blockyard.pool.tree import Found
from blockyard.pool.volume import read_chunks


class MomentDevice(ReadOnly):
    """What a volume was at `time` (nanoseconds since 1970), to be read only. It stays until it is closed.

    Raises KeyError for no volume, NoMoment for a time that its journal does not reach.
    """

    refusal = "What has been does not change"

    def __init__(self, pool: Pool, name: str, time: int) -> None:
        self._pool = pool
        self._label = f"a moment of {name}"
        self._moment = pool.cdp.hold(name, time)
        self._tree = pool.tree(self._moment.segment.tree)
        self._open = True
        self.size = self._moment.segment.size
        self.granularity = 1 << self._tree.shift

    def _find(self, chunk: int) -> Found:
        found = self._moment.table.get(chunk)
        return self._pool.find_at(self._tree, chunk, self._moment.base) if found is None else Found(*found)

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        read_chunks(self._pool, self._tree, self._find, self._label, buffers, offset)

    def runs(self, offset: int, length: int) -> Iterator[Run]:
        return merged(self._pieces(offset, length))

    def _pieces(self, offset: int, length: int) -> Iterator[Run]:
        shift = self._tree.shift
        for run in runs(self._pool, self._tree, offset, length, self._moment.base):
            at, end = run.offset, run.offset + run.length
            for chunk, place in self._moment.table.between(at >> shift, (end - 1 >> shift) + 1):
                start, stop = max(at, chunk << shift), min(end, chunk + 1 << shift)
                if start > at:
                    yield Run(at, start - at, run.mapped)
                yield Run(start, stop - start, place != NOWHERE)
                at = stop
            if end > at:
                yield Run(at, end - at, run.mapped)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._pool.cdp.release(self._moment.segment)
