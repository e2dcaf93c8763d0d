"""A SCSI target device: its logical units and how LUNs name them (SAM-5 4.7)."""

from __future__ import annotations

from blockyard.scsi.sense import Asc
from blockyard.scsi.unit import AbsentUnit, LogicalUnit, Unit

MAX_LUN = (1 << 14) - 1  # what flat space addressing can name


class Target:
    """A target device with its logical units by LUN, from 0 to MAX_LUN."""

    def __init__(self, name: str, units: dict[int, LogicalUnit]) -> None:
        self.name = name
        self.units = dict(units)
        self._absent = AbsentUnit(self)
        for lun, unit in units.items():
            if not 0 <= lun <= MAX_LUN:
                raise ValueError(f"LUN {lun} is not between 0 and {MAX_LUN}")
            unit.target = self

    def unit(self, lun_field: int) -> Unit:
        """The logical unit that the 64-bit LUN field of a transport names, or what stands for one that is not there."""
        return self.units.get(decode_lun(lun_field), self._absent)

    def inventory(self) -> list[int]:
        """The LUNs as 64-bit fields, in ascending order."""
        return [encode_lun(lun) for lun in sorted(self.units)]

    def luns_changed(self) -> None:
        """Logical units have come or gone: tell every nexus (SPC-5)."""
        for unit in self.units.values():
            unit.target = self
            unit.attention(Asc.REPORTED_LUNS_DATA_HAS_CHANGED)


def encode_lun(lun: int) -> int:
    """A LUN as a 64-bit field: peripheral device addressing where it fits, else flat space (SAM-5 4.7)."""
    return (lun if lun < 256 else 0x4000 | lun) << 48


def decode_lun(field: int) -> int:
    """The LUN that a 64-bit field names; -1 for one in a form that no unit here has."""
    first = field >> 48
    method, number = first >> 14, first & 0x3FFF
    if field & ((1 << 48) - 1):  # further levels of a hierarchy
        return -1
    if method == 1 or (method == 0 and number < 256):  # flat space; peripheral device on bus 0
        return number
    return -1
