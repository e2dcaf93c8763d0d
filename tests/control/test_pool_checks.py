"""`blockyard pool check` and `pool scrub`, against a server that runs and where nobody serves."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.initiator import connect
from blockyard.initiator.errors import ScsiError
from blockyard.pool.pool import Pool
from blockyard.pool.space import offset_of
from blockyard.pool.store import Store
from tests.control.serving import serve
from tests.control.test_pool_commands import IQN, Site

CHUNK = 65536


def _leak(directory: Path) -> None:
    """Take a chunk that nobody needs."""
    store = Store(directory)
    with store.write() as transaction:
        slab = next(iter(transaction.slabs()))
        transaction.put_slab(slab._replace(bitmap=slab.bitmap | 1 << 50))
    store.close()


def _falsify(directory: Path, volume: str, chunk: int) -> None:
    with Pool(directory) as pool:
        at = offset_of(pool.tree(pool.volume(volume).tree).where(chunk))
        path = directory / pool.members[0].path
    with path.open("r+b") as member:
        member.seek(at + 100)
        member.write(b"x")


def test_a_pool_is_checked_and_mended_and_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, capsys)
    fast = str(site.directory)
    site.run("pool", "create", fast, "--size", "64M")
    with serve(site.state, "--pool", fast, "--target", IQN) as site.served:
        site.run("volume", "create", "fast/vm", "8M", "--chunk", "64K", "--checksums")
        assert "KiB, each with a checksum" in site.run("volume", "show", "fast/vm")
        site.io("vm", "write -P 1 0 256k", "flush")
        site.run("snapshot", "create", "fast/vm@monday")
        assert "nothing is wrong" in site.run("pool", "check", "fast")
        assert site.run("pool", "scrub", "fast", "--rate", "1G") == "all that there is can be read\n"
        status, printed = site.attempt("pool", "check", fast)
        assert status == 2
        assert "Another process has this pool open" in printed
        assert site.served.stop() == 0
    assert "nothing is wrong" in site.run("pool", "check", fast)
    _leak(site.directory)
    status, printed = site.attempt("pool", "check", fast)
    assert status == 1
    assert "LEAK" in printed
    assert "65536 bytes are nobody's" in printed
    assert "they are freed" in printed
    with serve(site.state, "--pool", fast, "--target", IQN) as site.served:
        status, printed = site.attempt("pool", "check", "fast")
        assert status == 1
        assert "1 findings, of which --repair mends 1" in printed
        assert "LEAK" in site.run("pool", "check", "fast", "--repair")
        assert "nothing is wrong" in site.run("pool", "check", "fast")
        assert site.served.stop() == 0
    _falsify(site.directory, "vm", 2)
    with serve(site.state, "--pool", fast, "--target", IQN) as site.served:
        with connect(site.url("vm")) as lun:
            assert lun.read(0, 1) == bytes([1]) * 512
            with pytest.raises(ScsiError) as caught:
                lun.read(200, 100)
            assert "MEDIUM ERROR" in str(caught.value)
            assert caught.value.sense is not None
            assert caught.value.sense.information == 2 * CHUNK // 512
            assert lun.read(3 * CHUNK // 512, 1) == bytes([1]) * 512
        status, printed = site.attempt("pool", "scrub", "fast")
        assert status == 1
        assert "vm, vm@monday" in printed
        assert "256" in printed
        assert "The checksum of chunk 2 is wrong" in printed
        (found,) = [job for job in site.json("pool", "jobs", "fast") if job["kind"] == "scrub"]
        assert found["details"][0]["offset"] == 2 * CHUNK
        assert site.served.stop() == 0
    assert "fast/vm: The checksum of chunk 2 is wrong" in site.run("events")


def test_where_there_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = Site(tmp_path, capsys)
    status, printed = site.attempt("pool", "check", str(tmp_path))
    assert status == 2
    assert "There is no pool here: data.mdb is missing" in printed
