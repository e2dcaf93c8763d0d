"""Thin provisioning's resources and thresholds (SBC-4, logical block provisioning thresholds).

A thin unit lives on space that it shares with others: its file system's. How much of that is left, and how much the unit
uses, is what its initiators can ask for (log page 0Ch) and be warned of (mode page 1Ch/02h): when a threshold is crossed
every nexus gets one unit attention, and the next only after the resources have been on the good side again.

Counts are of threshold sets of 2 to the power of `exponent` blocks (VPD page B2h): of 1 MiB, or more where 32 bits would
not do. Nothing of this is on the data path: a worker looks at its units now and then.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.scsi.sense import Asc

if TYPE_CHECKING:
    from blockyard.block.device import Space
    from blockyard.scsi.unit import LogicalUnit

_PAGE, _SUBPAGE = 0x1C, 0x02
_SET = 20  # bits of a byte count that a threshold set has at least
_MOST = 0xFFFFFFFF
_AVAILABLE, _USED = 0x0001, 0x0002  # parameter codes of resource counts: the numbers of threshold resources too
_SHARED, _DEDICATED = 2, 1  # SCOPE: resources that other logical units use as well, and those of this one alone


def threshold_exponent(unit: LogicalUnit) -> int:
    """THRESHOLD EXPONENT: 0 where there are no thresholds."""
    if not unit.thin:
        return 0
    return max(_SET - unit.shift, unit.blocks.bit_length() - 32)


def sets(unit: LogicalUnit, size: int) -> int:
    """Bytes in threshold sets, as 32 bits can tell it."""
    return min(size >> unit.shift + threshold_exponent(unit), _MOST)


def mode_defaults(unit: LogicalUnit, threshold: int) -> dict[str, int]:
    """Fields of mode page 1Ch/02h for a warning when no more than `threshold` bytes are left; 0: for none."""
    return {"available_enabled": 1, "available_count": sets(unit, threshold)} if threshold else {}


def log_parameters(unit: LogicalUnit) -> bytes:
    """The log parameters of the Logical Block Provisioning log page (0Ch): none where nobody knows."""
    space = unit.device.space() if unit.thin else None
    if space is None:
        return b""
    return _parameter(_AVAILABLE, sets(unit, space.available), _SHARED) + _parameter(
        _USED, sets(unit, space.used), _DEDICATED
    )


def _parameter(code: int, count: int, scope: int) -> bytes:
    return struct.pack(">HBBIB3x", code, 0x03, 8, count, scope)  # FORMAT AND LINKING 11b: a binary list parameter


class Thresholds:
    """The thresholds of one unit: which of them its resources have crossed."""

    def __init__(self, unit: LogicalUnit) -> None:
        self._unit = unit
        self._crossed: set[str] = set()
        self.armed = False  # there is something to look at

    def update(self) -> None:
        """Mode parameters may have changed."""
        unit = self._unit
        enabled = (unit.mode.get(_PAGE, f"{name}_enabled", _SUBPAGE) for name in ("available", "used"))
        self.armed = unit.thin and any(enabled)

    def look(self, space: Space | None) -> None:
        """Compare the thresholds with the space that there is, and warn every nexus of those that were crossed."""
        crossed = set() if space is None else self._find(space)
        if crossed - self._crossed:
            self._unit.attention(Asc.THIN_PROVISIONING_SOFT_THRESHOLD_REACHED)
        self._crossed = crossed

    def _find(self, space: Space) -> set[str]:
        unit = self._unit

        def value(name: str) -> int:
            return unit.mode.get(_PAGE, name, _SUBPAGE)

        crossed = set()
        if value("available_enabled") and sets(unit, space.available) <= value("available_count"):
            crossed.add("available")
        if value("used_enabled") and sets(unit, space.used) >= value("used_count"):
            crossed.add("used")
        return crossed
