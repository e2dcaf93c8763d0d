"""LUKS1 headers (LUKS On-Disk Format Specification 1.2.3): opened, not made. QEMU reads and writes such disks too."""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct

from blockyard.block.cipher.keys import PBKDF2, Kdf, LuksError, Slot
from blockyard.block.cipher.xts import UNIT
from blockyard.block.device import Device

_HEAD = Struct(
    ">6sH32s32s32sII20s32sI40s"
)  # magic, version, cipher, mode, hash, payload, key size, digest, salt, iterations, UUID
_SLOT = Struct(">II32sII")  # active, iterations, salt, offset, stripes
_MAGIC = b"LUKS\xba\xbe"
_ACTIVE = 0x00AC71F3
_SLOTS = 8


class Luks1:
    """A header that was read."""

    sector_size = UNIT
    tweak = 0
    data_size: int | None = None

    def __init__(self, data: bytes, size: int) -> None:
        fields = _HEAD.unpack_from(data)
        self._slots = [_SLOT.unpack_from(data, _HEAD.size + number * _SLOT.size) for number in range(_SLOTS)]
        cipher, mode, self._hash, self.uuid = (_text(fields[at]) for at in (2, 3, 4, 10))
        self.data_at, self._key_size = fields[5] * UNIT, fields[6]
        self._digest: bytes = fields[7]
        self._digest_kdf = Kdf(PBKDF2, fields[8], self._hash, fields[9])
        if (cipher, mode) != ("aes", "xts-plain64"):
            raise LuksError(f"The data is encrypted by {cipher}-{mode}: only aes-xts-plain64 is supported")
        self._digest_kdf.check()
        if self.data_at >= size:
            raise LuksError("The data begins beyond the end of the device")
        self._list = [(number, slot) for number, slot in self._found()]

    def _found(self) -> Iterator[tuple[int, Slot]]:
        for number, (active, iterations, salt, offset, stripes) in enumerate(self._slots):
            if active == _ACTIVE:
                kdf = Kdf(PBKDF2, salt, self._hash, iterations)
                slot = Slot(kdf, offset * UNIT, self._key_size, stripes, self._hash, self._key_size)
                slot.check(_HEAD.size, self.data_at)
                yield number, slot

    def slots(self) -> Iterator[tuple[int, Slot]]:
        return iter(self._list)

    def is_volume_key(self, number: int, key: bytes) -> bool:
        return self._digest_kdf.derive(key, len(self._digest)) == self._digest


def read_luks1(device: Device) -> Luks1 | None:
    """The header of a device; None where there is none. Raises LuksError for one that cannot be used here."""
    data = bytearray(1024)
    if device.size < len(data):
        return None
    device.preadv([memoryview(data)], 0)
    if not data.startswith(_MAGIC) or int.from_bytes(data[6:8], "big") != 1:
        return None
    return Luks1(bytes(data), device.size)


def _text(data: bytes) -> str:
    return data.partition(b"\0")[0].decode("ascii", "replace")
