"""A cartridge: a directory with its partitions and what is known of it (docs/tape-format.md).

    <barcode>/cartridge.description.json     identity, generation, partitions, MAM attributes
    <barcode>/<format>-<partition>.data      records; <format> counts how often it was formatted
    <barcode>/<format>-<partition>.index

The description is replaced whole, and names the format that holds: formatting makes new files, replaces the description, and
takes the old files away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from blockyard.block.file import sync_directory
from blockyard.media import partition as partitions
from blockyard.media.attributes import ATTRIBUTES
from blockyard.media.generations import GENERATIONS, LARGEST_PARTITIONS, Generation
from blockyard.media.partition import Partition
from blockyard.scsi.durable import Durable

_KIND = "description"
_OWNER = "cartridge"
_BARCODE = re.compile(r"[A-Z0-9]{1,32}\Z")
CLEANING = "CLN"  # how barcodes of cleaning cartridges begin
CLEANINGS = 50  # that one of these does, as those for LTO drives


@dataclass(frozen=True)
class Description:
    """What is known of a cartridge without looking at its data."""

    uuid: uuid.UUID
    barcode: str
    generation: Generation
    capacities: tuple[int, ...]  # of the partitions, in bytes of their files
    full: int = 0  # bytes that it had before SET CAPACITY; 0: as many as it has
    worm: bool = False
    write_protected: bool = False  # by the switch of its case
    format: int = 1
    made: str = ""  # YYYYMMDD
    loads: int = 0
    written: int = 0  # bytes, in its life
    read: int = 0
    last_drives: tuple[
        str, ...
    ] = ()  # vendors and serial numbers of the drives that it was loaded into, the last first
    attributes: Mapping[tuple[int, int], bytes] = field(default_factory=dict)  # by partition and identifier

    @property
    def capacity(self) -> int:
        return sum(self.capacities)

    @property
    def cleaning(self) -> bool:
        """Whether it cleans drives, and has no room for data."""
        return self.barcode.startswith(CLEANING)

    def document(self) -> dict[str, Any]:
        return {
            "version": 1,
            "uuid": str(self.uuid),
            "barcode": self.barcode,
            "generation": self.generation.name,
            "capacities": list(self.capacities),
            "full": self.full,
            "worm": self.worm,
            "write_protected": self.write_protected,
            "format": self.format,
            "made": self.made,
            "loads": self.loads,
            "written": self.written,
            "read": self.read,
            "last_drives": list(self.last_drives),
            "attributes": {f"{part}/{number:04x}": value.hex() for (part, number), value in self.attributes.items()},
        }

    @classmethod
    def of(cls, document: Any) -> Description:
        """Raises LookupError, TypeError or ValueError for what is no description."""
        if document["version"] != 1:
            raise ValueError(f"version {document['version']} is not known")
        capacities = tuple(_number(size) for size in document["capacities"])
        if not 1 <= len(capacities) <= LARGEST_PARTITIONS:
            raise ValueError(f"it has {len(capacities)} partitions")
        return cls(
            uuid=uuid.UUID(str(document["uuid"])),
            barcode=str(document["barcode"]),
            generation=GENERATIONS[document["generation"]],
            capacities=capacities,
            worm=bool(document["worm"]),
            write_protected=bool(document["write_protected"]),
            made=str(document["made"]),
            last_drives=tuple(map(str, document["last_drives"])),
            attributes=dict(_attribute(name, value) for name, value in dict(document["attributes"]).items()),
            **{name: _number(document[name]) for name in ("full", "format", "loads", "written", "read")},
        )


def _number(value: object) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ValueError(f"{value!r} is no number of what there is")
    return value


def _attribute(name: str, value: str) -> tuple[tuple[int, int], bytes]:
    part, _, number = name.partition("/")
    key, data = (int(part), int(number, 16)), bytes.fromhex(value)
    if len(data) > ATTRIBUTES[key[1]].length:
        raise ValueError(f"the attribute {name} is too long")
    return key, data


def describe(directory: Path) -> Description:
    """What is known of the cartridge in a directory. Raises OSError; EUCLEAN where that is damaged."""
    document = Durable(directory, _OWNER).load(_KIND)
    if document is None:
        raise OSError(errno.ENOENT, "This is no cartridge", str(directory))
    try:
        return Description.of(document)
    except (LookupError, TypeError, ValueError) as error:
        raise OSError(errno.EUCLEAN, f"The description is damaged ({error})", str(directory)) from error


def save(directory: Path, description: Description) -> None:
    """Replace what is known of a cartridge. On stable storage when this returns. Raises OSError."""
    Durable(directory, _OWNER).save(_KIND, description.document())


def create(parent: Path, barcode: str, generation: Generation, *, capacity: int = 0, worm: bool = False) -> Description:
    """Make an empty cartridge below `parent`; without `capacity` it has that of its generation. Raises OSError, EEXIST too."""
    with draft(parent, barcode, generation, capacity=capacity, worm=worm):
        pass
    return describe(parent / barcode)


def check_characters(barcode: str) -> None:
    """Raise ValueError for what can be no barcode, nor the name of a directory."""
    if not _BARCODE.match(barcode):
        raise ValueError(f"{barcode[:100]!r} is no barcode: it has 1 to 32 capital letters and digits")


@contextlib.contextmanager
def draft(parent: Path, barcode: str, generation: Generation, *, capacity: int, worm: bool) -> Iterator[Path]:
    """Likewise, and it is there under its name only when what is done with the directory here has succeeded."""
    try:
        check_characters(barcode)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error)) from None
    final = parent / barcode
    if final.exists():
        raise OSError(errno.EEXIST, "There is a cartridge with this barcode", str(final))
    description = Description(
        uuid.uuid4(), barcode, generation, (capacity or generation.capacity,), worm=worm, made=time.strftime("%Y%m%d")
    )
    with _alone(parent / f".{barcode}.new") as made:
        try:
            partitions.create(data_file(made, description, 0), description.uuid, 0)
            save(made, description)
            yield made
            made.rename(final)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    sync_directory(parent)


@contextlib.contextmanager
def _alone(made: Path) -> Iterator[Path]:
    """An empty directory for one who makes a cartridge there; what a crash has left in it is gone. Raises OSError; EBUSY
    while another one is made there."""
    made.mkdir(mode=0o700, exist_ok=True)
    fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if not _is_ours(fd, made):
            raise OSError(errno.EBUSY, "A cartridge with this barcode is just being made", str(made))
        for path in made.iterdir():
            path.unlink()
        yield made
    finally:
        os.close(fd)


def _is_ours(fd: int, made: Path) -> bool:
    """Whether an open directory could be locked, and still has that name: who made a cartridge there renames it at last."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(fd), made.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _close(partitions: Sequence[Partition]) -> None:
    for partition in partitions:
        with contextlib.suppress(OSError):  # there is another error to be told
            partition.close()


def data_file(directory: Path, description: Description, number: int) -> Path:
    """Where the data of a partition is."""
    return directory / f"{description.format}-{number}.data"


class Cartridge:
    """One that is open, in a drive. Not safe to be used by two threads at a time. Raises OSError."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.description = describe(directory)
        self._remove_strangers()
        self.partitions = self._open(self.description)

    @property
    def write_protected(self) -> bool:
        return self.description.write_protected or any(partition.read_only for partition in self.partitions)

    def change(self, **changes: Any) -> None:
        """Replace parts of the description, on stable storage. Raises OSError; then nothing has changed."""
        changed = replace(self.description, **changes)
        save(self._directory, changed)
        self.description = changed

    def format(self, capacities: Sequence[int]) -> None:
        """All data is gone, and there are partitions of these capacities. Raises OSError; then nothing has changed."""
        old = self.description
        attributes = {key: value for key, value in old.attributes.items() if key[0] < len(capacities)}
        new = replace(old, format=old.format + 1, capacities=tuple(capacities), attributes=attributes)
        for number in range(len(capacities)):
            with contextlib.suppress(FileNotFoundError):  # of an attempt that has failed
                data_file(self._directory, new, number).unlink()
            partitions.create(data_file(self._directory, new, number), new.uuid, number)
        opened = self._open(new)
        try:
            save(self._directory, new)
        except OSError:
            _close(opened)
            raise
        formatted, self.partitions, self.description = self.partitions, opened, new
        for partition in formatted:
            with contextlib.suppress(OSError):  # what it could not keep is gone anyhow
                partition.close()
        self._remove_strangers()

    def sync(self) -> None:
        """Raises OSError."""
        for partition in self.partitions:
            partition.sync()

    def close(self) -> None:
        """Raises OSError when something cannot be left as it should; all is closed nevertheless."""
        failure: OSError | None = None
        for partition in self.partitions:
            try:
                partition.close()
            except OSError as error:
                failure = error
        if failure is not None:
            raise failure

    def _open(self, description: Description) -> list[Partition]:
        opened: list[Partition] = []
        try:
            opened.extend(
                Partition(data_file(self._directory, description, number))
                for number in range(len(description.capacities))
            )
        except BaseException:
            _close(opened)
            raise
        return opened

    def _remove_strangers(self) -> None:
        """Files of earlier formats, and of one that was never finished."""
        for path in self._directory.iterdir():
            if path.suffix in (".data", ".index") and not path.name.startswith(f"{self.description.format}-"):
                with contextlib.suppress(OSError):
                    os.unlink(path)
