"""Kinds of cartridges: the generations of LTO, and what a barcode says of a cartridge.

Numbers are those that drives tell in REPORT DENSITY SUPPORT and mode data.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    """A format of cartridges."""

    name: str
    number: int
    density: int  # PRIMARY DENSITY CODE (SSC-5)
    medium_type: int  # of the mode parameter header; that of a WORM cartridge is higher by four
    capacity: int  # bytes, native
    bits_per_mm: int
    tracks: int
    density_name: str
    description: str
    suffix: str  # of barcodes
    worm_suffix: str
    partitions: int  # that it can have at most


GENERATIONS = {
    generation.name: generation
    for generation in (
        Generation("LTO-5", 5, 0x58, 0x58, 1_500 * 10**9, 15142, 1280, "U-516", "Ultrium 5/16T", "L5", "LV", 2),
        Generation("LTO-6", 6, 0x5A, 0x68, 2_500 * 10**9, 15142, 2176, "U-616", "Ultrium 6/16T", "L6", "LW", 4),
        Generation("LTO-7", 7, 0x5C, 0x78, 6_000 * 10**9, 19107, 3584, "U-732", "Ultrium 7/32T", "L7", "LX", 4),
        Generation("LTO-8", 8, 0x5E, 0x88, 12_000 * 10**9, 20669, 6656, "U-832", "Ultrium 8/32T", "L8", "LY", 4),
        Generation("LTO-9", 9, 0x60, 0x98, 18_000 * 10**9, 21456, 8960, "U-932", "Ultrium 9/48T", "L9", "LZ", 4),
    )
}
WIDTH = 127  # of the medium, in tenths of a millimetre
ORGANIZATION = "LTO-CVE"
LARGEST_PARTITIONS = 4


def by_barcode(barcode: str) -> tuple[Generation, bool] | None:
    """What the last two characters of a barcode say: the generation, and whether it is WORM. None where they say nothing."""
    for generation in GENERATIONS.values():
        if barcode[-2:] in (generation.suffix, generation.worm_suffix):
            return generation, barcode.endswith(generation.worm_suffix)
    return None


def check_barcode(barcode: str, generation: Generation, *, worm: bool) -> None:
    """Raise ValueError where a barcode says that a cartridge is something else than it is: backup software goes by it."""
    said = by_barcode(barcode)
    if said not in (None, (generation, worm)):
        right = generation.worm_suffix if worm else generation.suffix
        raise ValueError(
            f"the end of {barcode} does not say what the cartridge is: "
            f"{generation.name}{' WORM' if worm else ''} has barcodes with {right}"
        )


def series(first: str, count: int) -> list[str]:
    """So many barcodes from one on: A00001L8, A00002L8 … Raises ValueError where that has no number, or runs out of digits."""
    stem, end = (first[:-2], first[-2:]) if by_barcode(first) else (first, "")
    prefix = stem.rstrip("0123456789")
    digits = stem[len(prefix) :]
    if not digits or len(str(int(digits) + count - 1)) > len(digits):
        raise ValueError(f"{count} barcodes cannot be counted from {first} on: its number has {len(digits)} digits")
    return [f"{prefix}{number:0{len(digits)}}{end}" for number in range(int(digits), int(digits) + count)]
