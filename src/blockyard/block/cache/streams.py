"""Who reads in sequence, and what he will want next.

Reads that miss are looked at: three that go on from one another, nearly in order (several are under way at once), make a stream.
From then on lines are read ahead of it in a window that doubles up to `largest`. The first line of each window has a mark: who
comes to it makes the next window be read, while he goes through the one that is there. So a stream costs nothing where it hits.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

_FIRST = 32  # lines of the first window
_NEAR = 64  # lines from the end of a stream within which a read may begin
_ENOUGH = 3  # reads that make a stream
_MOST = 32  # streams at a time, and as many beginnings of some


@dataclass
class Stream:
    """Reads that go on from one another. Everything is in lines."""

    end: int  # up to where they went, or up to where has been read ahead
    reads: int = 1
    window: int = _FIRST


class Streams:
    """Streams of one device. Not thread-safe: whoever owns it has a lock."""

    def __init__(self, largest: int) -> None:
        self.largest = largest  # lines; 0: nothing is read ahead
        self._young: list[Stream] = []
        self._marks: OrderedDict[int, Stream] = OrderedDict()  # line → whose mark it has

    def missed(self, first: int, end: int) -> range | None:
        """A read has missed: which lines to read ahead, if it belongs to a stream."""
        if not self.largest:
            return None
        for stream in self._young:
            if -_NEAR <= first - stream.end <= _NEAR:
                if end > stream.end:
                    stream.end = end
                    stream.reads += 1
                if stream.reads < _ENOUGH:
                    return None
                self._young.remove(stream)
                return self._ahead(stream)
        self._young.append(Stream(end))
        del self._young[:-_MOST]
        return None

    def reached(self, line: int) -> range | None:
        """Somebody has come to a line with a mark."""
        stream = self._marks.pop(line, None)
        return None if stream is None else self._ahead(stream)

    def _ahead(self, stream: Stream) -> range:
        wanted = range(stream.end, stream.end + min(stream.window, self.largest))
        stream.end = wanted.stop
        stream.window = min(stream.window * 2, self.largest)
        self._marks[wanted.start] = stream
        while len(self._marks) > _MOST:
            self._marks.popitem(last=False)
        return wanted
