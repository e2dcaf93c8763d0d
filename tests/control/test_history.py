"""The history: what is made of counters, and the file that it is kept in, whatever becomes of that."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockyard.cli.history import sparkline
from blockyard.control.history import recorder
from blockyard.control.history.recorder import History, span
from blockyard.control.history.sampling import Look, Point, Sampler, Values, look
from blockyard.control.history.series import COLUMNS, MOST, RESOLUTIONS, SeriesName, parse
from blockyard.control.history.store import ASIDE, NAME, Store
from blockyard.scsi.traffic import BOUNDS, Traffic, quantile

FINE, MIDDLE, COARSE = RESOLUTIONS
NOON = 1_700_006_400  # a multiple of all steps
TOTAL = SeriesName("total")
IDLE = {"read_ops": 0, "write_ops": 0, "read_bytes": 0, "write_bytes": 0}


def _refuse(what: str, text: str) -> None:
    raise AssertionError(text)


def _work(each: Values) -> dict[str, float]:
    return dict(zip(COLUMNS["volume"], each, strict=True))


# ---- what is made of counters


@given(st.lists(st.floats(1e-6, 8.0), min_size=1, max_size=50), st.sampled_from([0.5, 0.99]))
def test_a_quantile_is_in_the_bucket_of_the_true_one(times: list[float], share: float) -> None:
    traffic = Traffic()
    for seconds in times:
        traffic.add(seconds, 1, 512)
    true = sorted(times)[math.ceil(share * len(times)) - 1]
    found = quantile(traffic.buckets, share)
    assert found is not None
    low = max((bound for bound in BOUNDS if bound <= true), default=0.0)
    assert low - 1e-5 <= found <= min(bound for bound in BOUNDS if bound > true) + 1e-12
    assert quantile(Traffic().buckets, share) is None


def _told(reads: Traffic, hits: int, depth: int = 3) -> dict[str, object]:
    """What a worker says of a volume that has been read 4 KiB at a time, and of one that is idle."""
    plain = {**IDLE, "read_ops": sum(reads.buckets), "read_bytes": reads.bytes}
    pair = {"reads": reads.as_dict(), "writes": Traffic().as_dict()}
    cache = {"counters": {"hits": hits, "misses": sum(reads.buckets) - hits}}
    return {
        "volumes": {"a": plain, "idle": IDLE},
        "traffic": {"a": {"iqn.x": {**pair}}},
        "depths": {"a": depth, "idle": 0},
        "layers": {"a": [cache, {"counters": {"reads": 7}}]},
        "pools": {"p": {"used": 5, "size": 10, "provisioned": 30, "free": 5}},
    }


def test_windows_have_rates_percentiles_and_what_pools_have() -> None:
    sampler, reads, points = Sampler(), Traffic(), list[Point]()
    for number in range(13):
        points += sampler.take(look([_told(reads, sum(reads.buckets) // 2), None]), NOON + 10 * number, 10 * number)
        fast = number % 2 == 0
        reads.buckets = list(reads.buckets)
        reads.add(100e-6 if fast else 1e-2, 100, 100 * 4096)
    fine = [point for point in points if point.resolution is FINE]
    assert [point.time for point in fine] == [NOON + 10 * number for number in range(12)]
    first = _work(fine[0].values["volume"]["a"])
    assert (first["reads"], first["read_bytes"], first["writes"], first["depth"]) == (10, 40960, 0, 3)
    assert 64e-6 < first["read_p50"] <= 128e-6
    assert first["cache_hits"] == 0.5
    assert math.isnan(first["write_p99"])
    assert fine[0].values["total"][""] == pytest.approx(fine[0].values["volume"]["a"], nan_ok=True)
    assert _work(fine[0].values["volume"]["idle"])["reads"] == 0
    assert fine[0].values["pool"] == {"p": (5, 10, 30)}
    minutes = [point for point in points if point.resolution is MIDDLE]
    assert [point.time for point in minutes] == [NOON, NOON + 60]
    minute = _work(minutes[0].values["volume"]["a"])
    assert minute["reads"] == 10
    assert minute["read_p50"] <= 128e-6
    assert minute["read_p99"] > 8e-3, "percentiles are of the minute, not means of others"


def test_a_worker_that_begins_anew_counts_from_zero() -> None:
    sampler, old, new = Sampler(), Traffic(), Traffic()
    old.add(1e-3, 1000, 1000)
    new.add(1e-3, 50, 50)
    for number, reads in enumerate((old, new, new)):
        found = sampler.take(look([_told(reads, 0)]), NOON + 10 * number, 10 * number)
        if number:
            assert _work(found[0].values["volume"]["a"])["reads"] == (5 if number == 1 else 0)


def test_a_volume_that_is_new_has_begun_with_nothing() -> None:
    reads = Traffic()
    reads.add(1e-3, 50, 50)
    for first, expected in (([{"volumes": {}}], 5), ([{"volumes": {}}, None], None)):
        sampler = Sampler()
        sampler.take(look(first), NOON, 0)
        (point,) = sampler.take(look([_told(reads, 0)]), NOON + 10, 10)
        found = point.values["volume"]
        assert (_work(found["a"])["reads"] if found else None) == expected, "what did not answer may be old"


def test_a_clock_that_is_set_back_ends_the_window() -> None:
    sampler = Sampler()
    assert sampler.take(Look({}, {}, {}), NOON, 0) == []
    assert {point.time for point in sampler.take(Look({}, {}, {}), NOON - 86400, 10)} == {NOON}
    assert {point.time for point in sampler.take(Look({}, {}, {}), NOON - 86390, 20)} == {NOON - 86400}


# ---- the file


def _point(time: int, names: list[str], value: float = 1.0) -> Point:
    row = (value,) * len(COLUMNS["volume"])
    return Point(FINE, time, {"total": {"": row}, "volume": dict.fromkeys(names, row), "pool": {}})


def test_points_come_back_and_old_ones_make_room(tmp_path: Path) -> None:
    names = [f"v{number}" for number in range(65)] + ["\udcff"]
    store = Store(tmp_path, _refuse)
    ticks = FINE.span // FINE.step
    for number in range(ticks + 50):
        store.write([_point(NOON + 10 * number, names[: 1 if number % 8 else None], number)], NOON + 10 * number)
    store.close()
    store = Store(tmp_path, _refuse)
    found = store.read(SeriesName("volume", "v0"), FINE, NOON, NOON + 1e6)
    assert [values[0] for _, values in found] == list(range(49, ticks + 50)), "so many, and no more"
    assert store.read(SeriesName("volume", "v64"), FINE, NOON + 500, NOON + 570)[0] == (NOON + 560, (56.0,) * 10)
    assert len(store.read(SeriesName("volume", "\udcff"), FINE, NOON, NOON + 1e6)) == ticks // 8
    with pytest.raises(LookupError, match="volume:none"):
        store.read(SeriesName("volume", "none"), FINE, 0, NOON)
    store.write([_point(NOON + 10**8, names)], NOON)  # by a clock that is wrong for a moment
    store.write([_point(NOON, names)], NOON)
    assert [time for time, _ in store.read(TOTAL, FINE, 0, 1e12)] == [NOON]
    store.close()
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600


def test_an_object_that_is_gone_makes_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MOST, "volume", 2)
    store = Store(tmp_path, _refuse)
    for number, names in enumerate((["a", "b"], ["b", "c"], ["b", "c", "d"])):
        store.write([_point(NOON + 10 * number, names, number)], NOON + 10 * number)
    assert [str(each.name) for each in store.series()] == ["total", "volume:b", "volume:c"]
    assert store.read(SeriesName("volume", "c"), FINE, 0, 1e12)[-1] == (NOON + 20, (2.0,) * 10)
    assert len(store.read(SeriesName("volume", "c"), FINE, NOON + 10, 1e12)) == 2
    store.close()


_WRITER = """
import sys
from pathlib import Path
from tests.control.test_history import NOON, Store, _point, _refuse
store, number = Store(Path(sys.argv[1]), _refuse), 0
while True:
    store.write([_point(NOON + 10 * number, [f"v{n}" for n in range(200)], number)], NOON + 10 * number)
    print(number, flush=True)
    number += 1
"""


def test_who_is_killed_loses_nothing_that_was_written(tmp_path: Path) -> None:
    for kill_after in (3, 40):
        process = subprocess.Popen([sys.executable, "-c", _WRITER, tmp_path], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) == kill_after:
                break
        os.kill(process.pid, signal.SIGKILL)
        written = [kill_after, *(int(line) for line in process.stdout.read().split())][-1]
        process.wait()
        store = Store(tmp_path, _refuse)
        found = store.read(SeriesName("volume", "v199"), FINE, NOON, 1e12)
        assert [values[9] for _, values in found[: written + 1]] == list(range(written + 1))
        store.close()


def test_a_fault_in_one_look_does_not_end_the_history(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0

    async def gather() -> list[dict[str, Any] | None]:
        nonlocal looks
        looks += 1
        if looks < 4:
            raise KeyError("what nobody has thought of")
        raise asyncio.CancelledError

    async def main() -> None:
        history = History(tmp_path, gather, _refuse)
        with pytest.raises(asyncio.CancelledError):
            await history.run()
        history.close()

    monkeypatch.setattr(recorder, "TICK", 0.01)
    asyncio.run(main())
    assert looks == 4
    told = [record.getMessage() for record in caplog.records if record.name.startswith("blockyard.control.history")]
    assert told == ["the history cannot be written"], "told once"


def _overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(16384)
        file.write(random.Random(1).randbytes(3 * 16384))


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _not_ours(path: Path) -> None:
    path.unlink()
    database = sqlite3.connect(path)
    database.executescript("CREATE TABLE points (x); PRAGMA user_version = 1")
    database.close()


def _of_a_later_version(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version = 99")
    database.close()


@pytest.mark.parametrize(
    "damage", [_overwritten, _cut, _not_ours, _of_a_later_version, lambda path: path.write_bytes(b"x" * 9999)]
)
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    told: list[str] = []
    store = Store(tmp_path, lambda what, text: told.append(f"{what}: {text}"))
    for number in range(200):
        store.write([_point(NOON + 10 * number, [f"v{n}" for n in range(200)], number)], NOON)
    store.close()
    damage(tmp_path / NAME)
    assert store.series() == []
    assert len(told) == 1
    assert told[0].startswith("history-damaged: ")
    assert (tmp_path / ASIDE).exists()
    store.write([_point(NOON, ["v"])], NOON)
    assert len(store.read(TOTAL, FINE, 0, 1e12)) == 1
    store.close()


def test_a_row_that_is_damaged_is_a_gap(tmp_path: Path) -> None:
    store = Store(tmp_path, _refuse)
    for number in range(3):
        store.write([_point(NOON + 10 * number, [])], NOON)
    store.close()
    with sqlite3.connect(tmp_path / NAME) as database:
        database.execute("UPDATE points SET data = x'789c00' WHERE time = ?", (NOON + 10,))
    assert [time for time, _ in store.read(TOTAL, FINE, 0, 1e12)] == [NOON, NOON + 20]
    store.close()


def test_a_disk_that_is_full_is_no_damage(tmp_path: Path) -> None:
    (tmp_path / NAME).symlink_to("/dev/full")
    with pytest.raises(OSError, match="history"):
        Store(tmp_path, _refuse).series()


# ---- what is asked for


def test_what_can_be_asked_for() -> None:
    assert parse("volume:a:b") == SeriesName("volume", "a:b")
    for wrong in ("", "volume", "volume:", "total:x", "disk:a"):
        with pytest.raises(ValueError, match="a series is"):
            parse(wrong)
    assert span(-3600, None, None, NOON) == (NOON - 3600, NOON, FINE)
    assert span(-86400, -3600, None, NOON) == (NOON - 86400, NOON - 3600, MIDDLE)
    assert span(NOON - 90 * 86400, None, None, NOON).resolution is COARSE
    assert span(-60, None, 900, NOON).resolution is COARSE
    for begin, end, step in ((-60, -61, None), (math.nan, None, None), (-60, None, 30)):
        with pytest.raises(ValueError, match=r"before|resolution"):
            span(begin, end, step, NOON)


@given(st.lists(st.tuples(st.floats(0, 100), st.none() | st.floats(0, 1e12))))
def test_a_line_of_blocks_has_its_width(points: list[tuple[float, float | None]]) -> None:
    assert len(sparkline(points, 0, 100)) == 60
    assert sparkline([(0, 0), (50, 8), (99, 4)], 0, 100)[::30] == "▁█"
    assert sparkline([(0, 4), (50, 8)], 0, 100, 3) == "▅█ "
