"""A pool whose files are not what was written: an error names what is wrong, or nothing was lost; never anything else."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.file import create
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool
from blockyard.pool.repair import check_offline
from blockyard.pool.store import Store
from blockyard.pool.volume import SnapshotDevice, VolumeDevice
from tests.memory import FAST
from tests.pool.test_check import contents, make, write

SHIFT = 13


def _members(directory: Path) -> None:
    """A pool with two members, and data in both."""
    for number in range(2):
        create(directory / f"member-{number}", 12 << 20)
    create_pool(directory, [str(directory / f"member-{number}") for number in range(2)])
    with Pool(directory) as pool:
        pool.create_volume("a", 1 << 30, SHIFT)
        for chunk in range(1500):
            write(pool, "a", chunk, chunk % 250 + 1)


def _swap(directory: Path) -> None:
    one, other = directory / "member-0", directory / "member-1"
    one.rename(directory / "x")
    other.rename(one)
    (directory / "x").rename(other)


def _shorten(directory: Path) -> None:
    os.truncate(directory / "member-1", 9 << 20)


def _overwrite(directory: Path) -> None:
    (directory / "member-1").write_bytes(bytes(12 << 20))


@pytest.mark.parametrize(
    ("harm", "what"),
    [
        (_swap, r"member 0 of the pool \(member-0\): it is member 1: members were swapped"),
        (_shorten, r"member 1 of the pool \(member-1\): it has become shorter"),
        (_overwrite, r"member 1 of the pool \(member-1\): it is no member of any pool"),
        (lambda directory: (directory / "member-1").unlink(), "No such file or directory.*member-1"),
        (lambda directory: os.truncate(directory / "data.mdb", 20000), "data.mdb has been cut short"),
        (lambda directory: (directory / "data.mdb").write_bytes(b""), "data.mdb does not begin as LMDB's files do"),
        (lambda directory: (directory / "data.mdb").unlink(), "There is no pool here: data.mdb is missing"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, harm: Callable[[Path], object], what: str) -> None:
    _members(tmp_path)
    harm(tmp_path)
    with pytest.raises((OSError, ValueError), match=what):
        Pool(tmp_path)
    if "missing" in what:
        with pytest.raises(FileNotFoundError, match=what):
            check_offline(tmp_path)
        return
    report = check_offline(tmp_path, repair=True)
    assert any(name in finding.what for finding in report.findings for name in ("member-", "data.mdb"))
    assert not any(finding.repair for finding in report.findings), "there is nothing to mend it from"


def test_a_slab_that_cannot_be_read_is_made_anew(tmp_path: Path) -> None:
    make(tmp_path)
    with Pool(tmp_path) as pool:
        before = contents(pool)
    store = Store(tmp_path)
    with store.write() as transaction, transaction._inner.cursor(db=transaction._tables["slabs"]) as cursor:
        assert cursor.first()
        transaction._inner.put(cursor.key(), cursor.value()[:-1] + b"?", db=transaction._tables["slabs"])
    store.close()
    with pytest.raises(OSError, match="damaged: entry 000000000000000000000001 of table slabs"):
        Pool(tmp_path)
    (finding,) = check_offline(tmp_path).findings
    assert finding.repair == "it is made anew"
    with pytest.raises(OSError, match="damaged"):
        Pool(tmp_path)
    assert check_offline(tmp_path, repair=True).findings == [finding]
    assert check_offline(tmp_path).is_clean
    with Pool(tmp_path) as pool:
        assert contents(pool) == before


def test_a_journal_that_was_cut_short_is_given_up_by_a_repair_alone(tmp_path: Path) -> None:
    make(tmp_path)
    pool = Pool(tmp_path)
    pool.flush()
    before = contents(pool)
    write(pool, "a", 100, 1)
    journal = tmp_path / f"intent-{(pool._sequence + 1) % 2}"
    pool.abandon()
    os.truncate(journal, 5000)
    (finding,) = check_offline(tmp_path).findings
    assert "acknowledged changes since the last commit are lost" in finding.what
    check_offline(tmp_path, repair=True)
    assert check_offline(tmp_path).is_clean
    with Pool(tmp_path) as pool:
        assert contents(pool) == before


def test_a_pool_in_use_is_not_checked_from_outside(tmp_path: Path) -> None:
    make(tmp_path)
    with Pool(tmp_path), pytest.raises(OSError, match="Another process has this pool open"):
        check_offline(tmp_path)


class Harmed:
    """A pool of which nothing but one flip of a bit, or one cut, separates it from what was written."""

    def __init__(self) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="blockyard-damage-", dir=FAST))
        make(self.base)
        self.pool = Pool(self.base)
        for chunk in range(20, 40):
            write(self.pool, "a", chunk, 7)
        self.expected = contents(self.pool)
        self.pool.abandon()

    def look(self, directory: Path) -> None:
        """In a process of its own, as LMDB maps its file: what is there is right, or an error says what is wrong."""
        child = os.fork()
        if child:
            _, status = os.waitpid(child, 0)
            assert status == 0, "see standard error"
            return
        status = 1
        try:
            self._look(directory)
            status = 0
        except BaseException as error:
            os.write(2, f"{error!r}\n".encode())
        finally:
            os._exit(status)

    def _look(self, directory: Path) -> None:
        clean = True
        try:
            with Pool(directory) as pool:
                clean = pool.check().is_clean
                self._compare(pool)
        except (OSError, ValueError):
            clean = False
        found = check_offline(directory)
        assert clean or found.findings, "what cannot be used is no clean pool"
        check_offline(directory, repair=True)

    def _compare(self, pool: Pool) -> None:
        snapshot = SnapshotDevice(pool, pool.snapshots("a")[0])
        for device, expected in zip(
            (VolumeDevice(pool, "a"), VolumeDevice(pool, "b"), snapshot), self.expected, strict=True
        ):
            for at in range(0, len(expected), 1 << SHIFT):
                data = bytearray(1 << SHIFT)
                try:
                    device.preadv([memoryview(data)], at)
                except OSError:
                    continue
                assert data == expected[at : at + (1 << SHIFT)], f"chunk {at >> SHIFT} is another without a word"


@pytest.fixture(scope="module")
def harmed() -> Iterator[Harmed]:
    made = Harmed()
    yield made
    shutil.rmtree(made.base)


FILES = ("data.mdb", "data.mdb", "data.mdb", "intent-0", "intent-1")


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(FILES), where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_random_damage(harmed: Harmed, name: str, where: float, bit: int, cut: bool) -> None:
    directory = harmed.base.with_name(f"{harmed.base.name}-harmed")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(harmed.base, directory)
    try:
        path = directory / name
        size = path.stat().st_size
        if cut:
            os.truncate(path, int(where * size))
        else:
            with path.open("r+b") as file:
                at = int(where * (8192 if name.startswith("intent") else min(size, 300_000)))
                file.seek(at)
                (byte,) = file.read(1)
                file.seek(at)
                file.write(bytes([byte ^ 1 << bit]))
        harmed.look(directory)
    finally:
        shutil.rmtree(directory)
