"""Vital product data: the table of pages and what stands in them (SPC-5, SBC-4)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from blockyard.scsi import atomic, copy_results, limits, mode, protection
from blockyard.scsi.designators import (
    BINARY,
    DEVICE,
    NAME,
    PORT,
    PORT_GROUP,
    RELATIVE_PORT,
    UTF8,
    designator,
    name,
)
from blockyard.scsi.thin import threshold_exponent

if TYPE_CHECKING:
    from blockyard.scsi.nexus import Nexus, TargetPort
    from blockyard.scsi.primary import PrimaryUnit
    from blockyard.scsi.unit import LogicalUnit

_SELF_TEST_RATE = 100 << 20  # bytes per second that an extended self-test may be expected to read


class VpdPage(NamedTuple):
    """A VPD page; `content` gives what follows its four bytes of header."""

    code: int
    name: str
    content: Callable[[Any, Nexus], bytes]  # of a unit of the kind that the table is for
    standard: str


def page(unit: PrimaryUnit, nexus: Nexus, code: int) -> bytes | None:
    """One whole page, or None when there is no such page."""
    if code not in unit.vpd_pages:
        return None
    content = unit.vpd_pages[code].content(unit, nexus)
    return struct.pack(">BBH", unit.peripheral, code, len(content)) + content


def supported_pages(unit: PrimaryUnit, nexus: Nexus) -> bytes:
    return bytes(unit.vpd_pages)


def unit_serial_number(unit: PrimaryUnit, nexus: Nexus) -> bytes:
    return unit.serial.encode()


def device_identification(unit: PrimaryUnit, nexus: Nexus) -> bytes:
    port = nexus.target_port
    return b"".join(
        (
            *unit.designators,
            designator(BINARY, PORT | RELATIVE_PORT, struct.pack(">HH", 0, port.relative_port)),
            designator(BINARY, PORT | PORT_GROUP, struct.pack(">HH", 0, port.portal_group)),
            designator(UTF8, PORT | NAME, name(port.name)),
            designator(UTF8, DEVICE | NAME, name(port.device_name)),
        )
    )


def _extended_inquiry(unit: LogicalUnit, nexus: Nexus) -> bytes:
    content = bytearray(60)
    if unit.protection is not None:
        content[0] = protection.SUPPORTED_TYPES << 3 | 0x07  # GRD_CHK, APP_CHK, REF_CHK
    content[1] = 0x0F  # PRIOR_SUP, HEADSUP, ORDSUP, SIMPSUP
    content[2] = 0x01  # V_SUP: there may be a volatile cache
    minutes = (unit.blocks << unit.shift) // _SELF_TEST_RATE // 60 + 1
    content[6:8] = min(minutes, 0xFFFF).to_bytes(2, "big")  # EXTENDED SELF-TEST COMPLETION MINUTES
    return bytes(content)


def mode_page_policy(unit: PrimaryUnit, nexus: Nexus) -> bytes:
    """All mode pages are shared by all nexuses; of the Disconnect-Reconnect page MLUS has to be set (SPC-5)."""
    return bytes([0x02, 0x00, 0x80, 0, mode.ALL_PAGES, mode.ALL_SUBPAGES, 0x00, 0])


def scsi_ports(unit: PrimaryUnit, nexus: Nexus) -> bytes:
    """The target ports, by their names."""
    return b"".join(_port_descriptor(port) for port in nexus.ports.all())


def _port_descriptor(port: TargetPort) -> bytes:
    designators = designator(UTF8, PORT | NAME, name(port.name))
    return struct.pack(">xxH6xH", port.relative_port, len(designators)) + designators


def _power_condition(unit: LogicalUnit, nexus: Nexus) -> bytes:
    """Every power condition can be asked for, and it takes no time to leave it."""
    return bytes([0x03, 0x07]) + bytes(12)  # STANDBY_Y, STANDBY_Z; IDLE_C, IDLE_B, IDLE_A


def _third_party_copy(unit: LogicalUnit, nexus: Nexus) -> bytes:
    return copy_results.vpd_content(unit)


def _block_limits(unit: LogicalUnit, nexus: Nexus) -> bytes:
    thin = unit.thin
    return struct.pack(
        ">BBHIIIIIIIQIIIII",
        1 if thin else 0,  # WSNZ
        limits.COMPARE_AND_WRITE_BLOCKS,
        1 << unit.physical_exponent,  # OPTIMAL TRANSFER LENGTH GRANULARITY
        limits.MAX_TRANSFER >> unit.shift,
        limits.OPTIMAL_TRANSFER >> unit.shift,
        0,  # MAXIMUM PREFETCH LENGTH: not limited
        limits.UNMAP_BLOCKS if thin else 0,
        limits.UNMAP_DESCRIPTORS if thin else 0,
        max(1, unit.device.granularity >> unit.shift) if thin else 0,
        0x80000000 if thin else 0,  # UGAVALID, alignment 0
        limits.WRITE_SAME_BLOCKS,
        atomic.max_blocks(unit),
        atomic.granularity(unit),  # ATOMIC ALIGNMENT
        atomic.granularity(unit),
        atomic.max_blocks(unit),  # with an atomic boundary
        atomic.max_blocks(unit),  # MAXIMUM ATOMIC BOUNDARY SIZE
    )


def _block_device_characteristics(unit: LogicalUnit, nexus: Nexus) -> bytes:
    # MEDIUM ROTATION RATE: 1 = it does not rotate, 0 = it does, at a rate that is not known
    # WABEREQ and WACEREQ 01b: after SANITIZE blocks can be read before they are written
    return struct.pack(">HxB56x", 0 if unit.device.rotational else 1, 0x50)


def _logical_block_provisioning(unit: LogicalUnit, nexus: Nexus) -> bytes:
    if not unit.thin:
        return bytes(4)
    # LBPU, LBPWS, LBPWS10; LBPRZ=001b: what is unmapped reads as zeros; PROVISIONING TYPE 2: thin
    return bytes([threshold_exponent(unit), 0xE0 | 1 << 2, 2, 0])


_COMMON = (
    VpdPage(0x00, "Supported VPD Pages", supported_pages, "SPC-5"),
    VpdPage(0x80, "Unit Serial Number", unit_serial_number, "SPC-5"),
    VpdPage(0x83, "Device Identification", device_identification, "SPC-5"),
    VpdPage(0x87, "Mode Page Policy", mode_page_policy, "SPC-5"),
    VpdPage(0x88, "SCSI Ports", scsi_ports, "SPC-5"),
)


def pages(*own: VpdPage) -> dict[int, VpdPage]:
    """The pages of a kind of device by their codes, in ascending order: those that all have, and its own."""
    return {page.code: page for page in sorted((*_COMMON, *own))}


PAGES = pages(
    VpdPage(0x86, "Extended INQUIRY Data", _extended_inquiry, "SPC-5"),
    VpdPage(0x8A, "Power Condition", _power_condition, "SPC-5"),
    VpdPage(0x8F, "Third-party Copy", _third_party_copy, "SPC-5"),
    VpdPage(0xB0, "Block Limits", _block_limits, "SBC-4"),
    VpdPage(0xB1, "Block Device Characteristics", _block_device_characteristics, "SBC-4"),
    VpdPage(0xB2, "Logical Block Provisioning", _logical_block_provisioning, "SBC-4"),
)
