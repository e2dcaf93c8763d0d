"""What is done to the files of a disc that is in no drive: it gets another name, or is thrown away."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from blockyard.block.file import FileDevice, sync_directory
from blockyard.optical import cuesheet
from blockyard.optical.record import audio_file, load, record_file


def rename(image: Path, name: str) -> Path:
    """Give a disc another name, in its directory. Raises OSError, ENOENT, EEXIST and EBUSY; ValueError for what cannot be one.

    Its record is the last file that moves. Where a crash comes before that, the same command moves what is left.
    """
    if image.suffix.lower() == ".cue":
        raise ValueError("a cue sheet names its files: convert the disc to a new name instead")
    if not name or "/" in name or name.startswith("."):
        raise ValueError(f"a disc cannot be called {name!r}")
    new = image.with_name(name if name.lower().endswith(image.suffix.lower()) else name + image.suffix)
    if not image.exists() and not (record_file(image).exists() and new.exists()):
        raise FileNotFoundError(errno.ENOENT, "There is no such disc", os.fspath(image))
    moves = [(of(image), of(new)) for of in (audio_file, Path, record_file) if of(image).exists()]
    for _, target in moves:
        if target.exists():
            raise OSError(errno.EEXIST, "There is a disc of that name", os.fspath(target))
    _check_whole(image, new)
    if image.exists():
        FileDevice(image, least=0).close()  # EBUSY where it is in a drive
    for source, target in moves:
        source.rename(target)
        sync_directory(image.parent)
    return new


def _check_whole(image: Path, new: Path) -> None:
    """Raise FileNotFoundError where a file of the disc has neither name: a crash has left it under a third one."""
    try:
        found = load(image)
    except OSError:  # what is damaged may be called as anybody likes
        return
    for path, moved in () if found is None else zip(found.files(image), found.files(new), strict=True):
        if not path.exists() and not moved.exists():
            raise FileNotFoundError(
                errno.ENOENT, "Renaming the disc was cut short: give it the name that it was to have", os.fspath(path)
            )


def remove(image: Path) -> None:
    """Throw a disc away: a cue sheet with the files that it names. Raises OSError, EBUSY where it is in a drive; ValueError."""
    data = cuesheet.read(image).files if image.suffix.lower() == ".cue" else [image]
    for path in data:
        FileDevice(path, least=0).close()
    for path in dict.fromkeys((image, *data, audio_file(image), record_file(image))):
        path.unlink(missing_ok=True)
    sync_directory(image.parent)
