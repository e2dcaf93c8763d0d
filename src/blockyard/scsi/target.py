"""A SCSI target device: its logical units and how LUNs name them (SAM-5 4.7)."""

from __future__ import annotations

from blockyard.scsi.lun import decode_lun, encode_lun
from blockyard.scsi.sense import Asc
from blockyard.scsi.unit import AbsentUnit, LogicalUnit, Unit


class Target:
    """A target device with its logical units by LUN, from 0 to lun.MAX_LUN."""

    def __init__(self, name: str, units: dict[int, LogicalUnit]) -> None:
        self.name = name
        self.units = dict(units)
        self._absent = AbsentUnit(self)
        for lun, unit in units.items():
            encode_lun(lun)  # raises ValueError for one that cannot be addressed
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
