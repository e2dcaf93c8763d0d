"""The keys of a LUKS disk: opened, made, added, changed, removed, and thrown away.

Whatever is changed is written so that at each step a loss of power leaves a header that opens: the area of a new key slot
first, then both copies of the header one after the other, and only then is the old area written over.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Lock

from blockyard.block.actions import Action, Progress, unwatched
from blockyard.block.cipher.device import CipherDevice
from blockyard.block.cipher.keys import PBKDF2, LuksError, Slot, new_kdf
from blockyard.block.cipher.luks1 import Luks1, read_luks1
from blockyard.block.cipher.luks2 import DATA_AT, STRIPES, Luks2, new_header, read_header
from blockyard.block.cipher.sources import Change, Encryption, Formatting, NewKey, Numbered
from blockyard.block.cipher.xts import Xts
from blockyard.block.device import Device
from blockyard.block.layers import Kind, Opening

_KEY_SIZE = 64  # bytes: AES-256, twice
_LOOK = 1 << 20  # bytes of a device that have to be zeros for it to be empty
Header = Luks1 | Luks2


class KeyRing:
    """What is known of the keys of a disk that is open: its volume key, and the slot that gave it."""

    def __init__(
        self, below: Device, header: Header, number: int, area_key: bytes, volume_key: bytes, opening: Opening
    ) -> None:
        self.header = header
        self._below = below
        self._number = number
        self._area_key = area_key  # of that slot, so that another volume key can be kept in its way
        self._volume_key = volume_key
        self._opening = opening
        self._lock = Lock()  # one change of the header at a time; held over its I/O

    @property
    def can_change(self) -> bool:
        """LUKS1 headers are left to the programs that made them."""
        return isinstance(self.header, Luks2)

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.header.slots()]

    @property
    def text(self) -> str:
        version = 2 if self.can_change else 1
        slots = ", ".join(map(str, self.numbers))
        cipher = f"{len(self._volume_key) * 4}-bit AES-XTS, {self.header.sector_size}-byte sectors"
        return f"LUKS{version}, {cipher}, key slots {slots}"

    def xts(self) -> Xts:
        return Xts(self._volume_key, self.header.sector_size, self.header.tweak)

    def actions(self) -> Mapping[str, Action]:
        if not self.can_change:
            return {}
        return {
            "add-key": Action("Add a passphrase", self._add, NewKey),
            "change-key": Action("Replace a passphrase by another", self._change, Change),
            "remove-key": Action("Remove a passphrase", self._remove, Numbered),
        }

    def _luks2(self) -> Luks2:
        assert isinstance(self.header, Luks2)
        return self.header.copied()

    def _add(self, options: NewKey, progress: Progress) -> str:
        passphrase = options.passphrase(self._opening)
        with self._lock:
            header = self._luks2()
            number = header.free_number()
            write_slot(header, number, options, passphrase, self._volume_key)
            header.write()
            self.header = header
        return f"the passphrase is in key slot {number}"

    def _change(self, options: Change, progress: Progress) -> str:
        passphrase = options.passphrase(self._opening)
        with self._lock:
            header = self._luks2()
            number = self._number if options.slot < 0 else options.slot
            old = self._known(header, number)
            area_key = write_slot(header, number, options, passphrase, self._volume_key)
            header.write()
            self.header = header
            if number == self._number:
                self._area_key = area_key
            wipe(self._below, [old])
        return f"the passphrase of key slot {number} is another one now"

    def _remove(self, options: Numbered, progress: Progress) -> str:
        with self._lock:
            header = self._luks2()
            old = self._known(header, options.slot)
            if options.slot == self._number:
                raise ValueError(f"the disk is open by key slot {options.slot}: change that, or open it by another")
            header.remove_slot(options.slot)
            header.write()
            self.header = header
            wipe(self._below, [old])
        return f"key slot {options.slot} is gone"

    def _known(self, header: Luks2, number: int) -> Slot:
        slots = dict(header.slots())
        if number not in slots:
            raise ValueError(f"there is no key slot {number}; there are {', '.join(map(str, slots))}")
        return slots[number]

    def renew(self) -> Xts:
        """Have a new volume key, known to the slot that gave the old one alone; the old one cannot be found any more."""
        with self._lock:
            header = self._luks2()
            slots = dict(header.slots())
            volume_key = os.urandom(len(self._volume_key))
            slot = replace(slots[self._number], offset=header.free_area())
            self._below.pwritev([slot.seal(self._area_key, volume_key)], slot.offset)
            self._below.flush()
            for number in list(header.metadata["keyslots"]):
                header.remove_slot(int(number))
            header.put_digest(volume_key)
            header.put_slot(self._number, slot)
            header.write()
            self.header, self._volume_key = header, volume_key
            wipe(self._below, list(slots.values()))
        return self.xts()


def write_slot(header: Luks2, number: int, options: NewKey, passphrase: bytes, volume_key: bytes) -> bytes:
    """Put a volume key into an area of its own, stably, and say so in the header, which is not written yet; the area's key."""
    kdf = new_kdf(options.kdf, options.time, options.memory >> 10)
    slot = Slot(kdf, header.free_area(), len(volume_key), STRIPES, "sha256")
    area_key = slot.area_key(passphrase)
    header.device.pwritev([slot.seal(area_key, volume_key)], slot.offset)
    header.device.flush()
    header.put_slot(number, slot)
    return area_key


def wipe(device: Device, slots: Sequence[Slot]) -> None:
    """Write over the areas of slots that are not in the header any more."""
    for slot in slots:
        device.pwritev([os.urandom(slot.length)], slot.offset)
    device.flush()


def open_cipher(children: Sequence[Device], options: Encryption, opening: Opening) -> CipherDevice:
    """Raises LuksError; ENOKEY when the passphrase is of no key slot."""
    (below,) = children
    header: Header | None = read_header(below) or read_luks1(below)
    if header is None:
        raise LuksError(f"{below.label} has no LUKS header; `blockyard layer create` makes one")
    if header.data_at >= below.size:
        raise LuksError(f"{below.label} was cut short: its data begins beyond its end")
    keys = _unlocked(below, header, options, opening)
    return CipherDevice(
        below, keys.xts(), keys, start=header.data_at, size=header.data_size, read_only=opening.read_only,
        discard=options.discard,
    )  # fmt: skip


def _unlocked(below: Device, header: Header, options: Encryption, opening: Opening) -> KeyRing:
    passphrase = options.passphrase(opening)
    count = 0
    for number, slot in header.slots():
        count += 1
        area = bytearray(slot.length)
        below.preadv([memoryview(area)], slot.offset)
        area_key = slot.area_key(passphrase)
        volume_key = slot.open(area_key, bytes(area))
        if header.is_volume_key(number, volume_key):
            return KeyRing(below, header, number, area_key, volume_key, opening)
    raise LuksError(f"The key from {options} fits none of the {count} key slots", errno.ENOKEY)


def create_cipher(
    children: Sequence[Device], options: Formatting, opening: Opening, progress: Progress = unwatched
) -> str:
    """Make a LUKS2 header; what is behind it stays as it is, and reads as noise."""
    (below,) = children
    if below.size < DATA_AT + options.sector:
        raise LuksError(f"{below.size} bytes are too few: the header takes {DATA_AT >> 20} MiB")
    if not options.force:
        data = bytearray(min(_LOOK, below.size))
        below.preadv([memoryview(data)], 0)
        if any(data):
            raise LuksError("The device holds something: say force=true to write over it")
    passphrase = options.passphrase(opening)
    volume_key = os.urandom(_KEY_SIZE)
    header = new_header(below, options.sector, volume_key, options.label)
    if options.force:
        below.discard(0, DATA_AT)
        below.flush()
    try:
        progress(0, 2)
        write_slot(header, 0, options, passphrase, volume_key)
        progress(1, 2)
        header.write()
    except BaseException:
        with contextlib.suppress(OSError):
            # Nothing is found there, by whoever tries again; what was behind the zeros that were looked at is as it was.
            below.write_zeroes(0, DATA_AT if options.force else _LOOK)
        raise
    weak = " (a passphrase that people can remember wants argon2id)" if options.kdf == PBKDF2 else ""
    return f"LUKS2 {header.uuid} with {options.kdf}{weak}; who loses the key loses the data"


KINDS = (
    Kind(
        "luks",
        "What is written is encrypted: AES-XTS with a LUKS2 header (or LUKS1), as cryptsetup has it.",
        open_cipher,
        Encryption,
        paths=("key_file",),
        create=create_cipher,
        creation=Formatting,
        unit="steps",
        example="luks(key_file=/etc/blockyard/disk.key, /srv/disk.img)",
    ),
)
