"""Measurements as text that Prometheus reads: its own format, and OpenMetrics.

https://prometheus.io/docs/instrumenting/exposition_formats/ and https://prometheus.io/docs/specs/om/open_metrics_spec/.
The two differ in how a family is named, in the type of what only informs, and in the end mark.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import accumulate
from operator import add
from typing import NamedTuple


class Kind(StrEnum):
    COUNTER = "counter"  # only grows, until a process begins anew
    GAUGE = "gauge"
    INFO = "info"  # labels are what it tells; its value is 1
    HISTOGRAM = "histogram"  # how many were at most so large, how many there were, and their sum


_SUFFIXES = {Kind.COUNTER: "_total", Kind.GAUGE: "", Kind.INFO: "_info", Kind.HISTOGRAM: ""}


@dataclass(frozen=True)
class Family:
    """What is measured: the name without its suffix, what it means, and the names of its labels."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()

    @property
    def sample(self) -> str:
        """The name of its samples."""
        return self.name + _SUFFIXES[self.kind]


class Histogram(NamedTuple):
    """`counts` has one more than `bounds`: what is beyond all of them. Not cumulative."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float


class Measured:
    """Values by family and label values, the families in the order in which they came: no series can stand there twice."""

    def __init__(self) -> None:
        self.time = time.time()
        self._values: dict[Family, dict[tuple[str, ...], float]] = {}
        self._histograms: dict[Family, dict[tuple[str, ...], Histogram]] = {}

    def set(self, family: Family, value: float, *labels: str) -> None:
        """What it is; a series that is set twice has the last value."""
        assert len(labels) == len(family.labels)
        self._values.setdefault(family, {})[labels] = value

    def add(self, family: Family, value: float, *labels: str) -> None:
        """So much more."""
        self.set(family, self._values.get(family, {}).get(labels, 0) + value, *labels)

    def observe(self, family: Family, histogram: Histogram, *labels: str) -> None:
        """A histogram, added to what there is of the same labels."""
        assert len(labels) == len(family.labels)
        before = self._histograms.setdefault(family, {}).get(labels)
        if before is not None:
            counts = tuple(map(add, before.counts, histogram.counts))
            histogram = Histogram(histogram.bounds, counts, before.sum + histogram.sum)
        self._histograms[family][labels] = histogram

    def families(self) -> Iterator[tuple[Family, Mapping[tuple[str, ...], float | Histogram]]]:
        """Everything that was measured, by the values of its labels."""
        yield from self._values.items()
        yield from self._histograms.items()

    def text(self, *, openmetrics: bool) -> bytes:
        """All of it in one of the two formats."""
        lines = [line for family in self._values for line in self._lines(family, openmetrics)]
        lines += [line for family in self._histograms for line in self._histogram_lines(family)]
        if openmetrics:
            lines.append("# EOF")
        return "".join(f"{line}\n" for line in lines).encode()

    def _lines(self, family: Family, openmetrics: bool) -> Iterator[str]:
        sample = family.sample
        name = family.name if openmetrics else sample
        kind = Kind.GAUGE if family.kind is Kind.INFO and not openmetrics else family.kind
        yield f"# HELP {name} {family.help}"
        yield f"# TYPE {name} {kind}"
        for labels, value in self._values[family].items():
            pairs = _pairs(family, labels)
            yield f"{sample}{{{pairs}}} {value}" if pairs else f"{sample} {value}"

    def _histogram_lines(self, family: Family) -> Iterator[str]:
        yield f"# HELP {family.name} {family.help}"
        yield f"# TYPE {family.name} {family.kind}"
        for labels, histogram in self._histograms[family].items():
            pairs = _pairs(family, labels)
            comma, braces = ("," if pairs else ""), (f"{{{pairs}}}" if pairs else "")
            bounds = (*map(repr, histogram.bounds), "+Inf")
            for bound, count in zip(bounds, accumulate(histogram.counts), strict=True):
                yield f'{family.name}_bucket{{{pairs}{comma}le="{bound}"}} {count}'
            yield f"{family.name}_sum{braces} {histogram.sum}"
            yield f"{family.name}_count{braces} {sum(histogram.counts)}"


def _pairs(family: Family, labels: tuple[str, ...]) -> str:
    return ",".join(f'{label}="{_escaped(text)}"' for label, text in zip(family.labels, labels, strict=True))


def _escaped(text: str) -> str:
    """A label value between its quotes. What is no UTF-8, such as a file's name, keeps its bytes as escapes."""
    readable = text.encode("utf-8", "backslashreplace").decode()
    return readable.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
