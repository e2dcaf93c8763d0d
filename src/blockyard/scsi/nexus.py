"""An I_T_L nexus: one initiator port, one target port, one logical unit (SAM-5 4.7), and its unit attentions."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple, Protocol

from blockyard.scsi.alua import PortGroups
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey
from blockyard.scsi.traffic import pair

if TYPE_CHECKING:
    from blockyard.scsi.device_server import Unit
    from blockyard.scsi.target import LunMap
    from blockyard.scsi.task import Task


_RESET = Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED >> 8


class TargetPort(NamedTuple):
    """A SCSI target port: what VPD page 83h tells of it."""

    name: str  # iqn…,t,0x0001 (RFC 7143 §4.3)
    relative_port: int
    portal_group: int  # its target port group too

    @property
    def device_name(self) -> str:
        """The name of the SCSI target device that it belongs to."""
        return self.name.partition(",t,")[0]


def target_port(name: str, tag: int, relative_port: int | None = None) -> TargetPort:
    """The port of the target `name` that its portal group `tag` is (RFC 7143 §4.4.2); the tag stands for what is not said."""
    return TargetPort(f"{name},t,0x{tag:04x}", tag if relative_port is None else relative_port, tag)


class ITNexus(NamedTuple):
    """Who an I_T nexus is, whether it is there or not: the names of its initiator port and of its target port."""

    initiator: str
    target_port: TargetPort


class Reach(Protocol):
    """By what an initiator may use logical units: one of its sessions."""

    @property
    def luns(self) -> LunMap: ...

    def nexus(self, lun: int) -> Nexus:
        """The I_T_L nexus for the 64-bit LUN field of a PDU."""


class Nexus:
    """What a logical unit knows of one initiator.

    `gate` is None while nothing stands in the way of a plain READ or WRITE, so that the data path has
    one thing to look at. What stands in the way is a pending unit attention, or a reason that holds until it
    is lifted: a reservation of another nexus, an asymmetric access state, an access right.
    `luns` is what its initiator sees of the target, `ports` are the target's ports. `abort_tasks` is the transport's: it aborts
    all tasks of this nexus, but the one that it is given. With `read_only` its initiator has no right to change anything.
    `reach` is the transport's too: all that its initiator may use now, where a copy may go to.
    """

    __slots__ = (
        "_attentions",
        "_lock",
        "_reasons",
        "abort_tasks",
        "gate",
        "initiator",
        "luns",
        "ports",
        "priority",
        "reach",
        "read_only",
        "target_port",
        "traffic",
        "unit",
    )

    def __init__(
        self,
        unit: Unit,
        initiator: str,
        target_port: TargetPort,
        luns: LunMap | None = None,
        ports: PortGroups | None = None,
        *,
        read_only: bool = False,
    ) -> None:
        self.unit = unit
        self.initiator = initiator
        self.traffic = pair()  # what it has done
        self.target_port = target_port
        self.luns = luns
        self.read_only = read_only
        self.ports = PortGroups([target_port]) if ports is None else ports
        self.abort_tasks: Callable[[Task], None] = lambda but: None
        self.priority = 0  # COMMAND PRIORITY that SET PRIORITY has given it; 0: none
        self.reach: Callable[[], Iterable[Reach]] = lambda: ()
        self._lock = Lock()  # commands of other nexuses establish unit attentions from their threads
        self._attentions: list[int] = [Asc.POWER_ON_RESET_OR_BUS_DEVICE_RESET_OCCURRED]
        self._reasons: set[str] = set()
        self.gate: object | None = self._attentions

    @property
    def it(self) -> ITNexus:
        """The I_T nexus that it is part of."""
        return ITNexus(self.initiator, self.target_port)

    def close(self, reason: str) -> None:
        """Have every command of this nexus take the slow road, where what `reason` stands for is looked at."""
        with self._lock:
            self._reasons.add(reason)
            self._update()

    def open(self, reason: str) -> None:
        """What `reason` stands for is over."""
        with self._lock:
            self._reasons.discard(reason)
            self._update()

    def _update(self) -> None:
        self.gate = self._attentions or self._reasons or None

    def establish(self, asc: int) -> None:
        """Queue a unit attention condition (SAM-5 5.14), given as ASC << 8 | ASCQ, unless it is pending already.

        One for a reset takes the place of all others, for there is nothing left that they could tell; but not of one
        for a more thorough reset (SAM-5, unit attention condition precedence: of the 29h codes the lower ones).
        """
        with self._lock:
            if asc >> 8 == _RESET:
                if not (self._attentions and self._attentions[0] >> 8 == _RESET and self._attentions[0] < asc):
                    self._attentions[:] = [asc]
            elif asc not in self._attentions:
                self._attentions.append(asc)
            self._update()

    def take_attention(self, asc: int | None = None, *, keep: bool = False) -> CheckCondition | None:
        """The next pending unit attention, or only `asc`; it is pending no more, unless `keep` (SPC-5, UA_INTLCK_CTRL)."""
        with self._lock:
            if not self._attentions or (asc is not None and asc not in self._attentions):
                return None
            asc = self._attentions[0] if asc is None else asc
            if not keep:
                self._attentions.remove(asc)
                self._update()
        return CheckCondition(SenseKey.UNIT_ATTENTION, asc)

    def clear_attention(self, asc: int) -> None:
        """Forget one unit attention: the initiator has learnt by other means what it tells."""
        with self._lock:
            if asc in self._attentions:
                self._attentions.remove(asc)
            self._update()
