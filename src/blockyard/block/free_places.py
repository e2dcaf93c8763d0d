"""Where a growing image has room: at its end, and where blocks have been."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 1 << 20  # places that are taken in at opening: a file may have holes without end


class FreePlaces:
    """Places of `stride` bytes. What is in them is unknown, and what points to them on disk may still do so.

    A place that is released can be taken only when what no longer points to it is on stable storage: `settle` has to be
    told.
    """

    def __init__(self, stride: int) -> None:
        self.stride = stride
        self.free: list[int] = []
        self._released: list[int] = []

    def find(self, used: Iterable[tuple[int, int]], start: int, end: int, *, align: int = 1, lead: int = 0) -> int:
        """Take in the gaps between `used` (position and length), from `start` to `end`; how many bytes are in no place.

        Places begin `lead` bytes before a multiple of `align`.
        """
        lost, at = 0, start
        for position, length in [*sorted(used), (end, 0)]:
            place = -(-(at + lead) // align) * align - lead
            while place + self.stride <= position and len(self.free) < _MOST:
                self.free.append(place)
                place += -(-self.stride // align) * align
                at = place
            lost += max(0, position - at)
            at = max(at, position + length)
        self.free.reverse()  # the first are taken first
        return lost

    def take(self) -> int | None:
        return self.free.pop() if self.free else None

    def release(self, place: int) -> None:
        self._released.append(place)

    def released(self) -> list[int]:
        """What has been released so far: to be given to `settle` after the next flush."""
        return list(self._released)

    def settle(self, places: list[int]) -> list[int]:
        """Nothing points to these any more, whatever happens. Returns those that are free because of that."""
        settled = set(places).intersection(self._released)
        self._released = [place for place in self._released if place not in settled]
        self.free += settled
        return sorted(settled)
