"""A tape library: elements, the cartridges in them, and what moves these; without a word of SCSI but its sense codes.

    <directory>/library.elements.json     who it is, and which cartridge is where
    <directory>/cartridges/<barcode>/     the cartridges (docs/tape-format.md); those that are in no element are on the shelf
    <directory>/units/                    what its logical units keep (scsi/durable.py)
    <directory>/lock                      held by whoever serves it

Where a cartridge is has been written down before a move ends, so that a restart finds it there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import uuid
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from threading import BoundedSemaphore, RLock
from typing import Any

from blockyard.media import cartridge as cartridges
from blockyard.media import keeping
from blockyard.media.cartridge import Description, describe
from blockyard.media.changer import MediaChanger
from blockyard.media.drive import TapeDrive
from blockyard.media.elements import Element, Kind
from blockyard.media.generations import Generation
from blockyard.media.models import DriveModel, LibraryModel
from blockyard.scsi.durable import Durable
from blockyard.scsi.primary import Identity, PrimaryUnit
from blockyard.scsi.sense import Asc, CheckCondition, SenseKey

log = logging.getLogger(__name__)

_KIND = "elements"
_ASKERS = 2  # requests of people that move or change cartridges at a time: a move may wait for its drive


class Library:
    """One library that is open, with its logical units: `changer`, and `drives`. Safe to use from several threads.

    Raises OSError when its directory cannot be used; EBUSY when somebody else has it open.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        model: LibraryModel,
        drive_model: DriveModel,
        drives: int,
        slots: int,
        import_export: int,
    ) -> None:
        self.name = name
        self.directory = directory
        self.model = model
        self.counts = {Kind.TRANSPORT: 1, Kind.SLOT: slots, Kind.IMPORT_EXPORT: import_export, Kind.DRIVE: drives}
        self._closed = False
        self._lock_fd = _take(directory)
        try:
            self._cartridges = directory / "cartridges"
            self._cartridges.mkdir(mode=0o700, exist_ok=True)
            keeping.clear(self._cartridges)
            self._durable = Durable(directory, "library")
            self.lock = RLock()  # held while cartridges move; drives have locks of their own, which are taken after it
            self.askers = BoundedSemaphore(_ASKERS)  # for people, who wait for `lock` in a thread each
            # These are replaced whole: who only looks takes them once and needs no lock, as a move may wait for a drive
            self.contents: dict[Element, str] = {}
            self.sources: dict[str, Element] = {}  # where cartridges were before they were moved
            self._labelling: tuple[str, str] | None = None  # a cartridge that is just getting another barcode
            self._load()
            self.changer = self._changer()
            self.drives = [self._drive(number, drive_model) for number in range(drives)]
            for place, barcode in self.contents.items():
                if place.kind is Kind.DRIVE:
                    self.drives[place.number].put_back(self._cartridges / barcode)
        except BaseException:
            os.close(self._lock_fd)
            raise

    def _identity(self, part: str) -> Identity:
        return Identity(uuid.uuid5(self.uuid, part), f"{self.name}/{part}")

    def _changer(self) -> MediaChanger:
        identity = self._identity("changer")
        durable = Durable(self.directory / "units", identity.uuid)
        return MediaChanger(identity, durable, library=self, serial=_serial(identity))

    def _drive(self, number: int, model: DriveModel) -> TapeDrive:
        identity = self._identity(f"drive-{number + 1}")
        durable = Durable(self.directory / "units", identity.uuid)
        return TapeDrive(identity, durable, model=model, serial=_serial(identity))

    @property
    def units(self) -> list[PrimaryUnit]:
        """The changer, then the drives: LUN 0 and those after it."""
        return [self.changer, *self.drives]

    def close(self) -> None:
        """Raises OSError when a cartridge cannot be left as it should; everything is closed nevertheless."""
        self._closed = True
        failure: OSError | None = None
        for drive in self.drives:
            try:
                drive.close()
            except OSError as error:
                failure = error
        os.close(self._lock_fd)
        if failure is not None:
            raise failure

    def _check_open(self) -> None:
        """Raise OSError where it was closed: another may have the directory, and who has waited changes nothing any more."""
        if self._closed:
            raise OSError(errno.ESHUTDOWN, "The library is not served here any more", str(self.directory))

    # ---- what is kept

    def _load(self) -> None:
        document = self._durable.load(_KIND) or {"uuid": str(uuid.uuid4()), "places": {}}
        try:
            self.uuid = uuid.UUID(str(document["uuid"]))
            self._finish_labelling(document.get("labelling"))
            for barcode, (place, source) in dict(document["places"]).items():
                self._put_back(barcode, _element(place), None if source is None else _element(source))
        except (LookupError, TypeError, ValueError) as error:
            raise OSError(errno.EUCLEAN, f"The list of elements is damaged ({error})", str(self.directory)) from error
        self._save()

    def _finish_labelling(self, labelling: list[str] | None) -> None:
        """A crash has cut it short: places speak of the new barcode already."""
        if labelling is None:
            return
        old, new = labelling
        try:
            keeping.relabel(self._cartridges, old, new)
        except OSError as error:
            log.warning("%s: the cartridge %s cannot be made %s: %s", self.name, old, new, error)

    def _put_back(self, barcode: str, place: Element, source: Element | None) -> None:
        if not (self._cartridges / barcode).is_dir():
            log.warning("%s: the cartridge %s is not there any more", self.name, barcode)
        elif place.number >= self.counts[place.kind]:
            log.warning("%s: there is no %s any more: the cartridge %s is on the shelf", self.name, place, barcode)
        else:
            self.contents[place] = barcode
            if source is not None:
                self.sources[barcode] = source

    def _save(self) -> None:
        places = {}
        for place, barcode in self.contents.items():
            source = self.sources.get(barcode)
            places[barcode] = [list(place), None if source is None else list(source)]
        document = {"uuid": str(self.uuid), "places": places}
        if self._labelling is not None:
            document["labelling"] = list(self._labelling)
        self._durable.save(_KIND, document)

    # ---- what hosts and people ask

    def describe(self, barcode: str) -> Description:
        """Raises OSError."""
        return describe(self._cartridges / barcode)

    def used(self, barcode: str) -> int:
        """The bytes that its data takes on the host. Raises OSError."""
        return sum(path.stat().st_size for path in (self._cartridges / barcode).glob("*.data"))

    def barcodes(self) -> list[str]:
        """Of all cartridges, those on the shelf too."""
        return sorted(path.name for path in self._cartridges.iterdir() if not path.name.startswith("."))

    def find(self, barcode: str) -> Element | None:
        """Where a cartridge is; None: on the shelf."""
        return next((place for place, found in self.contents.items() if found == barcode), None)

    def free(self, kind: Kind) -> Element | None:
        """The first empty element of a kind."""
        places = (Element(kind, number) for number in range(self.counts[kind]))
        return next((place for place in places if place not in self.contents), None)

    def first(self, kind: Kind) -> int:
        """The address of the first element of a kind."""
        model = self.model
        return {
            Kind.TRANSPORT: model.transport,
            Kind.SLOT: model.slots,
            Kind.IMPORT_EXPORT: model.import_export,
            Kind.DRIVE: model.drives,
        }[kind]

    def address(self, place: Element) -> int:
        return self.first(place.kind) + place.number

    def by_address(self, address: int) -> Element | None:
        """The element with an address, but the arm, which keeps nothing."""
        for kind in (Kind.SLOT, Kind.IMPORT_EXPORT, Kind.DRIVE):
            if 0 <= address - self.first(kind) < self.counts[kind]:
                return Element(kind, address - self.first(kind))
        return None

    # ---- moves

    def move(self, source: Element, destination: Element) -> None:
        """Raises CheckCondition for what cannot be, OSError."""
        self.exchange(source, destination, None)

    def exchange(self, source: Element, destination: Element, second: Element | None) -> None:
        """Move what is at `source`, and what it displaces to `second`, if there is one. Raises CheckCondition, OSError."""
        with self.lock:
            before = self.contents
            after = self._after(source, destination, second)
            came_from = {before[source]: source}
            if second is not None:
                came_from[before[destination]] = destination
            self._change(after, {**self.sources, **came_from})

    def _after(self, source: Element, destination: Element, second: Element | None) -> dict[Element, str]:
        after = dict(self.contents)
        if source not in after:
            raise _refusal(Asc.MEDIUM_SOURCE_ELEMENT_EMPTY)
        if second is not None and (destination == source or destination not in after):
            raise _refusal(Asc.MEDIUM_SOURCE_ELEMENT_EMPTY)
        moved = after.pop(source)
        displaced = after.pop(destination, None)
        if displaced is not None and second is None:
            raise _refusal(Asc.MEDIUM_DESTINATION_ELEMENT_FULL)
        if displaced is not None and second is not None:
            if second in after or second == destination:
                raise _refusal(Asc.MEDIUM_DESTINATION_ELEMENT_FULL)
            after[second] = displaced
        after[destination] = moved
        return after

    def _change(self, after: dict[Element, str], sources: dict[str, Element]) -> None:
        """Take out of drives what leaves them, write down what is where, and put into drives what comes to them."""
        self._check_open()
        before, sources_before = self.contents, self.sources
        leaving = [place for place in before if place.kind is Kind.DRIVE and after.get(place) != before[place]]
        if any(self.drives[place.number].tray.locked for place in leaving):
            raise _refusal(Asc.MEDIUM_REMOVAL_PREVENTED)
        taken: list[Element] = []
        try:
            for place in leaving:
                self.drives[place.number].take_out()
                taken.append(place)
            self._check_open()  # a drive may have kept this waiting
            self.contents, self.sources = after, sources
            self._save()
        except (CheckCondition, OSError):
            self.contents, self.sources = before, sources_before
            for place in () if self._closed else taken:
                self.drives[place.number].insert(self._cartridges / before[place])
            raise
        for place, barcode in after.items():
            if place.kind is Kind.DRIVE and before.get(place) != barcode:
                self.drives[place.number].insert(self._cartridges / barcode)

    # ---- people

    def create(
        self,
        barcode: str,
        generation: Generation,
        *,
        capacity: int = 0,
        worm: bool = False,
        place: Element | None = None,
    ) -> Element:
        """Make an empty cartridge and put it into an empty element: a slot unless something else was said.

        Raises ValueError where there is no place for it, OSError.
        """
        with self.lock:
            where = self._empty(place or self.free(Kind.SLOT) or self.free(Kind.IMPORT_EXPORT))
            cartridges.create(self._cartridges, barcode, generation, capacity=capacity, worm=worm)
            self._bring(barcode, where)
            return where

    def bring(self, barcode: str, place: Element | None = None) -> Element:
        """Put a cartridge from the shelf into an element: an import/export one unless something else was said."""
        with self.lock:
            if barcode not in self.barcodes():
                raise ValueError(f"there is no cartridge {barcode} on the shelf of {self.name}")
            present = self.find(barcode)
            if present is not None:
                raise ValueError(f"the cartridge {barcode} is in {present} already")
            known = describe(self._cartridges / barcode).barcode
            if known != barcode:
                raise ValueError(f"the directory {barcode} holds the cartridge {known}: give it that name")
            where = self._empty(place or self.free(Kind.IMPORT_EXPORT) or self.free(Kind.SLOT))
            self._bring(barcode, where)
            return where

    def take_away(self, barcode: str) -> Element:
        """Put a cartridge on the shelf, from wherever it is but a drive. Raises ValueError, OSError."""
        with self.lock:
            place = self._in_no_drive(barcode)
            if place is None:
                raise ValueError(f"the cartridge {barcode} is in no element of {self.name}")
            self._take_away(barcode, place)
            self.changer.accessed(place)
            return place

    def protect(self, barcode: str, protected: bool) -> None:
        """Move the switch of a cartridge, which is in no drive. Raises ValueError, OSError."""
        with self.lock:
            self._in_no_drive(barcode)
            description = replace(self.describe(barcode), write_protected=protected)
            cartridges.save(self._cartridges / barcode, description)

    def label(self, barcode: str, new: str) -> Element | None:
        """Stick another barcode on a cartridge, which is in no drive: as if it was taken out for that, and put back.

        Where it is. Raises ValueError, OSError.
        """
        with self.lock:
            place = self._in_no_drive(barcode)
            keeping.check_label(self.describe(barcode), new)
            if new in self.barcodes():
                raise ValueError(f"there is a cartridge {new} in {self.name} or on its shelf already")
            if place is not None:
                self._check_door(place)
            self._label(barcode, new)
            if place is not None:
                self.changer.accessed(place)
            return place

    def _label(self, old: str, new: str) -> None:
        """It has the new barcode where elements are listed first: so a crash finds what is to be done yet."""
        contents, sources = self.contents, self.sources
        self._labelling = old, new
        self.contents = {place: new if found == old else found for place, found in contents.items()}
        self.sources = {new if found == old else found: source for found, source in sources.items()}
        try:
            self._save()
            keeping.relabel(self._cartridges, old, new)
            self._labelling = None
        except OSError:
            self._labelling = None
            self.contents, self.sources = contents, sources
            with contextlib.suppress(OSError):
                keeping.relabel(self._cartridges, new, old)
            with contextlib.suppress(OSError):
                self._save()
            raise
        with contextlib.suppress(OSError):  # what stands there finds it done
            self._save()

    def remove(self, barcode: str) -> None:
        """Throw a cartridge away, which is in no drive, with all that is on it. Raises ValueError, OSError."""
        with self.lock:
            place = self._in_no_drive(barcode)
            if place is not None:
                self._take_away(barcode, place)
            try:
                gone = keeping.discard(self._cartridges, barcode)
            finally:
                if place is not None:
                    self.changer.accessed(place)
        rmtree(gone)  # that takes its time, and nobody sees it any more

    def _take_away(self, barcode: str, place: Element) -> None:
        self._check_door(place)
        after = {where: found for where, found in self.contents.items() if where != place}
        self._change(after, self._sources_without(barcode))

    def _in_no_drive(self, barcode: str) -> Element | None:
        """Where a cartridge is that is to be handled; None: on the shelf. Raises ValueError; OSError where that is too late."""
        self._check_open()
        if barcode not in self.barcodes():
            raise ValueError(f"there is no cartridge {barcode} in {self.name} or on its shelf")
        place = self.find(barcode)
        if place is not None and place.kind is Kind.DRIVE:
            raise ValueError(f"the cartridge {barcode} is in {place}: move it to a slot first")
        return place

    def _sources_without(self, barcode: str) -> dict[str, Element]:
        return {found: source for found, source in self.sources.items() if found != barcode}

    def _empty(self, place: Element | None) -> Element:
        if place is None:
            raise ValueError(f"all slots of {self.name} are full")
        self._check_open()
        if place.kind is Kind.DRIVE or place.number >= self.counts[place.kind]:
            raise ValueError(f"{self.name} has no {place} to put a cartridge into")
        if place in self.contents:
            raise ValueError(f"{place} of {self.name} is full")
        self._check_door(place)
        return place

    def _check_door(self, place: Element) -> None:
        if self.changer.tray.locked:
            raise ValueError(f"an initiator has locked {self.name}: nothing can be put in or taken out ({place})")

    def _bring(self, barcode: str, place: Element) -> None:
        self._change({**self.contents, place: barcode}, self._sources_without(barcode))
        self.changer.accessed(place)


def _element(data: Any) -> Element:
    kind, number = data
    return Element(Kind(kind), int(number))


def _refusal(asc: Asc) -> CheckCondition:
    return CheckCondition(SenseKey.ILLEGAL_REQUEST, asc)


def _serial(identity: Identity) -> str:
    """Ten characters, as drives and libraries have them."""
    return identity.uuid.hex[:10].upper()


def _take(directory: Path) -> int:
    """The lock of a library, which is made when it is missing."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(fd)
        raise OSError(errno.EBUSY, "Somebody else serves this tape library", str(directory)) from error
    return fd
