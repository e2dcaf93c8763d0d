"""What is done to the directory of a cartridge that is in no drive: it gets another barcode, or is thrown away.

Both begin with one rename, which a crash leaves undone or done; what is to follow it is done when the library is opened again.
"""

from __future__ import annotations

import logging
import shutil
import uuid
from dataclasses import replace
from pathlib import Path

from blockyard.block.file import sync_directory
from blockyard.media.cartridge import CLEANING, Description, check_characters, describe, save
from blockyard.media.generations import check_barcode

log = logging.getLogger(__name__)

_GONE = ".gone"


def check_label(description: Description, barcode: str) -> None:
    """Raise ValueError where a cartridge cannot have this barcode: it would say of it what it is not."""
    check_characters(barcode)
    if barcode.startswith(CLEANING) != description.cleaning:
        raise ValueError(
            f"barcodes that begin with {CLEANING} are for cleaning cartridges alone, and these have no others: "
            f"{description.barcode} cannot become {barcode}"
        )
    check_barcode(barcode, description.generation, worm=description.worm)


def relabel(parent: Path, old: str, new: str) -> None:
    """Have a cartridge be called `new`. Called again after a crash it does what is left. On stable storage.

    Raises OSError; ENOTEMPTY where another cartridge has come to be called so meanwhile.
    """
    directory = parent / new
    if (parent / old).is_dir():
        (parent / old).rename(directory)
        sync_directory(parent)
    description = describe(directory)
    if description.barcode != new:
        save(directory, replace(description, barcode=new))


def discard(parent: Path, barcode: str) -> Path:
    """There is no such cartridge any more; where its files are until `clear`. On stable storage. Raises OSError."""
    gone = parent / f".{barcode}.{uuid.uuid4().hex}{_GONE}"
    (parent / barcode).rename(gone)
    sync_directory(parent)
    return gone


def clear(parent: Path) -> None:
    """Remove the files of cartridges that were discarded when a crash came."""
    for gone in parent.glob(f".*{_GONE}"):
        try:
            shutil.rmtree(gone)
        except OSError as error:
            log.warning("%s: what is left of a cartridge that was deleted cannot be removed: %s", gone, error)
