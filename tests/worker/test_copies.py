"""Copies between the targets of a server: within a worker, and not beyond it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from blockyard.initiator import Lun, ScsiError, connect
from blockyard.scsi.sense import Asc
from tests.scsi.copies import copy_aborted, extended_copy, lid1, segment, verify
from tests.serving import Serving

OTHER = "iqn.2024-01.test.blockyard:other"


def _cscd(disk: Lun) -> bytes:
    """By the first designator of VPD page 83h, which is NAA."""
    return bytes([0xE4, 0, 0, 0]) + disk.inquiry(0x83)[4:16].ljust(24, b"\0") + bytes([0, 0, 2, 0])


@pytest.mark.parametrize("workers", [1, 2])
def test_between_targets(tmp_path: Path, workers: int) -> None:
    disks: list[str | Path] = [tmp_path / "one.img", f"{OTHER}={tmp_path / 'two.img'}"]
    options = ["--size", "8M", "--workers", str(workers)]
    with Serving(disks, state=tmp_path / "state", log=tmp_path / "log", options=options) as serving:
        data = os.urandom(64 << 10)
        with connect(serving.url(), timeout=120) as one, connect(serving.url(target=OTHER), timeout=120) as two:
            one.write(8, data)
            names = [_cscd(one), _cscd(two)]
            parameters = lid1(names, [verify(0), segment(0, 1, 128, 8, 100)])
            if workers == 1:
                one.execute(extended_copy(len(parameters)), parameters)
                assert two.read(100, 128) == data
                return
            response = one.command(extended_copy(len(parameters)), parameters)
            aborted = copy_aborted(bytes(response.sense))
            assert (aborted.asc, aborted.segment) == (Asc.COPY_TARGET_DEVICE_NOT_REACHABLE, 1)
            with pytest.raises(ScsiError):
                two.execute(extended_copy(len(parameters)), parameters)
            assert two.read(100, 128) == bytes(64 << 10)
