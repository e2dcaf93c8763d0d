"""Sense data as an initiator reads it (SPC-5 §4.5)."""

from __future__ import annotations

from dataclasses import dataclass

from blockyard.scsi.sense import SenseKey

# The additional sense codes that disks send in practice, in the words of SPC-5 annex F.
_MEANINGS = {
    0x0000: "no additional sense information",
    0x0401: "logical unit is in process of becoming ready",
    0x0402: "logical unit not ready, initializing command required",
    0x0403: "logical unit not ready, manual intervention required",
    0x040A: "logical unit not accessible, asymmetric access state transition",
    0x040B: "logical unit not accessible, target port in standby state",
    0x040C: "logical unit not accessible, target port in unavailable state",
    0x0C00: "write error",
    0x0C0C: "write error - unexpected unsolicited data",
    0x0C0D: "write error - not enough unsolicited data",
    0x1100: "unrecovered read error",
    0x1A00: "parameter list length error",
    0x1D00: "miscompare during verify operation",
    0x2000: "invalid command operation code",
    0x2100: "logical block address out of range",
    0x2400: "invalid field in CDB",
    0x2500: "logical unit not supported",
    0x2600: "invalid field in parameter list",
    0x2700: "write protected",
    0x2707: "space allocation failed write protect",
    0x2800: "not ready to ready change, medium may have changed",
    0x2900: "power on, reset, or bus device reset occurred",
    0x2901: "power on occurred",
    0x2902: "SCSI bus reset occurred",
    0x2903: "bus device reset function occurred",
    0x2904: "device internal reset",
    0x2907: "I_T nexus loss occurred",
    0x2A01: "mode parameters changed",
    0x2A03: "reservations preempted",
    0x2A04: "reservations released",
    0x2A05: "registrations preempted",
    0x2A06: "asymmetric access state changed",
    0x2A09: "capacity data has changed",
    0x2F00: "commands cleared by another initiator",
    0x3807: "thin provisioning soft threshold reached",
    0x3A00: "medium not present",
    0x3F03: "INQUIRY data has changed",
    0x3F0E: "reported LUNs data has changed",
    0x4400: "internal target failure",
    0x4700: "SCSI parity error",
    0x4705: "protocol service CRC error",
    0x4900: "invalid message error",
    0x4B00: "data phase error",
    0x5302: "medium removal prevented",
    0x5500: "system resource failure",
    0x5D00: "failure prediction threshold exceeded",
}


@dataclass(frozen=True, slots=True)
class Sense:
    """Decoded sense data. `information` and `field` (byte, bit or None) are None where they are not valid."""

    key: int
    code: int  # ASC << 8 | ASCQ
    information: int | None = None
    field: tuple[int, int | None] | None = None  # SPC-5 §4.5.2.4.2
    deferred: bool = False

    @property
    def asc(self) -> int:
        return self.code >> 8

    @property
    def ascq(self) -> int:
        return self.code & 0xFF

    def __str__(self) -> str:
        key = SenseKey(self.key).name.replace("_", " ")
        text = f"{key}: {_MEANINGS.get(self.code, 'unknown condition')} ({self.key:X}/{self.asc:02X}/{self.ascq:02X})"
        if self.field is not None:
            byte, bit = self.field
            text += f", field at byte {byte}" + ("" if bit is None else f" bit {bit}")
        return text


def decode_sense(data: bytes) -> Sense | None:
    """Sense data in fixed or descriptor format; None for what is neither."""
    if not data:
        return None
    kind = data[0] & 0x7F
    if kind in (0x70, 0x71):
        return _decode_fixed(data.ljust(18, b"\0"), deferred=kind == 0x71)
    if kind in (0x72, 0x73):
        return _decode_descriptors(data.ljust(8, b"\0"), deferred=kind == 0x73)
    return None


def _decode_fixed(data: bytes, *, deferred: bool) -> Sense:
    """SPC-5 §4.5.3."""
    information = int.from_bytes(data[3:7], "big") if data[0] & 0x80 else None
    return Sense(data[2] & 0xF, data[12] << 8 | data[13], information, _field(data[15:18], data[2] & 0xF), deferred)


def _decode_descriptors(data: bytes, *, deferred: bool) -> Sense:
    """SPC-5 §4.5.2."""
    information, field = None, None
    key = data[1] & 0xF
    at = 8
    while at + 2 <= len(data):
        kind, length = data[at], data[at + 1]
        body = data[at + 2 : at + 2 + length]
        if kind == 0x00 and len(body) >= 10 and body[0] & 0x80:
            information = int.from_bytes(body[2:10], "big")
        elif kind == 0x02 and len(body) >= 5:
            field = _field(body[2:5], key)
        at += 2 + length
    return Sense(key, data[2] << 8 | data[3], information, field, deferred)


def _field(specific: bytes, key: int) -> tuple[int, int | None] | None:
    """The field pointer in the sense-key-specific bytes (SPC-5 §4.5.2.4.2)."""
    if key != SenseKey.ILLEGAL_REQUEST or not specific[0] & 0x80:
        return None
    return int.from_bytes(specific[1:3], "big"), specific[0] & 7 if specific[0] & 8 else None
