"""Mode pages: the table of them, and the parameters of one logical unit (SPC-5, SBC-4).

Parameters belong to the logical unit and are common to all nexuses; there are no saved ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from blockyard.scsi.sense import (
    Asc,
    CheckCondition,
    SenseKey,
    invalid_field,
    invalid_parameter,
    parameter_list_length_error,
)

ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF


class ModeField(NamedTuple):
    """`width` bits from bit `bit` of byte `byte` of the page on."""

    name: str
    byte: int
    bit: int
    width: int
    default: int = 0
    changeable: bool = False


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
        """PAGE CODE, SUBPAGE CODE, PAGE LENGTH (SPC-5, mode page format)."""
        if self.subpage:
            return bytes([0x40 | self.code, self.subpage]) + (self.length - 4).to_bytes(2, "big")
        return bytes([self.code, self.length - 2])


PAGES: dict[tuple[int, int], ModePage] = {
    (page.code, page.subpage): page
    for page in (
        ModePage(
            0x01,
            "Read-Write Error Recovery",
            12,
            (
                ModeField("awre", 2, 7, 1, default=1),  # what is beneath replaces bad blocks by itself
                ModeField("arre", 2, 6, 1, default=1),
            ),
            "SBC-4",
        ),
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
                ModeField("tst", 2, 7, 3),  # one task set for all nexuses
                ModeField("d_sense", 2, 2, 1, changeable=True),
                ModeField("gltsd", 2, 1, 1, default=1),
                ModeField("queue_algorithm_modifier", 3, 7, 4, default=1),  # SIMPLE commands in any order
                ModeField("qerr", 3, 2, 2),
                ModeField("swp", 4, 3, 1, changeable=True),
                ModeField("tas", 5, 6, 1),  # aborted by another nexus: no status, a unit attention
                ModeField("busy_timeout_period", 8, 7, 16, default=0xFFFF),  # not limited
            ),
            "SPC-5",
        ),
        ModePage(
            0x1C,
            "Informational Exceptions Control",
            12,
            (
                ModeField("dexcpt", 2, 3, 1, default=1),  # there is nothing to report
                ModeField("mrie", 3, 3, 4),
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
        number |= values.get(field.name, 0) << 8 * page.length - (8 * field.byte + 7 - field.bit) - field.width
    header = page.header
    return header + number.to_bytes(page.length, "big")[len(header) :]


class ModeParameters:
    """The mode pages of one logical unit; those of thin units where it is `thin`.

    With `write_through` the volatile cache is off and stays off: whoever runs the target has said so.
    """

    def __init__(self, *, write_through: bool = False, thin: bool = False) -> None:
        fixed = {"wce": 0} if write_through else {}
        self._pages = {key: page for key, page in PAGES.items() if thin or not page.thin}
        self._default: dict[tuple[int, int], bytes] = {}
        self._changeable: dict[tuple[int, int], bytes] = {}
        for key, page in self._pages.items():
            self._default[key] = _image(page, {f.name: fixed.get(f.name, f.default) for f in page.fields})
            masks = {f.name: (1 << f.width) - 1 for f in page.fields if f.changeable and f.name not in fixed}
            self._changeable[key] = _image(page, masks)
        self._current = dict(self._default)

    def reset(self) -> None:
        """Back to the defaults (SAM-5 6.3.3)."""
        self._current = dict(self._default)

    def get(self, code: int, name: str, subpage: int = 0) -> int:
        """The current value of a field of a page."""
        page = PAGES[code, subpage]
        field = next(f for f in page.fields if f.name == name)
        shift = 8 * page.length - (8 * field.byte + 7 - field.bit) - field.width
        return int.from_bytes(self._current[code, subpage], "big") >> shift & ((1 << field.width) - 1)

    def sense(self, control: int, code: int, subpage: int) -> bytes:
        """The pages that MODE SENSE asks for; of all subpages with FFh, else of the one that it names (SPC-5)."""
        of_code = [key for key in sorted(self._pages) if code in (ALL_PAGES, key[0])]
        if not of_code:
            raise invalid_field(2, 5)
        chosen = [key for key in of_code if subpage in (ALL_SUBPAGES, key[1])]
        if not chosen or (code == ALL_PAGES and subpage not in (0, ALL_SUBPAGES)):
            raise invalid_field(3)
        if control == PageControl.SAVED:
            raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.SAVING_PARAMETERS_NOT_SUPPORTED)
        source = {
            PageControl.CURRENT: self._current,
            PageControl.CHANGEABLE: self._changeable,
            PageControl.DEFAULT: self._default,
        }[PageControl(control)]
        return b"".join(source[key] for key in chosen)

    def select(self, data: bytes, at: int) -> bool:
        """Take over the pages in `data[at:]`, all or none (SPC-5). Says whether anything changed."""
        new = dict(self._current)
        while at < len(data):
            page = self._page_at(data, at)
            key = page.code, page.subpage
            new[key] = self._changed(key, data[at : at + page.length], at)
            at += page.length
        changed = new != self._current
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
        for offset, (old, value, mask) in enumerate(zip(self._current[key], image, self._changeable[key], strict=True)):
            wrong = (old ^ value) & (~mask if offset >= len(header) else 0)
            if wrong:
                raise invalid_parameter(at + offset, wrong.bit_length() - 1)
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
