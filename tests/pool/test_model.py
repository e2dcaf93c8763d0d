"""A pool against a plain model: volumes and snapshots are byte strings, and a crash goes back to what must survive."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from blockyard.block.device import Device
from blockyard.block.file import FileDevice, create
from blockyard.pool.livemap import HOLE
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.space import NOWHERE
from blockyard.pool.volume import SnapshotDevice, VolumeDevice
from tests.memory import FAST
from tests.pool import roads

SHIFT = 12
CHUNKS = 6
SIZE = CHUNKS << SHIFT


class Volumes(RuleBasedStateMachine):
    """Everything that can be done to a pool, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="blockyard-pool-", dir=FAST))
        create(self.directory / "member", 16 << 20)
        create_pool(self.directory, [str(self.directory / "member")])
        self.names = map("v{}".format, itertools.count())
        self.now: dict[str, bytes] = {}
        self.snapshots: dict[tuple[str, str], bytes] = {}
        self.clock = 0.0
        self.boot = 0
        self.open()

    def open(self) -> None:
        self.pool = Pool(self.directory, self.member, boot=f"boot-{self.boot}".ljust(36))
        self.devices = {name: VolumeDevice(self.pool, name) for name in self.now}

    def member(self, name: str) -> Device:
        return FileDevice(name)

    def teardown(self) -> None:
        self.pool.close()
        shutil.rmtree(self.directory)

    # ---- what is done

    @rule(checksums=st.booleans())
    def new_volume(self, checksums: bool = False) -> None:
        name = next(self.names)
        self.pool.create_volume(name, SIZE, SHIFT, checksums=checksums)
        self.now[name] = bytes(SIZE)
        self.devices[name] = VolumeDevice(self.pool, name)

    @precondition(lambda self: self.now)
    @rule(
        data=st.data(), byte=st.integers(1, 255), offset=st.integers(0, SIZE // 512 - 1), length=st.integers(1, 12),
        short=st.booleans(),
    )  # fmt: skip
    def write(self, data: st.DataObject, byte: int, offset: int, length: int, short: bool) -> None:
        name = data.draw(st.sampled_from(sorted(self.now)))
        start = offset * 512
        end = min(SIZE, start + length * 512 * 2)
        roads.write(self.devices[name], bytes([byte]) * (end - start), start, short=short)
        self.now[name] = self.now[name][:start] + bytes([byte]) * (end - start) + self.now[name][end:]

    @precondition(lambda self: self.now)
    @rule(data=st.data(), offset=st.integers(0, SIZE // 512 - 1), length=st.integers(1, 24))
    def discard(self, data: st.DataObject, offset: int, length: int) -> None:
        name = data.draw(st.sampled_from(sorted(self.now)))
        start = offset * 512
        end = min(SIZE, start + length * 512)
        self.devices[name].discard(start, end - start)
        self.now[name] = self.now[name][:start] + bytes(end - start) + self.now[name][end:]

    @precondition(lambda self: self.now)
    @rule(data=st.data())
    def snapshot(self, data: st.DataObject) -> None:
        names = data.draw(st.lists(st.sampled_from(sorted(self.now)), min_size=1, max_size=2, unique=True))
        self.clock += 1
        label = f"s{self.clock:g}"
        self.pool.snapshot(names, label, self.clock)
        for name in names:
            self.snapshots[name, label] = self.now[name]

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def delete_snapshot(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.snapshots)))
        self.pool.delete_snapshot(*key)
        del self.snapshots[key]

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def clone(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.snapshots)))
        name = next(self.names)
        self.pool.clone(*key, name)
        self.now[name] = self.snapshots[key]
        self.devices[name] = VolumeDevice(self.pool, name)

    @precondition(lambda self: self.snapshots)
    @rule(data=st.data())
    def roll_back(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.snapshots)))
        self.pool.roll_back(*key)
        self.now[key[0]] = self.snapshots[key]
        self.devices[key[0]] = VolumeDevice(self.pool, key[0])

    @precondition(lambda self: self.now)
    @rule(data=st.data())
    def delete_volume(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.now)))
        try:
            self.pool.delete_volume(name)
        except OSError:
            assert any(key[0] == name for key in self.snapshots)
            return
        assert not any(key[0] == name for key in self.snapshots)
        del self.now[name], self.devices[name]

    @rule()
    def all_that_nobody_sees_is_freed(self) -> None:
        while self.pool.work_off():
            pass
        if not self.now and not self.snapshots:
            self.pool.flush()
            assert self.pool.used == 0

    @rule()
    def flush(self) -> None:
        self.pool.flush()
        report = self.pool.check()
        assert report.is_clean, report.findings

    @rule()
    def work_off(self) -> None:
        self.pool.work_off()

    @rule()
    def the_process_dies(self) -> None:
        self.pool.abandon()
        self.open()

    @rule()
    def the_machine_restarts_after_a_flush(self) -> None:
        self.pool.flush()
        self.pool.abandon()
        self.boot += 1
        self.open()

    # ---- what must hold

    @invariant()
    def every_byte_that_is_used_is_some_trees(self) -> None:
        usage = self.pool.usage
        assert sum(tree.held << tree.shift for tree in self.pool.trees) == usage.used - usage.waiting
        for name in self.now:
            tree = self.pool.tree(self.pool.volume(name).tree)
            assert tree.mapped == sum(tree.map.get(chunk)[0] not in (NOWHERE, HOLE) for chunk in range(CHUNKS))

    @invariant()
    def everything_reads_as_it_should(self) -> None:
        for name, expected in self.now.items():
            assert roads.read(self.devices[name], 0, SIZE) == expected, name
            runs = list(self.devices[name].runs(0, SIZE))
            assert [run.offset for run in runs] == list(
                itertools.accumulate((run.length for run in runs[:-1]), initial=0)
            )
            assert runs[-1].offset + runs[-1].length == SIZE
            assert all(one.mapped != other.mapped for one, other in itertools.pairwise(runs))
            assert not any(any(expected[run.offset : run.offset + run.length]) for run in runs if not run.mapped)
        for (name, label), expected in self.snapshots.items():
            (found,) = [each for each in self.pool.snapshots(name) if each.name == label]
            data = bytearray(SIZE)
            SnapshotDevice(self.pool, found).preadv([memoryview(data)], 0)
            assert data == expected, (name, label)


Volumes.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestVolumes = Volumes.TestCase
