"""How long 1 GiB takes from disk to disk: copied by the target, and by an initiator that reads and writes.

`python -m bench.offload DIRECTORY`: the disks are two files there. The initiator that reads and
writes is QEMU's, `qemu-img convert` with 16 requests at a time.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from tests.scsi.copies import extended_copy, lid1, segment_with_offsets
from tests.serving import Serving

from bench.beside import directories
from blockyard import initiator

_SIZE = 1 << 30
_SEGMENT = 256 << 20
_ROUNDS = 5


def main() -> int:
    where = Path(sys.argv[1])
    with directories(where) as (directory, _):
        for number in range(2):
            with (directory / f"{number}.img").open("wb") as file:
                for _ in range(_SIZE >> 20):
                    file.write(os.urandom(1 << 20) if number == 0 else bytes(1 << 20))
        volumes = [directory / "0.img", directory / "1.img"]
        with Serving(volumes, state=directory / "state", log=directory / "log") as serving:
            times: dict[str, list[float]] = {"EXTENDED COPY": [], "qemu-img convert": []}
            for _ in range(_ROUNDS):
                times["EXTENDED COPY"].append(_offloaded(serving))
                times["qemu-img convert"].append(_by_initiator(serving))
        for what, found in times.items():
            median = statistics.median(found)
            sys.stdout.write(f"{what:20} {median:6.2f} s  {_SIZE / median / 1e9:5.2f} GB/s  of {_ROUNDS} rounds\n")
    return 0


def _offloaded(serving: Serving) -> float:
    with initiator.connect(serving.url(0)) as source, initiator.connect(serving.url(1)) as destination:
        names = [_cscd(each) for each in (source, destination)]
        began = time.monotonic()
        for start in range(0, _SIZE, _SEGMENT):
            place = (start // 512, 0)
            parameters = lid1(names, [segment_with_offsets(0, 1, _SEGMENT, place, place)], list_id=0, usage=3)
            source.execute(extended_copy(len(parameters)), parameters)
        return time.monotonic() - began


def _cscd(disk: initiator.Lun) -> bytes:
    """The CSCD descriptor by the first designator of VPD page 83h, which is NAA."""
    page = disk.inquiry(0x83)
    return bytes([0xE4, 0, 0, 0]) + page[4:16].ljust(24, b"\0") + bytes([0, 0, 2, 0])


def _by_initiator(serving: Serving) -> float:
    command = [
        "qemu-img",
        "convert",
        "-n",
        "-W",
        "-m",
        "16",
        "-S",
        "0",
        "-f",
        "raw",
        "-O",
        "raw",
        "-t",
        "none",
        "-T",
        "none",
    ]
    began = time.monotonic()
    subprocess.run([*command, serving.url(0), serving.url(1)], check=True)
    return time.monotonic() - began


if __name__ == "__main__":
    raise SystemExit(main())
