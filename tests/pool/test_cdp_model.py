"""Moments against the plain model: whatever is done, what a volume was at a time is what its journal shows of that time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from blockyard.pool.cdp import SECOND, NoMoment
from blockyard.pool.clock import Clock
from blockyard.pool.moment import MomentDevice
from blockyard.pool.pool import Pool
from blockyard.pool.volume import VolumeDevice
from tests.pool.test_model import CHUNKS, SHIFT, SIZE, Volumes


class Protected(Volumes):
    """Everything that can be done to a pool with journals, in any order, while somebody sets the machine's clock."""

    def __init__(self) -> None:
        self.wall = 1_700_000_000 * SECOND
        self.steady = 0
        self.windows: dict[str, tuple[int, int]] = {}  # of volumes that are protected: time and size
        self.history: dict[str, list[tuple[int, bytes]]] = {}  # what a volume was when, since it is protected
        self.kept: dict[tuple[str, str], tuple[int, bytes]] = {}  # bookmarks that stay
        self.opened: list[tuple[MomentDevice, bytes]] = []
        super().__init__()

    def open(self) -> None:
        self.opened.clear()
        self.wall += SECOND
        self.steady = 0
        clock = Clock(lambda: self.wall, lambda: self.steady)
        self.pool = Pool(self.directory, self.member, boot=f"boot-{self.boot}".ljust(36), clock=clock)
        self.devices = {name: VolumeDevice(self.pool, name) for name in self.now}
        now = clock.now()  # before what has been noted last, if the machine's clock was set back
        for name, moments in self.history.items():
            self.history[name] = [moment for moment in moments if moment[0] < now]

    def teardown(self) -> None:
        self.moments_are_what_they_were()
        super().teardown()

    # ---- what is done

    @initialize()
    def begin(self) -> None:
        self.new_volume()
        self.protect("v0", 0, 0)

    @rule(data=st.data(), time=st.sampled_from((0, 30 * SECOND)), size=st.sampled_from((0, 0, 8 << 12)))
    @precondition(lambda self: self.now)
    def turn_on(self, data: st.DataObject, time: int, size: int) -> None:
        self.protect(data.draw(st.sampled_from(sorted(self.now))), time, size)

    def protect(self, name: str, time: int, size: int) -> None:
        self.pool.cdp.turn_on(name, time, size)
        self.windows[name] = (time, size)
        self.history.setdefault(name, [])

    @precondition(lambda self: self.windows)
    @rule(data=st.data())
    def turn_off(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.windows)))
        self.pool.cdp.turn_off(name)
        del self.windows[name], self.history[name]

    @precondition(lambda self: self.windows)
    @rule(data=st.data(), chunks=st.lists(st.integers(0, CHUNKS - 1), min_size=2, max_size=6), dies=st.booleans())
    def writes_come_fast(self, data: st.DataObject, chunks: list[int], dies: bool) -> None:
        """And the process dies before any of them is committed."""
        name = data.draw(st.sampled_from(sorted(self.windows)))
        for number, chunk in enumerate(chunks):
            image = bytearray(self.now[name])
            image[chunk << SHIFT : (chunk + 1) << SHIFT] = bytes([number + 1]) * (1 << SHIFT)
            self.devices[name].pwritev([image[chunk << SHIFT : (chunk + 1) << SHIFT]], chunk << SHIFT)
            self.now[name] = bytes(image)
            self.a_moment_passes()
        if dies:
            self.the_process_dies()

    @rule(seconds=st.integers(1, 20))
    def time_passes(self, seconds: int) -> None:
        self.wall += seconds * SECOND
        self.steady += seconds * SECOND

    @rule(seconds=st.integers(1, 100))
    def the_clock_is_set_back(self, seconds: int) -> None:
        self.wall -= seconds * SECOND

    @precondition(lambda self: any(self.history.values()))
    @rule(data=st.data())
    def open_a_moment(self, data: st.DataObject) -> None:
        name, time, image = self.draw(data)
        if self.may_be_gone(name, time):
            return
        self.opened.append((MomentDevice(self.pool, name, time), image))

    @precondition(lambda self: self.opened)
    @rule()
    def close_a_moment(self) -> None:
        self.opened.pop()[0].close()

    @precondition(lambda self: any(self.history.values()))
    @rule(data=st.data())
    def clone_a_moment(self, data: st.DataObject) -> None:
        name, time, image = self.draw(data)
        new = next(self.names)
        try:
            self.pool.cdp.clone(name, time, new)
        except NoMoment:
            assert self.may_be_gone(name, time)
            return
        self.now[new] = image
        self.devices[new] = VolumeDevice(self.pool, new)

    @precondition(lambda self: any(self.history.values()))
    @rule(data=st.data())
    def roll_back_to_a_moment(self, data: st.DataObject) -> None:
        name, time, image = self.draw(data)
        try:
            self.pool.cdp.roll_back(name, time)
        except NoMoment:
            assert self.may_be_gone(name, time)
            return
        self.now[name] = image
        self.devices[name] = VolumeDevice(self.pool, name)

    @precondition(lambda self: any(self.history.values()))
    @rule(data=st.data())
    def bookmark(self, data: st.DataObject) -> None:
        name, time, image = self.draw(data)
        label = f"b{len(self.kept)}"
        try:
            self.pool.cdp.set_bookmark(name, label, time, keep=True)
        except FileExistsError:
            return
        except NoMoment:
            assert self.may_be_gone(name, time)
            return
        self.kept[name, label] = (time, image)

    @precondition(lambda self: self.kept)
    @rule(data=st.data())
    def delete_bookmark(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.kept)))
        self.pool.cdp.delete_bookmark(*key)
        del self.kept[key]

    @precondition(lambda self: self.now)
    @rule(data=st.data())
    def delete_volume(self, data: st.DataObject) -> None:
        super().delete_volume(data)
        for name in self.windows.keys() - self.now.keys():
            del self.windows[name], self.history[name]
        self.kept = {key: kept for key, kept in self.kept.items() if key[0] in self.now}

    @rule()
    def all_that_nobody_sees_is_freed(self) -> None:
        while self.opened:
            self.close_a_moment()
        super().all_that_nobody_sees_is_freed()

    def draw(self, data: st.DataObject) -> tuple[str, int, bytes]:
        name = data.draw(st.sampled_from(sorted(name for name, moments in self.history.items() if moments)))
        return name, *self.history[name][data.draw(st.integers(0, len(self.history[name]) - 1))]

    def may_be_gone(self, name: str, time: int) -> bool:
        """Whether the window does not promise a moment."""
        window, size = self.windows[name]
        return bool(size) or (bool(window) and time < self.pool.cdp.clock.now() - window)

    # ---- what must hold

    @invariant()
    def a_moment_passes(self) -> None:
        for name in self.windows:
            moments = self.history[name]
            time = self.pool.cdp.clock.now()
            assert not moments or moments[-1][0] < time
            moments.append((time, self.now[name]))

    @rule()
    def moments_are_what_they_were(self) -> None:
        for device, image in self.opened:
            assert _read(device) == image
        for (name, label), (time, image) in self.kept.items():
            assert self.pool.cdp.reach(name).bookmarks[label].time == time
            self.compare(name, time, image)
        for name, moments in self.history.items():
            for time, image in moments:
                try:
                    self.compare(name, time, image)
                except NoMoment:
                    assert self.may_be_gone(name, time), (name, time)

    def compare(self, name: str, time: int, image: bytes) -> None:
        device = MomentDevice(self.pool, name, time)
        try:
            assert _read(device) == image, (name, time)
        finally:
            device.close()


def _read(device: MomentDevice) -> bytes:
    data = bytearray(SIZE)
    device.preadv([memoryview(data)], 0)
    return bytes(data)


Protected.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
TestProtected = Protected.TestCase
