"""Loss of power with a journal: every moment before the last flush is what it was, whatever has reached the disk since."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from blockyard.pool.cdp import SECOND
from blockyard.pool.clock import Clock
from blockyard.pool.moment import MomentDevice
from blockyard.pool.pool import Pool
from tests.pool.test_power import Power


class ProtectedPower(Power):
    """As Power, with volume a protected."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000 * SECOND
        self.stable: list[tuple[int, list[bytes]]] = []  # moments that a flush has made stable
        self.fresh: list[tuple[int, list[bytes]]] = []
        super().__init__()
        self.pool.cdp.turn_on("a", time=0)

    def open(self) -> None:
        self.wall += SECOND
        boot = f"boot-{self.boot}".ljust(36)
        self.pool = Pool(self.directory, lambda name: self.disk, boot=boot, clock=Clock(lambda: self.wall, lambda: 0))

    def _all_is_stable(self) -> None:
        super()._all_is_stable()
        self.stable += self.fresh
        self.fresh.clear()

    @rule(data=st.data(), in_commit=st.booleans(), same_boot=st.just(False))
    def the_power_fails(self, data: Any, in_commit: bool, same_boot: bool) -> None:
        self.fresh.clear()
        super().the_power_fails(data, in_commit, same_boot)
        self.moments_are_what_they_were()

    @rule()
    def a_segment_ends(self) -> None:
        self.wall += 3600 * SECOND
        while self.pool.work_off():
            pass
        self.flush()

    @rule(data=st.data())
    def roll_back(self, data: Any) -> None:
        if not self.stable:
            return
        time, sectors = data.draw(st.sampled_from(self.stable))
        self.pool.cdp.roll_back("a", time)
        self.now["a"] = list(sectors)
        self.attach()
        self._all_is_stable()

    @invariant()
    def a_moment_passes(self) -> None:
        self.fresh.append((self.pool.cdp.clock.now(), list(self.now["a"])))

    @rule()
    def moments_are_what_they_were(self) -> None:
        for time, expected in self.stable:
            device = MomentDevice(self.pool, "a", time)
            assert self._read(device) == expected, time
            device.close()


ProtectedPower.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)
TestProtectedPower = ProtectedPower.TestCase
