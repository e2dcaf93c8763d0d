"""Mode pages: the table of them, and the parameters of one logical unit (SPC-5, SBC-4).

Parameters belong to the logical unit and are common to all nexuses, as VPD page 87h says. Pages with something to change
in them can be saved (SP, PS); saved values come back after a reset, a restart and power loss.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

from blockyard.scsi.durable import Durable
from blockyard.scsi.sense import (
    invalid_field,
    invalid_parameter,
    parameter_list_length_error,
)

log = logging.getLogger(__name__)

ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF
_PS = 0x80
_SAVED = "mode-pages"  # what the saved values are kept as (scsi/durable.py)


class ModeField(NamedTuple):
    """`width` bits from bit `bit` of byte `byte` of the page on."""

    name: str
    byte: int
    bit: int
    width: int
    default: int = 0
    changeable: bool = False
    values: tuple[int, ...] = ()  # that it can be changed to; none: to every one

    def shift(self, length: int) -> int:
        """How far right its least significant bit is in a page of `length` bytes, seen as one number."""
        return 8 * length - (8 * self.byte + 7 - self.bit) - self.width


@dataclass(frozen=True)
class ModePage:
    """A mode page, in page_0 format or, with a subpage code, in sub_page format; bits that no field covers are zero."""

    code: int
    name: str
    length: int  # with its header of two bytes, or of four
    fields: tuple[ModeField, ...]
    standard: str
    subpage: int = 0
    thin: bool = False  # of thin units only

    @property
    def header(self) -> bytes:
        """PS, PAGE CODE, SUBPAGE CODE, PAGE LENGTH (SPC-5, mode page format)."""
        first = self.code | (_PS if self.savable else 0)
        if self.subpage:
            return bytes([0x40 | first, self.subpage]) + (self.length - 4).to_bytes(2, "big")
        return bytes([first, self.length - 2])

    @property
    def savable(self) -> bool:
        """Whether there is anything in it to save."""
        return any(field.changeable for field in self.fields)

    def fixed(self, **values: int) -> ModePage:
        """The same page, as a device has it where some fields have one value for good."""
        fields = (
            field._replace(default=values[field.name], changeable=False) if field.name in values else field
            for field in self.fields
        )
        return replace(self, fields=tuple(fields))


PAGES: dict[tuple[int, int], ModePage] = {
    (page.code, page.subpage): page
    for page in (
        ModePage(
            0x01,
            "Read-Write Error Recovery",
            12,
            (  # what is beneath replaces bad blocks by itself and retries as it thinks fit
                ModeField("awre", 2, 7, 1, default=1),
                ModeField("arre", 2, 6, 1, default=1),
                ModeField("per", 2, 2, 1),
                ModeField("dte", 2, 1, 1),
            ),
            "SBC-4",
        ),
        # Burst lengths are a matter of the session's negotiation (RFC 7143 §13.13, §13.14): 0 says that nothing else limits
        ModePage(0x02, "Disconnect-Reconnect", 16, (ModeField("maximum_burst_size", 10, 7, 16),), "SPC-5"),
        ModePage(0x07, "Verify Error Recovery", 12, (ModeField("per", 2, 2, 1), ModeField("dte", 2, 1, 1)), "SBC-4"),
        ModePage(
            0x08,
            "Caching",
            20,
            (
                ModeField("wce", 2, 2, 1, default=1, changeable=True),  # SYNCHRONIZE CACHE is needed
                ModeField("rcd", 2, 0, 1),
            ),
            "SBC-4",
        ),
        ModePage(
            0x0A,
            "Control",
            12,
            (
                ModeField(
                    "tst", 2, 7, 3, changeable=True, values=(0, 1)
                ),  # one task set for all nexuses, or each its own
                ModeField("dpicz", 2, 3, 1, changeable=True),  # of units with protection information only
                ModeField("d_sense", 2, 2, 1, changeable=True),
                ModeField("gltsd", 2, 1, 1, default=1),
                # SIMPLE commands of one nexus in their order, or in any
                ModeField("queue_algorithm_modifier", 3, 7, 4, default=1, changeable=True, values=(0, 1)),
                ModeField("qerr", 3, 2, 2, changeable=True, values=(0, 1, 3)),
                ModeField("ua_intlck_ctrl", 4, 5, 2, changeable=True, values=(0, 2, 3)),
                ModeField("swp", 4, 3, 1, changeable=True),
                ModeField("ato", 5, 7, 1, changeable=True),  # likewise: whose the application tags are
                # aborted by another nexus: a unit attention only, or a status, so that nobody waits for what will not come
                ModeField("tas", 5, 6, 1, default=1, changeable=True),
                ModeField("busy_timeout_period", 8, 7, 16, default=0xFFFF),  # not limited
            ),
            "SPC-5",
        ),
        ModePage(
            0x0A,
            "Control Extension",
            32,
            (
                ModeField("tcmos", 4, 2, 1, default=1),  # the clock of the host sets the timestamp too,
                ModeField("scsip", 4, 1, 1, default=1),  # but what SET TIMESTAMP says goes before that
                ModeField("initial_command_priority", 5, 3, 4, changeable=True),
            ),
            "SPC-5",
            subpage=0x01,
        ),
        # no timer brings about a power condition: only START STOP UNIT does
        ModePage(0x1A, "Power Condition", 40, (ModeField("idle_a", 3, 1, 1), ModeField("standby_z", 3, 0, 1)), "SPC-5"),
        ModePage(
            0x1C,
            "Informational Exceptions Control",
            12,
            (
                ModeField("dexcpt", 2, 3, 1, changeable=True),
                ModeField("test", 2, 2, 1, changeable=True),
                # not at all, by a unit attention, or when REQUEST SENSE asks (scsi/health.py)
                ModeField("mrie", 3, 3, 4, default=6, changeable=True, values=(0, 2, 6)),
            ),
            "SBC-4",
        ),
        ModePage(
            0x1C,
            "Logical Block Provisioning",
            32,
            (
                ModeField("situa", 4, 0, 1),  # a threshold is told to every nexus, not to a single one
                # two threshold descriptors: resource 01h, available, armed decreasing; 02h, used, armed increasing
                ModeField("available_enabled", 16, 7, 1, changeable=True),
                ModeField("available_resource", 17, 7, 8, default=1),
                ModeField("available_count", 20, 7, 32, changeable=True),
                ModeField("used_enabled", 24, 7, 1, changeable=True),
                ModeField("used_arming", 24, 2, 3, default=1),
                ModeField("used_resource", 25, 7, 8, default=2),
                ModeField("used_count", 28, 7, 32, changeable=True),
            ),
            "SBC-4",
            subpage=0x02,
            thin=True,
        ),
    )
}


class PageControl(IntEnum):
    """Which values MODE SENSE returns (SPC-5, PC field)."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


def _image(page: ModePage, values: dict[str, int]) -> bytes:
    number = 0
    for field in page.fields:
        number |= values.get(field.name, 0) << field.shift(page.length)
    header = page.header
    return header + number.to_bytes(page.length, "big")[len(header) :]


def _value(page: ModePage, field: ModeField, image: bytes) -> int:
    return int.from_bytes(image, "big") >> field.shift(page.length) & ((1 << field.width) - 1)


def _name(key: tuple[int, int]) -> str:
    """A page as the saved values name it."""
    return f"{key[0]:02x}/{key[1]:02x}"


class ModeParameters:
    """The mode pages of one logical unit, of a table of `pages`; those of thin units where it is `thin`.

    Where they may be `bare`, page code 0 asks for header and block descriptor alone, as Linux asks tape drives.
    With `write_through` the volatile cache is off and stays off: whoever runs the target has said so. `defaults` are those of
    this unit, by the names of fields, where it has others than the table.
    """

    def __init__(
        self,
        durable: Durable,
        *,
        write_through: bool = False,
        protected: bool = False,
        thin: bool = False,
        defaults: Mapping[str, int] | None = None,
        pages: Mapping[tuple[int, int], ModePage] = PAGES,
        bare: bool = False,
    ) -> None:
        self._durable = durable
        self._bare = bare
        fixed = {"wce": 0} if write_through else {}
        if not protected:
            fixed |= {"dpicz": 0, "ato": 0}
        own = {**(defaults or {}), **fixed}
        self._pages = {key: page for key, page in pages.items() if thin or not page.thin}
        self._places = {  # shift and mask of each field, by page, subpage and name
            (*key, field.name): (field.shift(page.length), (1 << field.width) - 1)
            for key, page in self._pages.items()
            for field in page.fields
        }
        self._default: dict[tuple[int, int], bytes] = {}
        self._changeable: dict[tuple[int, int], bytes] = {}
        for key, page in self._pages.items():
            self._default[key] = _image(page, {f.name: own.get(f.name, f.default) for f in page.fields})
            masks = {f.name: (1 << f.width) - 1 for f in page.fields if f.changeable and f.name not in fixed}
            self._changeable[key] = _image(page, masks)
        self._saved = dict(self._default)
        self._load()
        self._current = dict(self._saved)

    def _load(self) -> None:
        """Take over what was saved, as far as it can still be changed."""
        try:
            document = self._durable.load(_SAVED) or {}
            saved = {name: bytes.fromhex(image) for name, image in document.items()}
        except (OSError, ValueError, AttributeError, TypeError) as error:
            log.error("the saved mode pages are lost, the defaults hold: %s", error)
            return
        for key, default in self._default.items():
            image = saved.get(_name(key), default)
            if len(image) == len(default):
                self._saved[key] = bytes(
                    a & ~mask | b & mask for a, b, mask in zip(default, image, self._masks(key), strict=True)
                )

    def _masks(self, key: tuple[int, int]) -> bytes:
        """What can be changed of a page; nothing of its header."""
        header = len(self._pages[key].header)
        return bytes(header) + self._changeable[key][header:]

    def reset(self) -> None:
        """Back to the saved values, or the defaults (SAM-5 6.3.3)."""
        self._current = dict(self._saved)

    def get(self, code: int, name: str, subpage: int = 0) -> int:
        """The current value of a field of a page."""
        shift, mask = self._places[code, subpage, name]
        return int.from_bytes(self._current[code, subpage], "big") >> shift & mask

    def put(self, code: int, name: str, value: int, subpage: int = 0) -> None:
        """The device itself has changed the current value of a field."""
        shift, mask = self._places[code, subpage, name]
        image = self._current[code, subpage]
        rest = int.from_bytes(image, "big") & ~(mask << shift)
        self._current[code, subpage] = (rest | value << shift).to_bytes(len(image), "big")

    def sense(self, control: int, code: int, subpage: int) -> bytes:
        """The pages that MODE SENSE asks for; of all subpages with FFh, else of the one that it names (SPC-5)."""
        if self._bare and not code:
            return b""
        of_code = [key for key in sorted(self._pages) if code in (ALL_PAGES, key[0])]
        if not of_code:
            raise invalid_field(2, 5)
        chosen = [key for key in of_code if subpage in (ALL_SUBPAGES, key[1])]
        if not chosen or (code == ALL_PAGES and subpage not in (0, ALL_SUBPAGES)):
            raise invalid_field(3)
        source = {
            PageControl.CURRENT: self._current,
            PageControl.CHANGEABLE: self._changeable,
            PageControl.DEFAULT: self._default,
            PageControl.SAVED: self._saved,
        }[PageControl(control)]
        return b"".join(source[key] for key in chosen)

    def select(self, data: bytes, at: int, *, save: bool = False) -> bool:
        """Take over the pages in `data[at:]`, all or none; with `save` save all current values (SPC-5, SP).

        Says whether anything changed. Raises OSError when they cannot be saved; then nothing has.
        """
        new = dict(self._current)
        while at < len(data):
            page = self._page_at(data, at)
            key = page.code, page.subpage
            new[key] = self._changed(key, data[at : at + page.length], at)
            at += page.length
        changed = new != self._current
        if save:
            savable = {key: image for key, image in new.items() if self._pages[key].savable}
            self._durable.save(_SAVED, {_name(key): image.hex() for key, image in savable.items()})
            self._saved |= savable
        self._current = new
        return changed

    def _page_at(self, data: bytes, at: int) -> ModePage:
        """The page that begins at `data[at]`, which is all there."""
        header_length = 4 if data[at] & 0x40 else 2  # SPF: sub_page format
        if at + header_length > len(data):
            raise parameter_list_length_error()
        code = data[at] & 0x3F
        page = self._pages.get((code, data[at + 1] if header_length == 4 else 0))
        if page is None:
            known = any(code == key[0] for key in self._pages)
            raise invalid_parameter(at + 1) if known else invalid_parameter(at, 5)
        for offset in range(header_length // 2, header_length):  # PAGE LENGTH
            if data[at + offset] != page.header[offset]:
                raise invalid_parameter(at + header_length // 2)
        if at + page.length > len(data):
            raise parameter_list_length_error()
        return page

    def _changed(self, key: tuple[int, int], data: bytes, at: int) -> bytes:
        header = self._pages[key].header
        image = header + data[len(header) :]  # the PS bit is reserved in MODE SELECT
        for offset, (old, value, mask) in enumerate(zip(self._current[key], image, self._masks(key), strict=True)):
            wrong = (old ^ value) & ~mask
            if wrong:
                raise invalid_parameter(at + offset, wrong.bit_length() - 1)
        for field in self._pages[key].fields:
            if field.values and _value(self._pages[key], field, image) not in field.values:
                raise invalid_parameter(at + field.byte, field.bit)
        if key == (0x1C, 0) and image[2] & 0x0C == 0x0C:  # TEST of what DEXCPT has switched off
            raise invalid_parameter(at + 2, 2)
        return image


def block_descriptor(blocks: int, block_size: int, *, long: bool) -> bytes:
    """The mode parameter block descriptor of a disk: short or long LBA form (SBC-4)."""
    if long:
        return blocks.to_bytes(8, "big") + bytes(4) + block_size.to_bytes(4, "big")
    return min(blocks, 0xFFFFFFFF).to_bytes(4, "big") + b"\x00" + block_size.to_bytes(3, "big")


def check_block_descriptors(data: bytes, at: int, length: int, blocks: int, block_size: int, *, long: bool) -> None:
    """Raise CheckCondition unless the descriptors at `data[at:at + length]` leave capacity and block size alone."""
    size = 16 if long else 8
    if length not in (0, size):
        raise invalid_parameter(at - 1)  # BLOCK DESCRIPTOR LENGTH ends just before them
    if at + length > len(data):
        raise parameter_list_length_error()
    if not length:
        return
    count_end = at + (8 if long else 4)
    count = int.from_bytes(data[at:count_end], "big")
    same = block_descriptor(blocks, block_size, long=long)
    if count and data[at:count_end] != same[: count_end - at]:
        raise invalid_parameter(at)
    width = 4 if long else 3
    if data[at + size - width : at + size] != same[size - width :]:
        raise invalid_parameter(at + size - width)
