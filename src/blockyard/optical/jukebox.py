"""A jukebox: a directory of images, each known by its name."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from blockyard.optical import record
from blockyard.optical.record import Record

_SUFFIXES = (".iso", ".udf", ".img", ".cue")


class Image(NamedTuple):
    name: str
    size: int  # bytes
    kind: str = ""  # of what was made as a blank disc
    state: str = ""  # and what it is now


def images(directory: Path) -> list[Image]:
    """The images of a jukebox, by name. Raises OSError."""
    files = [path for path in directory.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file()]
    return sorted(_image(path) for path in files if not path.name.startswith("."))


def _image(path: Path) -> Image:
    try:
        found = record.load(path)
    except OSError:
        return Image(path.name, path.stat().st_size, "", "damaged")
    if found is None:
        return Image(path.name, path.stat().st_size)
    return Image(path.name, path.stat().st_size, found.kind, state_of(found))


def state_of(found: Record) -> str:
    """What a disc is, in a word."""
    if found.formatted:
        return "formatted"
    if found.final:
        return "closed"
    return "appendable" if found.sessions else "blank"


def place(directory: str, image: str) -> Path:
    """The file that a new image is to be: a path, or a name in the jukebox. Raises LookupError."""
    if "/" in image:
        return Path(image)
    if not directory:
        raise LookupError(f"the drive has no jukebox: name the image {image} by a path with a / in it")
    return Path(directory) / (image if image.lower().endswith(_SUFFIXES) else image + _SUFFIXES[0])


def find(directory: str, image: str) -> Path:
    """The file of an image: a path, or the name of one in the jukebox, with or without its suffix. Raises LookupError."""
    if "/" in image:
        return Path(image)
    if not directory:
        raise LookupError(f"the drive has no jukebox: name the image {image} by a path with a / in it")
    for path in _candidates(directory, image):
        if path.is_file():
            return path
    raise LookupError(f"there is no image {image!r} in {directory}: `blockyard optical list` shows them")


def find_renamed(directory: str, image: str) -> Path:
    """The same, also of one whose renaming a crash has cut short: of that only the record is left. Raises LookupError."""
    try:
        return find(directory, image)
    except LookupError:
        for path in _candidates(directory, image) if directory else ():
            if record.record_file(path).is_file():
                return path
        raise


def _candidates(directory: str, image: str) -> list[Path]:
    names = (image, *(image + suffix for suffix in _SUFFIXES))
    return [Path(directory) / name for name in names if name not in ("", ".", "..")]
