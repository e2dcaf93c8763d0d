"""Whose space is whose: compared with what deleting a snapshot really frees."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.file import create as create_file
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.survey import Share, survey
from blockyard.pool.volume import VolumeDevice
from tests.memory import FAST

SHIFT = 12
CHUNKS = 6
BYTE = 1 << SHIFT

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, CHUNKS - 1)),
        st.tuples(st.just("discard"), st.integers(0, CHUNKS - 1)),
        st.tuples(st.just("snapshot"), st.just(0)),
        st.tuples(st.just("delete"), st.integers(0, 5)),
        st.tuples(st.just("roll back"), st.integers(0, 5)),
        st.tuples(st.just("work off"), st.just(0)),
    ),
    max_size=25,
)


def _do(pool: Pool, steps: list[tuple[str, int]]) -> None:
    device = VolumeDevice(pool, "v")
    for number, (what, which) in enumerate(steps):
        names = [snapshot.name for snapshot in pool.snapshots("v")]
        if what == "write":
            device.pwritev([bytes([number + 1]) * BYTE], which << SHIFT)
        elif what == "discard":
            device.discard(which << SHIFT, BYTE)
        elif what == "snapshot":
            pool.snapshot(["v"], f"s{number}", float(number))
        elif what == "work off":
            pool.work_off()
        elif names and what == "delete":
            pool.delete_snapshot("v", names[which % len(names)])
        elif names:
            pool.roll_back("v", names[which % len(names)])
            device = VolumeDevice(pool, "v")


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, which=st.integers(0, 5))
def test_what_a_snapshot_has_alone_is_what_deleting_it_frees(steps: list[tuple[str, int]], which: int) -> None:
    directory = Path(tempfile.mkdtemp(prefix="blockyard-pool-", dir=FAST))
    try:
        create_file(directory / "member", 16 << 20)
        create_pool(directory, ["member"])
        with Pool(directory) as pool:
            pool.create_volume("v", CHUNKS << SHIFT, SHIFT)
            _do(pool, steps)
            while pool.work_off():
                pass
            pool.flush()
            with pool.reading() as transaction:
                found = survey(transaction, "v")
            assert found.leaving == 0
            used = pool.usage_of("v").used
            assert sum(share.own for share in (found.now, *found.snapshots.values())) + found.unnamed <= used
            names = sorted(found.snapshots)
            if names and not any(what == "roll back" for what, _ in steps):  # which keeps what the volume stands on
                assert found.now.seen == pool.usage_of("v").mapped
                name = names[which % len(names)]
                pool.delete_snapshot("v", name)
                while pool.work_off():
                    pass
                assert used - pool.usage_of("v").used == found.snapshots[name].own
    finally:
        shutil.rmtree(directory)


def test_shares_and_progress(tmp_path: Path) -> None:
    create_file(tmp_path / "member", 16 << 20)
    create_pool(tmp_path, ["member"])
    with Pool(tmp_path) as pool:
        pool.create_volume("v", CHUNKS << SHIFT, SHIFT)
        _do(
            pool,
            [("write", 0), ("write", 1), ("write", 2), ("snapshot", 0), ("write", 0), ("snapshot", 0), ("write", 1)],
        )
        pool.flush()
        told: list[tuple[int, int]] = []
        with pool.reading() as transaction:
            found = survey(transaction, "v", lambda done, total: told.append((done, total)))
        assert found.snapshots == {"s3": Share(3 * BYTE, BYTE), "s5": Share(3 * BYTE, 0)}
        assert found.now == Share(3 * BYTE, BYTE)
        assert told[-1] == (5, 5)
        pool.delete_snapshot("v", "s3")
        with pool.reading() as transaction:
            found = survey(transaction, "v")
        assert (found.leaving, found.snapshots) == (BYTE, {"s5": Share(3 * BYTE, BYTE)})
