"""What there is in a pool, as others read it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from blockyard.block.file import FileDevice, create
from blockyard.pool import catalog
from blockyard.pool.pool import Pool
from blockyard.pool.pool import create as create_pool

READ = "import sys, pathlib; from blockyard.pool import catalog; print(catalog.read(pathlib.Path(sys.argv[1])))"


def test_others_read_it_while_the_pool_is_open_and_when_it_is_not(tmp_path: Path) -> None:
    create(tmp_path / "member", 16 << 20)
    create_pool(tmp_path, [str(tmp_path / "member")])
    with Pool(tmp_path, FileDevice) as pool:
        pool.create_volume("one", 1 << 20, 16)
        pool.snapshot(["one"], "monday", 5.0)
        pool.clone("one", "monday", "two")
        expected = catalog.Catalog(
            {name: pool.volume(name) for name in ("one", "two")}, {"one": {"monday": pool.snapshots("one")[0]}}
        )
        told = subprocess.run([sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, check=True)
        assert told.stdout.strip() == str(expected)
        one = pool.volume("one")
        pool.resize("one", 2 << 20)
        pool.roll_back("one", "monday")
        assert pool.volume("one").uuid == one.uuid != pool.volume("two").uuid, "an initiator's disk stays the same"
    found = catalog.read(tmp_path)
    assert found.volumes["one"].size == 1 << 20
    monday = found.snapshots["one"]["monday"]
    assert len({str(monday.identity(one.uuid)), one.uuid, str(monday.identity(found.volumes["two"].uuid))}) == 3


def test_where_there_is_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        catalog.read(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(OSError, match=r"data\.mdb does not begin as"):
        catalog.read(tmp_path)
