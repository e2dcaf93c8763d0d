"""INQUIRY data and vital product data pages, taken apart for people and programs (SPC-5 §6.7, §7.7; SBC-4 §6.6).

Every decoder takes the bytes that the device sent, of any length, and returns a dict of plain values
that JSON can hold; what is not there reads as zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

Fields = dict[str, Any]

DEVICE_TYPES = {
    0x00: "disk", 0x01: "tape", 0x02: "printer", 0x03: "processor", 0x04: "write-once", 0x05: "CD/DVD",
    0x07: "optical memory", 0x08: "medium changer", 0x0C: "storage array controller", 0x0D: "enclosure services",
    0x0E: "simplified disk", 0x11: "object storage", 0x14: "zoned disk", 0x1E: "well-known logical unit", 0x1F: "none",
}  # fmt: skip
_QUALIFIERS = {0: "connected", 1: "not connected", 3: "no such logical unit"}
_VERSIONS = {0: "none", 3: "SPC", 4: "SPC-2", 5: "SPC-3", 6: "SPC-4", 7: "SPC-5", 8: "SPC-6"}
_PROTOCOLS = {0: "FCP", 5: "iSCSI", 6: "SAS"}
_ASSOCIATIONS = {0: "logical unit", 1: "target port", 2: "target device"}
_DESIGNATORS = {
    0: "vendor specific", 1: "T10 vendor ID", 2: "EUI-64", 3: "NAA", 4: "relative target port",
    5: "target port group", 6: "logical unit group", 7: "MD5", 8: "SCSI name string", 9: "protocol specific port",
    10: "UUID",
}  # fmt: skip
_PROVISIONING = {0: "not reported or full", 1: "resource", 2: "thin"}
PAGE_NAMES = {
    0x00: "supported VPD pages",
    0x80: "unit serial number",
    0x83: "device identification",
    0x84: "software interface identification",
    0x85: "management network addresses",
    0x86: "extended INQUIRY data",
    0x87: "mode page policy",
    0x88: "SCSI ports",
    0x8F: "third-party copy",
    0xB0: "block limits",
    0xB1: "block device characteristics",
    0xB2: "logical block provisioning",
}


def _ascii(data: bytes) -> str:
    return data.decode("ascii", "replace").strip(" \0")


def _number(data: bytes, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length].ljust(length, b"\0"), "big")


def decode_standard(data: bytes) -> Fields:
    """Standard INQUIRY data (SPC-5 §6.7.2)."""
    data = data.ljust(36, b"\0")
    versions = [_number(data, at, 2) for at in range(58, min(len(data), 74), 2)]
    return {
        "qualifier": _QUALIFIERS.get(data[0] >> 5, f"reserved ({data[0] >> 5})"),
        "device_type": DEVICE_TYPES.get(data[0] & 0x1F, f"0x{data[0] & 0x1F:02x}"),
        "removable": bool(data[1] & 0x80),
        "version": _VERSIONS.get(data[2], f"0x{data[2]:02x}"),
        "normal_aca": bool(data[3] & 0x20),
        "hierarchical": bool(data[3] & 0x10),
        "target_port_groups": data[5] >> 4 & 3,
        "third_party_copy": bool(data[5] & 8),
        "command_queueing": bool(data[7] & 2),
        "vendor": _ascii(data[8:16]),
        "product": _ascii(data[16:32]),
        "revision": _ascii(data[32:36]),
        "version_descriptors": [f"0x{version:04x}" for version in versions if version],
    }


def _supported_pages(body: bytes) -> Fields:
    return {"pages": [{"page": f"0x{page:02x}", "name": PAGE_NAMES.get(page, "unknown")} for page in body]}


def _serial_number(body: bytes) -> Fields:
    return {"serial": _ascii(body)}


def _identification(body: bytes) -> Fields:
    """SPC-5 §7.7.6."""
    designators = []
    at = 0
    while at + 4 <= len(body):
        header, length = body[at : at + 4], body[at + 3]
        kind, code_set = header[1] & 0xF, header[0] & 0xF
        fields = {
            "association": _ASSOCIATIONS.get(header[1] >> 4 & 3, "reserved"),
            "type": _DESIGNATORS.get(kind, f"0x{kind:x}"),
            "value": _designator(kind, code_set, body[at + 4 : at + 4 + length]),
        }
        if header[1] & 0x80:
            fields["protocol"] = _PROTOCOLS.get(header[0] >> 4, f"0x{header[0] >> 4:x}")
        designators.append(fields)
        at += 4 + length
    return {"designators": designators}


def _designator(kind: int, code_set: int, value: bytes) -> str | int:
    if kind in (4, 5, 6) and len(value) == 4:
        return _number(value, 2, 2)
    if kind == 10 and len(value) == 18:
        return str(UUID(bytes=value[2:]))
    if code_set in (2, 3):
        return value.decode("utf-8", "replace").rstrip("\0")
    return "0x" + value.hex()


def _extended(body: bytes) -> Fields:
    """SPC-5 §7.7.7."""
    body = body.ljust(60, b"\0")
    return {
        "simple_tasks": bool(body[1] & 1),
        "ordered_tasks": bool(body[1] & 2),
        "head_of_queue_tasks": bool(body[1] & 4),
        "volatile_cache": bool(body[2] & 1),
        "non_volatile_cache": bool(body[2] & 2),
        "lu_reset_clears_nexus_loss": bool(body[3] & 1),
    }


def _block_limits(body: bytes) -> Fields:
    """SBC-4 §6.6.4; the lengths are in logical blocks, 0 means that none is reported."""
    return {
        "max_compare_and_write": _number(body, 1, 1),
        "optimal_granularity": _number(body, 2, 2),
        "max_transfer": _number(body, 4, 4),
        "optimal_transfer": _number(body, 8, 4),
        "max_prefetch": _number(body, 12, 4),
        "max_unmap_blocks": _number(body, 16, 4),
        "max_unmap_descriptors": _number(body, 20, 4),
        "unmap_granularity": _number(body, 24, 4),
        "unmap_alignment": _number(body, 28, 4) & 0x7FFFFFFF if _number(body, 28, 1) & 0x80 else None,
        "max_write_same": _number(body, 32, 8),
        "max_atomic": _number(body, 40, 4),
    }


def _characteristics(body: bytes) -> Fields:
    """SBC-4 §6.6.2."""
    rate = _number(body, 0, 2)
    rates = {0: "not reported", 1: "non-rotating"}
    forms = {1: "5.25 inch", 2: "3.5 inch", 3: "2.5 inch", 4: "1.8 inch", 5: "smaller than 1.8 inch"}
    return {
        "rotation": rates.get(rate, f"{rate} rpm"),
        "form_factor": forms.get(_number(body, 3, 1) & 0xF, "not reported"),
        "fua_behaviour": bool(_number(body, 4, 1) & 2),
    }


def _provisioning(body: bytes) -> Fields:
    """SBC-4 §6.6.7."""
    flags = _number(body, 1, 1)
    return {
        "unmap": bool(flags & 0x80),
        "write_same_16_unmap": bool(flags & 0x40),
        "write_same_10_unmap": bool(flags & 0x20),
        "reads_zeros": flags >> 2 & 7,
        "anchor": bool(flags & 2),
        "threshold_exponent": _number(body, 0, 1),
        "type": _PROVISIONING.get(_number(body, 2, 1) & 7, "reserved"),
    }


_PAGES: dict[int, Callable[[bytes], Fields]] = {
    0x00: _supported_pages,
    0x80: _serial_number,
    0x83: _identification,
    0x86: _extended,
    0xB0: _block_limits,
    0xB1: _characteristics,
    0xB2: _provisioning,
}


def decode_page(data: bytes) -> Fields | None:
    """A vital product data page with its header; None for a page that is not known here."""
    if len(data) < 4 or data[1] not in _PAGES:
        return None
    return _PAGES[data[1]](data[4 : 4 + _number(data, 2, 2)])
