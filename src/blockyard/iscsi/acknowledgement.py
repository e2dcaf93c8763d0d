"""What waits for the initiator to have got everything so far: ExpStatSN in whatever it sends (RFC 7143 §4.2.2.2)."""

from __future__ import annotations

from collections.abc import Callable

from blockyard.iscsi.pdu import serial_less


class _Awaited:
    __slots__ = ("stat_sn", "then")

    def __init__(self, then: Callable[[], None]) -> None:
        self.then = then
        self.stat_sn: int | None = None  # before which everything must have come; not known until all that is packed


class Acknowledgements:
    """Those that are waited for on one connection."""

    def __init__(self) -> None:
        self.awaited: list[_Awaited] = []  # mostly none: then nobody has to look at what is acknowledged

    def expect(self, then: Callable[[], None]) -> Callable[[int], None]:
        """Have `then` called when all has come that stands before a StatSN, for which call what is returned."""
        awaited = _Awaited(then)
        self.awaited.append(awaited)

        def known(stat_sn: int) -> None:
            awaited.stat_sn = stat_sn

        return known

    def reach(self, exp_stat_sn: int) -> None:
        """The initiator has got everything before this StatSN."""
        if not self.awaited:
            return
        reached = [a for a in self.awaited if a.stat_sn is not None and not serial_less(exp_stat_sn, a.stat_sn)]
        self.awaited = [a for a in self.awaited if a not in reached]
        for awaited in reached:
            awaited.then()

    def abandon(self) -> None:
        """The connection is gone: there is nobody any more who could get things in a wrong order."""
        abandoned, self.awaited = self.awaited, []
        for awaited in abandoned:
            awaited.then()
