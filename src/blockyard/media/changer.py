"""The media changer of a library (SMC-3): its logical unit, its pages and its command table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blockyard.media import volume_tags
from blockyard.media.element_status import read_element_status
from blockyard.media.elements import Element
from blockyard.media.elements import Kind as Elements
from blockyard.media.tape_pages import COMMON_PAGES
from blockyard.media.unit import COMMANDS, MediaUnit
from blockyard.scsi import log, removable, sbc, vpd
from blockyard.scsi.cdb import Command, CommandTable, Conflict, Field, Kind
from blockyard.scsi.durable import Durable
from blockyard.scsi.log import LogPage, Parameter
from blockyard.scsi.mode import ModeField, ModePage, ModeParameters
from blockyard.scsi.nexus import Nexus
from blockyard.scsi.primary import Identity
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey, invalid_field

if TYPE_CHECKING:
    from blockyard.media.library import Library
    from blockyard.scsi.task import Buffer, Task

# ---- pages

VPD_PAGES = vpd.pages()
_CHANGER_FLAGS = 32


def _tape_alert(unit: MediaChanger) -> list[Parameter]:
    return [Parameter(flag, b"\0") for flag in range(1, _CHANGER_FLAGS + 1)]  # nothing mechanical can fail


LOG_PAGES = {page.code: page for page in (log.PAGES[log.SUPPORTED], LogPage(0x2E, "TapeAlert", _tape_alert, "SMC-3"))}

_STORES = 0x0E  # drives, import/export elements and slots keep cartridges; the arm does not
_MOVES = 0x0E  # from each of these cartridges can be moved to all of them, and exchanged


def _capabilities(name: str, byte: int, value: int) -> ModeField:
    return ModeField(name, byte, 7, 8, default=value)


def mode_pages(library: Library) -> dict[tuple[int, int], ModePage]:
    """Those of a library, with the addresses of its elements."""
    counts = library.counts
    assignment = []
    # first address and number of elements, in the order of the page
    for at, (kind, first) in enumerate((kind, library.first(kind)) for kind in Elements):
        assignment.append(ModeField(f"first_{kind.name.lower()}", 2 + 4 * at, 7, 16, default=first))
        assignment.append(ModeField(f"count_{kind.name.lower()}", 4 + 4 * at, 7, 16, default=counts[kind]))
    capabilities = [_capabilities("stores", 2, _STORES), *(_capabilities(f"move_{at}", at, _MOVES) for at in (5, 6, 7)),
                    *(_capabilities(f"exchange_{at}", at, _MOVES) for at in (13, 14, 15))]  # fmt: skip
    own = (
        *COMMON_PAGES,
        ModePage(0x1D, "Element Address Assignment", 20, tuple(assignment), "SMC-3"),
        ModePage(0x1E, "Transport Geometry Parameters", 4, (), "SMC-3"),
        ModePage(0x1F, "Device Capabilities", 20, tuple(capabilities), "SMC-3"),
    )
    return {(page.code, page.subpage): page for page in own}


# ---- commands


def _place(unit: MediaChanger, task: Task, name: str) -> Element:
    found = unit.element(task.fields[name])
    if found is None:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_ELEMENT_ADDRESS)
    return found


def check_transport(unit: MediaChanger, task: Task) -> None:
    if task.fields["transport"] not in (0, unit.library.model.transport):
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_ELEMENT_ADDRESS)
    assert task.command is not None
    for name in ("invert", "invert_1", "invert_2"):  # cartridges have one side
        if task.fields.get(name):
            raise task.command.invalid(name)


def move_medium(unit: MediaChanger, task: Task) -> Buffer:
    source, destination = _place(unit, task, "source"), _place(unit, task, "destination")
    if source != destination or source not in unit.library.contents:
        unit.library.move(source, destination)
    return b""


def exchange_medium(unit: MediaChanger, task: Task) -> Buffer:
    places = (_place(unit, task, name) for name in ("source", "first", "second"))
    unit.library.exchange(*places)
    return b""


def position_to_element(unit: MediaChanger, task: Task) -> Buffer:
    """The arm has nowhere to go."""
    if task.fields["destination"] != unit.library.model.transport:
        _place(unit, task, "destination")
    return b""


def initialize_element_status(unit: MediaChanger, task: Task) -> Buffer:
    """What is where is known at all times."""
    return b""


def check_open_close(unit: MediaChanger, task: Task) -> None:
    place = unit.element(task.fields["element"])
    if place is None or place.kind is not Elements.IMPORT_EXPORT:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.INVALID_ELEMENT_ADDRESS)
    if task.fields["action"] > 1:
        raise invalid_field(4, 4)


def open_close(unit: MediaChanger, task: Task) -> Buffer:
    """There is no door; but one that is locked does not open."""
    if unit.tray.locked and not task.fields["action"]:
        raise CheckCondition(SenseKey.ILLEGAL_REQUEST, Asc.MEDIUM_REMOVAL_PREVENTED)
    return b""


_TRANSPORT = Field("transport", 2, 7, 16)
_RANGE = (Field("range", 1, 0, 1), Field("start", 2, 7, 16), Field("number", 6, 7, 16))


def _moving(opcode: int, name: str, length: int, *fields: Field) -> Command:
    run = exchange_medium if opcode == 0xA6 else move_medium
    return Command(
        opcode, name, length, (_TRANSPORT, *fields), run, check=check_transport, blocking=True, exclusive=True,
        timeout=900,
    )  # fmt: skip


_OWN = [
    Command(
        0x07, "INITIALIZE ELEMENT STATUS", 6, (), initialize_element_status, conflict=Conflict.ANY, read_only=True,
        timeout=900,
    ),
    Command(
        0x1B, "OPEN/CLOSE IMPORT/EXPORT ELEMENT", 6, (Field("element", 2, 7, 16), Field("action", 4, 4, 5)), open_close,
        check=check_open_close,
    ),
    Command(
        0x1E, "PREVENT ALLOW MEDIUM REMOVAL", 6, (Field("prevent", 4, 1, 2),), removable.prevent_allow_medium_removal,
        check=removable.check_prevent_allow, conflict=Conflict.UNLESS_ALLOWS,
    ),
    Command(
        0x2B, "POSITION TO ELEMENT", 10, (_TRANSPORT, Field("destination", 4, 7, 16), Field("invert", 8, 0, 1)),
        position_to_element, check=check_transport, read_only=True,
    ),
    Command(
        0x37, "INITIALIZE ELEMENT STATUS WITH RANGE", 10, (Field("fast", 1, 1, 1), *_RANGE), initialize_element_status,
        read_only=True, timeout=900,
    ),
    _moving(0xA5, "MOVE MEDIUM", 12, Field("source", 4, 7, 16), Field("destination", 6, 7, 16),
            Field("invert", 10, 0, 1)),
    _moving(0xA6, "EXCHANGE MEDIUM", 12, Field("source", 4, 7, 16), Field("first", 6, 7, 16),
            Field("second", 8, 7, 16), Field("invert_1", 10, 1, 1), Field("invert_2", 10, 0, 1)),
    Command(
        0xB5, "REQUEST VOLUME ELEMENT ADDRESS", 12,
        (
            Field("voltag", 1, 4, 1), Field("element_type", 1, 3, 4, Kind.IGNORED), Field("start", 2, 7, 16),
            Field("number", 4, 7, 16), Field("allocation_length", 7, 7, 24),
        ),
        volume_tags.request_volume_element_address, blocking=True, exclusive=True, conflict=Conflict.EXCLUSIVE_ACCESS,
        timeout=60,
    ),
    Command(
        0xB6, "SEND VOLUME TAG", 12,
        (
            Field("element_type", 1, 3, 4), Field("start", 2, 7, 16), Field("action", 5, 4, 5),
            Field("parameter_list_length", 8, 7, 16),
        ),
        volume_tags.send_volume_tag, check=volume_tags.check_send, data_out=sbc.parameter_list, blocking=True,
        exclusive=True, conflict=Conflict.EXCLUSIVE_ACCESS, timeout=60,
    ),
    Command(
        0xB8, "READ ELEMENT STATUS", 12,
        (
            Field("voltag", 1, 4, 1), Field("element_type", 1, 3, 4), Field("start", 2, 7, 16),
            Field("number", 4, 7, 16), Field("mixed", 6, 2, 1, Kind.IGNORED), Field("curdata", 6, 1, 1),
            Field("dvcid", 6, 0, 1), Field("allocation_length", 7, 7, 24),
        ),
        read_element_status, blocking=True, exclusive=True, conflict=Conflict.EXCLUSIVE_ACCESS, timeout=60,
    ),
    Command(
        0xE7, "INITIALIZE ELEMENT STATUS WITH RANGE (vendor)", 10, (*_RANGE, Field("nbl", 9, 7, 1, Kind.IGNORED)),
        initialize_element_status, read_only=True, timeout=900,
    ),
]  # fmt: skip

CHANGER_COMMANDS = CommandTable([*COMMANDS, *_OWN])


class MediaChanger(MediaUnit):
    """The logical unit by which hosts move cartridges."""

    peripheral = 0x08
    commands = CHANGER_COMMANDS
    vpd_pages = VPD_PAGES
    log_pages = LOG_PAGES
    standards = (0x00A0, 0x0960, 0x0460, 0x0480)  # SAM-5, iSCSI, SPC-4, SMC-3

    def __init__(self, identity: Identity, durable: Durable | None, *, library: Library, serial: str) -> None:
        super().__init__(identity, durable, model=library.model, serial=serial)
        self.library = library
        self.mode = ModeParameters(self.durable, pages=mode_pages(library), bare=True)
        self.searches: dict[Nexus, volume_tags.Found] = {}
        self.update()

    def detach(self, nexus: Nexus) -> None:
        super().detach(nexus)
        self.searches.pop(nexus, None)

    def reset(self) -> None:
        self.searches.clear()
        super().reset()

    def pending_condition(self, nexus: Nexus) -> CheckCondition | None:
        return nexus.take_attention()

    def element(self, address: int) -> Element | None:
        """The element with an address, but the arm, which keeps nothing."""
        return self.library.by_address(address)

    def accessed(self, place: Element) -> None:
        """Somebody has put in a cartridge by hand, or taken one out: hosts have to look again."""
        imported = place.kind is Elements.IMPORT_EXPORT
        asc = (
            Asc.IMPORT_OR_EXPORT_ELEMENT_ACCESSED if imported else Asc.NOT_READY_TO_READY_CHANGE_MEDIUM_MAY_HAVE_CHANGED
        )
        self.attention(asc)
