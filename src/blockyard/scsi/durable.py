"""What a logical unit keeps over restarts and power loss: small JSON documents, one file for each kind and volume.

    <directory>/<UUID of the volume>.<kind>.json        kind: "mode-pages", "reservations", …
    <directory>/<name of the target>.<kind>.json        for the little that belongs to a target

They belong to the volume, wherever and under whatever LUN it is served, so that the UUID names them. A document is
replaced whole: after a crash there is the old one or the new one.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any
from uuid import UUID

from blockyard.block.file import sync_directory


class Durable:
    """The documents of one volume. Without a directory they last as long as this object.

    Safe to use from several threads as long as no two save the same kind at a time.
    """

    def __init__(self, directory: Path | None, owner: UUID | str) -> None:
        self._directory = directory
        self._owner = owner
        self._volatile: dict[str, str] = {}

    @property
    def persistent(self) -> bool:
        """Whether what is saved outlives the process."""
        return self._directory is not None

    def file(self, name: str) -> Path | None:
        """Where to keep what is no document; None where nothing outlives the process."""
        return None if self._directory is None else self._directory / f"{self._owner}.{name}"

    def load(self, kind: str) -> Any:
        """The document saved last, or None. Raises OSError when it cannot be read; EUCLEAN when it is damaged."""
        if self._directory is None:
            text = self._volatile.get(kind)
            return None if text is None else json.loads(text)
        path = self._path(kind)
        try:
            return _checked(json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (LookupError, TypeError, ValueError) as error:
            raise OSError(errno.EUCLEAN, f"The file is damaged ({error})", str(path)) from error

    def save(self, kind: str, document: Any) -> None:
        """Replace the document; None takes it away. On stable storage when this returns. Raises OSError."""
        if self._directory is None:
            self._volatile[kind] = json.dumps(document)
            return
        if not self._directory.is_dir():
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(self._directory.parent)
        path = self._path(kind)
        if document is None:
            path.unlink(missing_ok=True)
        else:
            _replace(path, _text({"sha256": _digest(document), "document": document}).encode())
        sync_directory(self._directory)

    def _path(self, kind: str) -> Path:
        assert self._directory is not None
        return self._directory / f"{self._owner}.{kind}.json"


def _text(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"), sort_keys=True)


def _digest(document: Any) -> str:
    return hashlib.sha256(_text(document).encode()).hexdigest()


def _checked(kept: Any) -> Any:
    """The document, if it is the one that was saved: its checksum stands beside it."""
    if kept["sha256"] != _digest(kept["document"]):
        raise ValueError("the checksum is wrong")
    return kept["document"]


def _replace(path: Path, data: bytes) -> None:
    """Put `data` in the place of what `path` holds, as one step."""
    temporary = path.with_suffix(".new")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    os.rename(temporary, path)
