"""A SCSI target device: its logical units and how LUNs name them (SAM-5 4.7)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from blockyard.scsi.alua import PortGroup, PortGroups
from blockyard.scsi.device_server import AbsentUnit, Unit
from blockyard.scsi.durable import Durable
from blockyard.scsi.lun import decode_lun, encode_lun
from blockyard.scsi.nexus import TargetPort, target_port
from blockyard.scsi.primary import PrimaryUnit
from blockyard.scsi.sense import Asc


class LunMap:
    """Logical units by LUN, from 0 to lun.MAX_LUN: what one initiator sees of a target.

    One logical unit may be in several maps, under different numbers.
    """

    def __init__(self, units: Mapping[int, PrimaryUnit]) -> None:
        for lun in units:
            encode_lun(lun)  # raises ValueError for one that cannot be addressed
        self.units = dict(units)
        self.source: LunMap = self  # where the units come from: another map when this one puts others before them
        self._absent = AbsentUnit()

    def unit(self, lun_field: int) -> Unit:
        """The logical unit that the 64-bit LUN field of a transport names, or what stands for one that is not there."""
        return self.units.get(decode_lun(lun_field), self._absent)

    def resettable(self) -> Collection[PrimaryUnit]:
        """The logical units that a reset of the target concerns, as whoever asks for it sees them."""
        return self.units.values()

    def inventory(self) -> list[int]:
        """The LUNs as 64-bit fields, in ascending order."""
        return [encode_lun(lun) for lun in sorted(self.units)]

    def change(self, units: Mapping[int, PrimaryUnit]) -> None:
        """Other units are seen from now on, and every nexus that sees any of them is told (SPC-5, REPORT LUNS)."""
        if units != self.units:
            self.units = dict(units)
            self.luns_changed()

    def close(self) -> None:
        """Nobody sees anything through this map any more."""

    def luns_changed(self) -> None:
        """Logical units have come or gone: tell every nexus that sees them through this map (SPC-5)."""
        for unit in self.units.values():
            for nexus in unit.nexuses:
                if nexus.luns is not None and nexus.luns.source is self:
                    nexus.establish(Asc.REPORTED_LUNS_DATA_HAS_CHANGED)


class Target:
    """A target device: a name, the logical units that an initiator sees for whom nothing else was said, and its ports.

    `durable` keeps the states of its ports, which begin as `port_groups` says. Without any `ports`, there is that of portal
    group 1.
    """

    def __init__(
        self,
        name: str,
        units: Mapping[int, PrimaryUnit],
        ports: Iterable[TargetPort] = (),
        durable: Durable | None = None,
        port_groups: Mapping[int, PortGroup] | None = None,
    ) -> None:
        self.name = name
        self.luns = LunMap(units)
        self.ports = PortGroups(tuple(ports) or (target_port(name, 1),), durable, port_groups)
