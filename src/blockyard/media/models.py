"""What drives and libraries give themselves out for: our own names, or those of hardware that backup software knows."""

from __future__ import annotations

from dataclasses import dataclass

from blockyard.media.generations import GENERATIONS, Generation
from blockyard.scsi.designators import VENDOR


@dataclass(frozen=True)
class DriveModel:
    """A tape drive. It reads and writes cartridges of the generations named."""

    name: str
    vendor: str
    product: str
    revision: str
    generation: Generation  # the one that it is made for
    writes: frozenset[str]
    reads: frozenset[str]


def _drive(name: str, vendor: str, product: str, revision: str, number: int) -> DriveModel:
    """An LTO drive writes its own generation and the one before; up to LTO-7 it also reads the one before that."""
    made = {generation.number: generation for generation in GENERATIONS.values()}
    writes = frozenset(made[n].name for n in (number, number - 1) if n in made)
    older = frozenset({made[number - 2].name}) if number <= 7 and number - 2 in made else frozenset()
    return DriveModel(name, vendor, product, revision, made[number], writes, writes | older)


_ALL = frozenset(GENERATIONS)
DRIVES = {
    model.name: model
    for model in (
        DriveModel("blockyard", VENDOR, "Virtual Tape", "", GENERATIONS["LTO-9"], _ALL, _ALL),
        *(_drive(f"ibm-lto{n}", "IBM", f"ULT3580-TD{n}", revision, n)
          for n, revision in ((5, "H991"), (6, "N9M1"), (7, "R3G3"), (8, "R3G3"), (9, "R3G3"))),
        *(_drive(f"hpe-lto{n}", "HP" if n < 7 else "HPE", f"Ultrium {n}-SCSI", revision, n)
          for n, revision in ((5, "Z6ED"), (6, "35GD"), (7, "R3G3"), (8, "R3G3"), (9, "R3G3"))),
        *(_drive(f"quantum-lto{n}", "QUANTUM", f"ULTRIUM {n}", revision, n)
          for n, revision in ((5, "3210"), (6, "E4J1"))),
    )
}  # fmt: skip


@dataclass(frozen=True)
class LibraryModel:
    """A media changer; `drive` is the model that its drives are unless somebody says otherwise.

    Elements of each type have consecutive addresses from the one that stands here on.
    """

    name: str
    vendor: str
    product: str
    revision: str
    drive: str
    transport: int = 0x0000
    import_export: int = 0x0010
    drives: int = 0x0100
    slots: int = 0x0400


LIBRARIES = {
    model.name: model
    for model in (
        LibraryModel("blockyard", VENDOR, "Virtual Library", "", "blockyard"),
        LibraryModel("ibm-ts3500", "IBM", "03584L32", "8160", "ibm-lto8", 0x0001, 0x0301, 0x0101, 0x0401),
        LibraryModel("ibm-ts3200", "IBM", "3573-TL", "C.50", "ibm-lto6", 0x0001, 0x0010, 0x0100, 0x1000),
        LibraryModel("hpe-msl", "HP", "MSL G3 Series", "8.70", "hpe-lto8", 0x0000, 0x0065, 0x0001, 0x03E8),
        LibraryModel("stk-l700", "STK", "L700", "0310", "hpe-lto5", 0x0000, 0x000A, 0x01F4, 0x03E8),
        LibraryModel("quantum-i500", "ADIC", "Scalar i500", "612G", "ibm-lto6", 0x0001, 0x0010, 0x0100, 0x1000),
    )
}
