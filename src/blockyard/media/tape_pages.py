"""VPD, mode and log pages of tape drives (SSC-5, SPC-5)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from blockyard.block import codec
from blockyard.media.generations import LARGEST_PARTITIONS
from blockyard.scsi import log, mode, vpd
from blockyard.scsi.log import LogPage, Parameter, counter
from blockyard.scsi.mode import ModeField, ModePage
from blockyard.scsi.vpd import VpdPage

if TYPE_CHECKING:
    from blockyard.media.drive import TapeDrive
    from blockyard.scsi.nexus import Nexus

# ---- VPD pages


def _extended_inquiry(unit: TapeDrive, nexus: Nexus) -> bytes:
    return bytes([0, 0x07, 0x01]).ljust(60, b"\0")  # HEADSUP, ORDSUP, SIMPSUP; V_SUP


def _capabilities(unit: TapeDrive, nexus: Nexus) -> bytes:
    return bytes([0x01, 0])  # WORM


def _tape_alert_flags(unit: TapeDrive, nexus: Nexus) -> bytes:
    return sum(1 << (64 - flag) for flag in ALERTS).to_bytes(8, "big")


VPD_PAGES = vpd.pages(
    VpdPage(0x86, "Extended INQUIRY Data", _extended_inquiry, "SPC-5"),
    VpdPage(0xB0, "Sequential-access Device Capabilities", _capabilities, "SSC-5"),
    VpdPage(0xB1, "Manufacturer-assigned Serial Number", vpd.unit_serial_number, "SSC-5"),
    VpdPage(0xB2, "TapeAlert Supported Flags", _tape_alert_flags, "SSC-5"),
)

# ---- mode pages

COMPRESSION, CONFIGURATION, PARTITIONS, MEDIUM = 0x0F, 0x10, 0x11, 0x1D
EXTENSION = 0x01  # subpage of CONFIGURATION
APPEND_ONLY = 1  # WRITE MODE
MEGABYTES = 2  # PSUM
_MEGA = 10**6  # bytes of an MB


# a tape has an order: commands of a nexus are carried out one after the other (SAM-5, restricted reordering)
CONTROL = mode.PAGES[0x0A, 0].fixed(queue_algorithm_modifier=0, dpicz=0, ato=0, swp=0)
COMMON_PAGES = (
    mode.PAGES[0x02, 0],
    CONTROL,
    mode.PAGES[0x0A, 0x01],
    mode.PAGES[0x1A, 0].fixed(idle_a=0, standby_z=0),
    mode.PAGES[0x1C, 0],
)

MODE_PAGES = {
    (page.code, page.subpage): page
    for page in (
        *COMMON_PAGES,
        ModePage(0x01, "Read-Write Error Recovery", 12, (), "SSC-5"),
        ModePage(
            COMPRESSION,
            "Data Compression",
            16,
            (
                ModeField("dce", 2, 7, 1, changeable=codec.AVAILABLE),
                ModeField("dcc", 2, 6, 1, default=int(codec.AVAILABLE)),
                ModeField("dde", 3, 7, 1, default=1),
                ModeField("compression_algorithm", 4, 7, 32, default=1, changeable=True, values=(0, 1)),
                ModeField("decompression_algorithm", 8, 7, 32, default=1, changeable=True, values=(0, 1)),
            ),
            "SSC-5",
        ),
        ModePage(
            CONFIGURATION,
            "Device Configuration",
            16,
            (
                ModeField("active_partition", 3, 7, 8),
                ModeField("write_delay_time", 6, 7, 16, changeable=True),  # nothing is held back in the drive
                ModeField("lois", 8, 6, 1, default=1),  # blocks and filemarks are numbered
                ModeField("rew", 8, 0, 1, changeable=True),
                ModeField("eeg", 10, 4, 1, default=1),
                ModeField("sew", 10, 3, 1, default=1, changeable=True),
                ModeField("swp", 10, 2, 1, changeable=True),
                ModeField("select_data_compression_algorithm", 14, 7, 8, changeable=codec.AVAILABLE, values=(0, 1)),
            ),
            "SSC-5",
        ),
        ModePage(
            CONFIGURATION,
            "Device Configuration Extension",
            32,
            (
                ModeField("write_mode", 5, 7, 4, changeable=True, values=(0, APPEND_ONLY)),
                ModeField("pews", 6, 7, 16, changeable=True),
            ),
            "SSC-5",
            subpage=EXTENSION,
        ),
        ModePage(
            PARTITIONS,
            "Medium Partition",
            16,
            (
                ModeField("maximum_additional", 2, 7, 8),
                ModeField("additional", 3, 7, 8, changeable=True, values=tuple(range(LARGEST_PARTITIONS))),
                ModeField("fdp", 4, 7, 1, changeable=True),
                ModeField("sdp", 4, 6, 1, changeable=True),
                ModeField("idp", 4, 5, 1, changeable=True),
                ModeField("psum", 4, 4, 2, default=MEGABYTES, changeable=True),
                ModeField("pofm", 4, 2, 1, default=1),  # FORMAT MEDIUM makes what this page says
                ModeField("medium_format_recognition", 5, 7, 8, default=3),
                ModeField("units", 6, 3, 4, changeable=True),
                *(ModeField(f"size_{n}", 8 + 2 * n, 7, 16, changeable=True) for n in range(LARGEST_PARTITIONS)),
            ),
            "SSC-5",
        ),
        ModePage(
            MEDIUM,
            "Medium Configuration",
            32,
            (
                ModeField("wormm", 2, 0, 1),
                ModeField("worm_label_restrictions", 4, 7, 8),
                ModeField("worm_filemarks_restrictions", 5, 7, 8),
            ),
            "SSC-5",
        ),
    )
}

_FIXED_LENGTH = 8  # bytes of the Medium Partition mode page before the sizes


def with_all_sizes(data: bytes, at: int) -> bytes:
    """MODE SELECT data with all sizes in the Medium Partition page: hosts send those of the partitions that they want (SSC-5)."""
    full = MODE_PAGES[PARTITIONS, 0].length
    made = bytearray(data[:at])
    while at + 2 <= len(data):
        long = data[at] & 0x40  # SPF
        length = 4 + int.from_bytes(data[at + 2 : at + 4], "big") if long else 2 + data[at + 1]
        page = data[at : at + length]
        if not long and page[0] & 0x3F == PARTITIONS and _FIXED_LENGTH <= len(page) < full and not len(page) % 2:
            page = page[:1] + bytes([full - 2]) + page[2:].ljust(full - 2, b"\0")
        made += page
        at += length
    return bytes(made) + data[at:]


def programmable_warning(unit: TapeDrive) -> int:
    """Bytes before early warning at which the host wants to be told (PEWS); 0: it does not."""
    return _MEGA * unit.mode.get(CONFIGURATION, "pews", EXTENSION)


# ---- log pages

READ_FAILED, WRITE_FAILED, WRITE_PROTECTED, REMOVAL_PREVENTED, CLEANING_MEDIUM = 5, 6, 9, 10, 11
UNSUPPORTED_FORMAT, DIRECTORY_CORRUPTED, EXPIRED_CLEANING, LOAD_FAILED = 12, 18, 22, 39
ALERTS = frozenset(
    {
        READ_FAILED,
        WRITE_FAILED,
        WRITE_PROTECTED,
        REMOVAL_PREVENTED,
        CLEANING_MEDIUM,
        UNSUPPORTED_FORMAT,
        DIRECTORY_CORRUPTED,
        EXPIRED_CLEANING,
        LOAD_FAILED,
    }
)
_FLAGS = 64


def _write_errors(unit: TapeDrive) -> list[Parameter]:
    return [counter(3, 0), counter(5, unit.counters.write_bytes), counter(6, unit.medium_errors["write"])]


def _read_errors(unit: TapeDrive) -> list[Parameter]:
    return [counter(3, 0), counter(5, unit.counters.read_bytes), counter(6, unit.medium_errors["read"])]


def _non_medium_errors(unit: TapeDrive) -> list[Parameter]:
    return [counter(0, max(0, unit.counters.errors - sum(unit.medium_errors.values())))]


def _sequential_access(unit: TapeDrive) -> list[Parameter]:
    """Bytes written and read, and where the ends are, in MB; the latter only with a cartridge."""
    counters = unit.counters
    written, read = counters.write_bytes, counters.read_bytes
    found = [counter(0, written), counter(1, written), counter(2, read), counter(3, read)]
    tape = unit.tape
    if tape is not None:
        end, warning = tape.partition.end, tape.capacity - tape.warning
        places = [(4, end), (5, warning), (6, tape.warning)]
        if unit.lock.acquire(blocking=False):  # else it is on its way somewhere
            try:
                here = tape.partition.place(tape.position) if tape.position < tape.partition.objects else (end, end)
            finally:
                unit.lock.release()
            places += [(7, here[0])] if here is not None else []
        found += [counter(code, place // _MEGA) for code, place in places]
    return [*found, counter(0x0100, 0)]  # no cleaning is required


def _volume_statistics(unit: TapeDrive) -> list[Parameter]:
    tape = unit.tape
    if tape is None:
        return [counter(0, 0, 1)]  # the page is not valid
    description = tape.description
    used = sum(partition.end for partition in tape.cartridge.partitions)
    return [
        counter(0x0000, 1, 1),
        counter(0x0001, description.loads, 4),
        counter(0x000E, tape.written // _MEGA, 4),
        counter(0x000F, tape.read_bytes // _MEGA, 4),
        counter(0x0010, (description.written + tape.written) // _MEGA),
        counter(0x0011, (description.read + tape.read_bytes) // _MEGA),
        counter(0x0016, description.capacity // _MEGA, 4),
        counter(0x0017, used // _MEGA, 4),
        Parameter(0x0040, f"{description.uuid.hex:32.32}".encode()),
        Parameter(0x0042, f"{description.barcode:32.32}".encode()),
        counter(0x0080, int(unit.write_protected), 1),
        counter(0x0081, int(description.worm), 1),
    ]


def _compression(unit: TapeDrive) -> list[Parameter]:
    """Ratios in hundredths, of what was read and written in this load; reading is as it was written."""
    tape = unit.tape
    ratio = 100 if tape is None or not tape.stored else min(0xFFFF, 100 * tape.written // tape.stored)
    return [counter(0x0000, 100, 2), counter(0x0001, ratio, 2)]


def _tape_alert(unit: TapeDrive) -> list[Parameter]:
    return [Parameter(flag, bytes([flag in unit.alerts])) for flag in range(1, _FLAGS + 1)]


def _capacity(unit: TapeDrive) -> list[Parameter]:
    """Remaining and maximum MiB of the first partition and of the second, as LTO drives have them."""
    tape = unit.tape
    if tape is None:
        return [counter(code, 0, 4) for code in range(1, 5)]
    sizes = [*tape.description.capacities, 0][:2]
    left = [max(0, size - part.end) for size, part in zip(sizes, tape.cartridge.partitions, strict=False)]
    return [
        Parameter(code, struct.pack(">I", min(size >> 20, 0xFFFFFFFF)))
        for code, size in enumerate([*left, 0][:2] + sizes, 1)
    ]


LOG_PAGES = {
    page.code: page
    for page in (
        log.PAGES[log.SUPPORTED],
        LogPage(0x02, "Write Error Counters", _write_errors, "SPC-5"),
        LogPage(0x03, "Read Error Counters", _read_errors, "SPC-5"),
        LogPage(0x06, "Non-Medium Error", _non_medium_errors, "SPC-5"),
        LogPage(0x0C, "Sequential-Access Device", _sequential_access, "SSC-5"),
        LogPage(0x17, "Volume Statistics", _volume_statistics, "SSC-5"),
        LogPage(0x1B, "Data Compression", _compression, "SSC-5"),
        LogPage(0x2E, "TapeAlert", _tape_alert, "SSC-5"),
        LogPage(0x31, "Tape Capacity", _capacity, "LTO"),
    )
}
