"""Cartridges copied to plain files and made of them, on the host where they are (media/image.py)."""

from __future__ import annotations

from pathlib import Path

from blockyard.block.size import parse_size
from blockyard.cli.output import Bar
from blockyard.control.errors import ControlError, UsageError
from blockyard.media import image
from blockyard.media.generations import by_barcode


def export(cartridge: Path, partition: int, target: Path) -> int:
    """Copy what is on a cartridge to a new file. Returns how many blocks and filemarks that is. Raises ControlError."""
    bar = Bar(cartridge.name)
    try:
        return image.export(cartridge, partition, target, lambda done, total: bar.show(done, total, "objects"))
    except OSError as error:
        raise _failed(error) from error
    finally:
        bar.end()


def restore(shelf: Path, source: Path, barcode: str, size: str | None) -> None:
    """Make a cartridge of a file, on the shelf. Raises ControlError."""
    kind = by_barcode(barcode)
    if kind is None:
        raise UsageError(
            f"the end of the barcode {barcode} does not say what the cartridge is: let it be L5 to L9, or LV to LZ"
        )
    bar = Bar(barcode)
    try:
        image.restore(
            source, shelf, barcode, kind[0], capacity=parse_size(size) if size else 0, worm=kind[1],
            progress=lambda done, total: bar.show(done, total, "bytes"),
        )  # fmt: skip
    except ValueError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise _failed(error) from error
    finally:
        bar.end()


def _failed(error: OSError) -> ControlError:
    where = f"{error.filename}: " if error.filename else ""
    return ControlError(f"{where}{error.strerror or error}")
