"""Discs and cartridges that are copied, and cartridges made in numbers: jobs of a drive or a tape library, done by its server."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from blockyard.block.size import format_size, parse_size
from blockyard.media import image as tape_image
from blockyard.media.cartridge import check_characters
from blockyard.media.elements import Kind, element
from blockyard.media.generations import by_barcode, series
from blockyard.media.library import Library
from blockyard.optical.disc import Disc
from blockyard.optical.export import check, export
from blockyard.optical.jukebox import find, place
from blockyard.worker.asking import number_in, text_in
from blockyard.worker.drives import OpenDrive
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.jobs import Job, Jobs
from blockyard.worker.later import Answer, Later
from blockyard.worker.tape_requests import wanted

_ROOM = (Kind.SLOT, Kind.IMPORT_EXPORT)  # where new cartridges come to
_MOST = 10_000  # cartridges that are made at a time: as many slots as a library has at most


def of(inventory: Inventory, owner: str) -> Jobs:
    """Those of a drive or a library."""
    return inventory.media_jobs.setdefault(owner, Jobs("blockyard optical jobs"))


def jobs(inventory: Inventory, request: Message) -> Message:
    """All of them, each with its owner: "drive:NAME" or "library:NAME"."""
    return {
        "jobs": [{"owner": owner, **job.describe()} for owner, jobs in inventory.media_jobs.items() for job in jobs]
    }


def cancel(inventory: Inventory, request: Message) -> Message:
    """Have one stop; whether there is one of that number here."""
    owner, number = text_in(request, "owner"), number_in(request, "job")
    found = [job for job in inventory.media_jobs.get(owner, ()) if job.number == number]
    for job in found:
        job.cancel()
    return {"cancelled": bool(found)}


# ---- discs


def export_disc(drive: OpenDrive, jobs: Jobs, request: Message) -> Answer:
    """Copy a disc to a file anywhere: an ISO image, or a cue sheet with its data."""
    return _copy(drive, jobs, "export", text_in(request, "image"), Path(text_in(request, "file")))


def import_disc(drive: OpenDrive, jobs: Jobs, request: Message) -> Answer:
    """Copy an image from anywhere into the jukebox."""
    new = place(drive.configured.jukebox, text_in(request, "image"))
    return _copy(drive, jobs, "import", os.path.abspath(text_in(request, "file")), new)


def convert_disc(drive: OpenDrive, jobs: Jobs, request: Message) -> Answer:
    """Copy a disc of the jukebox to another name there: of a cue sheet an image, of what was burned a plain one."""
    new = place(drive.configured.jukebox, text_in(request, "to"))
    return _copy(drive, jobs, "convert", text_in(request, "image"), new)


def _copy(drive: OpenDrive, jobs: Jobs, kind: str, source: str, target: Path) -> Answer:
    """What cannot be done is said at once: the job begins when the disc is open."""

    def work() -> Disc:
        with contextlib.ExitStack() as undo:
            disc = undo.enter_context(contextlib.closing(Disc(find(drive.configured.jukebox, source))))
            check(disc, target)
            if target.exists():
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), os.fspath(target))
            undo.pop_all()
        return disc

    def begin(disc: Disc) -> Message:
        def copy(job: Job) -> str:
            with contextlib.closing(disc):
                job.unit, total = "bytes", check(disc, target)
                export(disc, target, lambda done: job(done, total))
                job.done = job.total = total
                return f"{target} has {format_size(total)}"

        try:
            return {"job": jobs.start(kind, f"{disc.path.name} to {target.name}", copy).number}
        except (ValueError, OSError):
            disc.close()
            raise

    return Later(work, begin)


DISC_JOBS: Mapping[str, Callable[[OpenDrive, Jobs, Message], Answer]] = {
    "export": export_disc,
    "import": import_disc,
    "convert": convert_disc,
}


# ---- cartridges


def export_image(library: Library, jobs: Jobs, request: Message) -> Job:
    """Copy what is on a partition of a cartridge that is in no drive to a tape image. Raises ValueError."""
    barcode, target = text_in(request, "barcode"), Path(text_in(request, "file"))
    partition, where = number_in(request, "partition"), library.find(barcode)
    if barcode not in library.barcodes():
        raise ValueError(f"there is no cartridge {barcode} in {library.name} or on its shelf")
    if where is not None and where.kind is Kind.DRIVE:
        raise ValueError(f"the cartridge {barcode} is in {where}: move it to a slot first")

    def work(job: Job) -> str:
        job.unit = "objects"
        count = tape_image.export(library.directory / "cartridges" / barcode, partition, target, job)
        return f"{target} has {count} blocks and filemarks"

    return jobs.start("export", barcode, work)


def import_image(library: Library, jobs: Jobs, request: Message) -> Job:
    """Make a cartridge of a tape image, and bring it in. Raises ValueError."""
    barcode, source, size = text_in(request, "barcode"), Path(text_in(request, "file")), request.get("size")
    where = request.get("element")
    place_wanted = None if where is None else element(str(where))
    kind = by_barcode(barcode)
    if kind is None:
        raise ValueError(
            f"the end of the barcode {barcode} does not say what the cartridge is: let it be L5 to L9, or LV to LZ"
        )
    capacity = 0 if size is None else parse_size(str(size))

    def work(job: Job) -> str:
        job.unit = "bytes"
        tape_image.restore(
            source, library.directory / "cartridges", barcode, kind[0], capacity=capacity, worm=kind[1], progress=job
        )
        return f"{barcode} is in {library.bring(barcode, place_wanted)}"

    return jobs.start("import", barcode, work)


def create_cartridges(library: Library, jobs: Jobs, request: Message) -> Job:
    """Make empty cartridges and put them into slots. Those that are made when it is stopped stay. Raises ValueError."""
    first, count = text_in(request, "barcode"), number_in(request, "count")
    if not 1 <= count <= _MOST:
        raise ValueError(f"{_MOST} cartridges can be made at a time, not {count}")
    check_characters(first)
    barcodes, new = series(first, count), wanted(library, request, first)
    there = set(library.barcodes()).intersection(barcodes)
    if there:
        raise ValueError(f"there is a cartridge {min(there)} in {library.name} or on its shelf already")

    room = sum(
        library.counts[kind] - len([place for place in library.contents if place.kind is kind]) for kind in _ROOM
    )
    if count > room:
        raise ValueError(f"{library.name} has room for {room} cartridges, not for {count}")

    def work(job: Job) -> str:
        job.unit = "cartridges"
        for number, barcode in enumerate(barcodes):
            job(number, count)
            library.create(barcode, **new)
        job.done = job.total
        return f"{first} to {barcodes[-1]} are in {library.name}"

    return jobs.start("create", first, work)


CARTRIDGE_JOBS: Mapping[str, Callable[[Library, Jobs, Message], Job]] = {
    "export image": export_image,
    "import image": import_image,
    "create many": create_cartridges,
}
