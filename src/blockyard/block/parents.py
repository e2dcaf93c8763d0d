"""Chains of differencing images: the parent is found by what the child says, and checked to be the one that it was made on."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from blockyard.block.device import Device
from blockyard.block.image_states import ImageError

DEPTH = 64  # images in a chain


class Wanted(NamedTuple):
    """What a child says of its parent."""

    child: str
    format: str
    paths: tuple[str, ...]  # where it may be, best first; relative ones from the child's directory
    refusal: Callable[[Device], str | None]  # why a device is not it


ParentOf = Callable[[Wanted], Device]
Open = Callable[[str, str, ParentOf], Device]  # path, format, parents of what is opened


class Chain:
    """Opens parents, for reading only, and theirs. An image that stands on itself is refused."""

    def __init__(self, path: str, opener: Open) -> None:
        self._open = opener
        self._seen = [_identity(path)]

    def parent_of(self, wanted: Wanted) -> Device:
        """Raises ImageError, with what was tried; OSError of a file that is there and cannot be opened."""
        if len(self._seen) >= DEPTH:
            raise ImageError(wanted.child, f"more than {DEPTH} images stand on each other")
        tried: list[str] = []
        for path in dict.fromkeys(_candidates(wanted)):
            if not os.path.isfile(path):
                tried.append(f"{path} is not there")
                continue
            identity = _identity(path)
            if identity in self._seen:
                raise ImageError(wanted.child, f"its parent {path} stands on it: the chain is a cycle")
            self._seen.append(identity)
            parent = self._open(path, wanted.format, self.parent_of)
            refusal = wanted.refusal(parent)
            if refusal is None:
                return parent
            parent.close()
            self._seen.remove(identity)
            tried.append(f"{path}: {refusal}")
        raise ImageError(wanted.child, "its parent cannot be found: " + ("; ".join(tried) or "it does not say where"))


def _candidates(wanted: Wanted) -> list[str]:
    directory = os.path.dirname(os.path.realpath(wanted.child))
    return [os.path.normpath(os.path.join(directory, path)) for path in wanted.paths if "\0" not in path and path]


def _identity(path: str) -> tuple[int, int]:
    info = os.stat(path)
    return info.st_dev, info.st_ino
