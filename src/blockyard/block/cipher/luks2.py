"""LUKS2 headers (LUKS2 On-Disk Format Specification 1.1): two copies of a binary header with JSON, then the areas of key slots.

What is known of a header is its JSON, which is changed in place: so what other programs have put there (tokens, labels) stays.
A copy is written after the other is stable, with a higher sequence number; the sound one with the highest counts.
"""

from __future__ import annotations

import base64
import binascii
import copy
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from struct import Struct
from typing import Any

from blockyard.block.cipher.keys import ARGON2ID, PBKDF2, Kdf, LuksError, Slot, digest
from blockyard.block.device import Device

_HEAD = Struct(
    ">6sHQQ48s32s64s40s48sQ184x64s"
)  # magic, version, size, sequence, label, hash, salt, UUID, subsystem, offset, checksum
_BINARY = 4096
_CHECKSUM_AT = _HEAD.size - 64
_MAGICS = (b"LUKS\xba\xbe", b"SKUL\xba\xbe")
_SIZES = [1 << shift for shift in range(14, 23)]  # of a copy: 16 KiB to 4 MiB
HEADER = 16384  # bytes of a copy that is made here
DATA_AT = 16 << 20
AREA = 258048  # bytes that cryptsetup gives to a key of 64 bytes in 4000 stripes
STRIPES = 4000
_DIGEST_TIME = 100_000
CIPHER = "aes-xts-plain64"


class Luks2:
    """The header of `device`, as it was read or will be written."""

    def __init__(self, device: Device, metadata: dict[str, Any], binary: bytes, sequence: int, size: int) -> None:
        self.device = device
        self.metadata = metadata
        self.sequence = sequence
        self._binary = binary
        self._size = size

    # ---- what it says

    @property
    def uuid(self) -> str:
        return str(_HEAD.unpack_from(self._binary)[7].rstrip(b"\0").decode("ascii", "replace"))

    @property
    def segment(self) -> dict[str, Any]:
        segment: dict[str, Any] = self.metadata["segments"]["0"]
        return segment

    @property
    def data_at(self) -> int:
        return int(self.segment["offset"])

    @property
    def data_size(self) -> int | None:
        """None: to the end."""
        size = self.segment["size"]
        return None if size == "dynamic" else int(size)

    @property
    def sector_size(self) -> int:
        return int(self.segment["sector_size"])

    @property
    def tweak(self) -> int:
        return int(self.segment["iv_tweak"])

    @property
    def areas_end(self) -> int:
        return 2 * self._size + int(self.metadata["config"]["keyslots_size"])

    def slots(self) -> Iterator[tuple[int, Slot]]:
        """Key slots that can be used, by number."""
        for number, slot in sorted(self.metadata["keyslots"].items(), key=lambda item: int(item[0])):
            if slot["type"] == "luks2":
                yield int(number), self.slot(int(number))

    def slot(self, number: int) -> Slot:
        slot = self.metadata["keyslots"][str(number)]
        area, af = slot["area"], slot["af"]
        if area["type"] != "raw" or area["encryption"] != CIPHER or af["type"] != "luks1":
            raise LuksError(f"Key slot {number} is kept in a way that is not supported")
        found = Slot(
            _kdf(slot["kdf"]), int(area["offset"]), slot["key_size"], af["stripes"], af["hash"], area["key_size"]
        )
        found.check(2 * self._size, self.areas_end)
        return found

    def is_volume_key(self, number: int, key: bytes) -> bool:
        """Whether what a slot gave is the key of the data."""
        for each in self.metadata["digests"].values():
            if str(number) in each["keyslots"] and "0" in each["segments"]:
                expected = _bytes(each["digest"])
                return digest(_kdf(each), key, len(expected)) == expected
        return False

    # ---- what changes

    def free_number(self) -> int:
        number = next((number for number in range(32) if str(number) not in self.metadata["keyslots"]), None)
        if number is None:
            raise LuksError("There are 32 key slots, and no more can be", errno.ENOSPC)
        return number

    def free_area(self) -> int:
        """Where there is room for another slot. Raises LuksError (ENOSPC)."""
        taken = sorted(
            (int(slot["area"]["offset"]), int(slot["area"]["size"])) for slot in self.metadata["keyslots"].values()
        )
        at = 2 * self._size
        for offset, size in taken:
            if at + AREA <= offset:
                break
            at = max(at, offset + size)
        if at + AREA > self.areas_end:
            raise LuksError("There is no room for another key slot", errno.ENOSPC)
        return at

    def put_slot(self, number: int, slot: Slot) -> None:
        self.metadata["keyslots"][str(number)] = {
            "type": "luks2",
            "key_size": slot.key_size,
            "af": {"type": "luks1", "stripes": slot.stripes, "hash": slot.hash},
            "area": {
                "type": "raw",
                "offset": str(slot.offset),
                "size": str(AREA),
                "encryption": CIPHER,
                "key_size": slot.area_key_size,
            },
            "kdf": _plain_kdf(slot.kdf),
        }
        keyslots = self.metadata["digests"]["0"]["keyslots"]
        if str(number) not in keyslots:
            keyslots.append(str(number))

    def remove_slot(self, number: int) -> None:
        del self.metadata["keyslots"][str(number)]
        for each in self.metadata["digests"].values():
            each["keyslots"] = [slot for slot in each["keyslots"] if slot != str(number)]
        for token in self.metadata["tokens"].values():
            token["keyslots"] = [slot for slot in token.get("keyslots", []) if slot != str(number)]

    def put_digest(self, volume_key: bytes) -> None:
        """The data has that key, and no slot knows it yet."""
        kdf = Kdf(PBKDF2, os.urandom(32), "sha256", _DIGEST_TIME)
        self.metadata["digests"] = {
            "0": {
                "type": "pbkdf2",
                "keyslots": [],
                "segments": ["0"],
                "hash": kdf.hash,
                "iterations": kdf.time,
                "salt": _text(kdf.salt),
                "digest": _text(digest(kdf, volume_key, 32)),
            }
        }

    def copied(self) -> Luks2:
        """The same, to be changed while this one stays."""
        return Luks2(self.device, copy.deepcopy(self.metadata), self._binary, self.sequence, self._size)

    def write(self) -> None:
        """Make it what the device has, stably: one copy after the other."""
        self.sequence += 1
        text = json.dumps(self.metadata, separators=(",", ":")).encode()
        if len(text) >= self._size - _BINARY:
            raise LuksError("The header has no room for that", errno.ENOSPC)
        _, version, _, _, label, _, _, identity, subsystem, _, _ = _HEAD.unpack_from(self._binary)
        for number, magic in enumerate(_MAGICS):
            head = _HEAD.pack(magic, version, self._size, self.sequence, label, b"sha256", os.urandom(64), identity, subsystem,
                              number * self._size, bytes(64))  # fmt: skip
            data = bytearray(head.ljust(_BINARY, b"\0") + text.ljust(self._size - _BINARY, b"\0"))
            data[_CHECKSUM_AT : _CHECKSUM_AT + 32] = hashlib.sha256(data).digest()
            self.device.pwritev([data], number * self._size)
            self.device.flush()


def new_header(device: Device, sector_size: int, volume_key: bytes, label: str = "") -> Luks2:
    """A header without key slots; nothing is written yet."""
    binary = _HEAD.pack(_MAGICS[0], 2, HEADER, 0, label.encode()[:47], b"sha256", bytes(64), str(uuid.uuid4()).encode(), b"",
                        0, bytes(64))  # fmt: skip
    metadata: dict[str, Any] = {
        "keyslots": {},
        "tokens": {},
        "segments": {
            "0": {
                "type": "crypt",
                "offset": str(DATA_AT),
                "size": "dynamic",
                "iv_tweak": "0",
                "encryption": CIPHER,
                "sector_size": sector_size,
            }
        },
        "digests": {},
        "config": {"json_size": str(HEADER - _BINARY), "keyslots_size": str(DATA_AT - 2 * HEADER)},
    }
    header = Luks2(device, metadata, binary, 0, HEADER)
    header.put_digest(volume_key)
    return header


def read_header(device: Device) -> Luks2 | None:
    """The header of a device; None where there is none. Raises LuksError for a damaged one, or one that cannot be used here."""
    found: list[Luks2] = []
    damaged = False
    for magic, at in ((_MAGICS[0], 0), *((_MAGICS[1], size) for size in _SIZES)):
        head = _read(device, at, _BINARY)
        if not head.startswith(magic) or int.from_bytes(head[6:8], "big") != 2:
            continue
        header = _copy(device, head, at)
        damaged |= header is None
        found += [header] if header is not None else []
    if not found:
        if damaged:
            raise LuksError("Both copies of the LUKS2 header are damaged")
        return None
    header = max(found, key=lambda each: each.sequence)
    _check(header)
    return header


def _read(device: Device, at: int, length: int) -> bytes:
    if at + length > device.size:
        return b""
    data = bytearray(length)
    device.preadv([memoryview(data)], at)
    return bytes(data)


def _copy(device: Device, head: bytes, at: int) -> Luks2 | None:
    """A copy of the header, if its checksum is right."""
    _, _, size, sequence, _, algorithm, _, _, _, offset, checksum = _HEAD.unpack_from(head)
    if size not in _SIZES or offset != at or algorithm.rstrip(b"\0") not in (b"sha256", b"sha512", b"sha1"):
        return None
    data = bytearray(_read(device, at, size))
    if not data:
        return None
    data[_CHECKSUM_AT : _CHECKSUM_AT + 64] = bytes(64)
    expected = hashlib.new(algorithm.rstrip(b"\0").decode(), data).digest()
    if checksum[: len(expected)] != expected:
        return None
    try:
        metadata = json.loads(bytes(data[_BINARY:]).partition(b"\0")[0])
    except (ValueError, RecursionError):
        return None
    return Luks2(device, metadata, head, sequence, size) if isinstance(metadata, dict) else None


def _check(header: Luks2) -> None:
    """That it says all that is needed, and nothing that is not known here. Raises LuksError."""
    try:
        requirements = header.metadata["config"].get("requirements", {}).get("mandatory", [])
        if requirements:
            raise LuksError(
                f"The header needs what is not known here: {', '.join(map(str, requirements))}", errno.EOPNOTSUPP
            )
        if set(header.metadata["segments"]) != {"0"} or header.segment["type"] != "crypt":
            raise LuksError("The data is in more segments than one, as while it is being encrypted anew: let cryptsetup end that",
                            errno.EOPNOTSUPP)  # fmt: skip
        if header.segment["encryption"] != CIPHER:
            raise LuksError(f"The data is encrypted by {header.segment['encryption']}: only {CIPHER} is supported",
                            errno.EOPNOTSUPP)  # fmt: skip
        if header.sector_size not in (512, 1024, 2048, 4096) or header.data_at % 512 or header.tweak < 0:
            raise LuksError("The header says what cannot be")
        if header.data_size is not None and (header.data_size <= 0 or header.data_size % header.sector_size):
            raise LuksError("The header says what cannot be")
        list(header.slots())
        for each in header.metadata["digests"].values():
            _kdf(each).check()
            _bytes(each["digest"])
        dict(header.metadata["tokens"])
    except LuksError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LuksError(f"The header lacks something, or has it in another form: {error!r}") from None


def _kdf(data: dict[str, Any]) -> Kdf:
    """Of a key slot, or of a digest."""
    salt = _bytes(data["salt"])
    if data["type"] == PBKDF2:
        return Kdf(PBKDF2, salt, data["hash"], data["iterations"])
    if data["type"] == ARGON2ID:
        return Kdf(ARGON2ID, salt, "", data["time"], data["memory"], data["cpus"])
    return Kdf(str(data["type"]), salt)


def _plain_kdf(kdf: Kdf) -> dict[str, Any]:
    if kdf.kind == PBKDF2:
        return {"type": PBKDF2, "salt": _text(kdf.salt), "hash": kdf.hash, "iterations": kdf.time}
    return {"type": ARGON2ID, "salt": _text(kdf.salt), "time": kdf.time, "memory": kdf.memory, "cpus": kdf.lanes}


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"no base64: {error}") from None


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
