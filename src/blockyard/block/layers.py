"""Layers: what a stack is made of, and what a module has to offer so that its device can be part of one.

A layer is a `Device` that stands on others, or a leaf. Each is declared as a `Kind`, in the table of the module that has it, and
listed in block/kinds.py; how a stack is written is in block/stack.py, how it is opened in block/building.py. There is no wrapper
around a layer: what is opened is the device itself, with all its short roads.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blockyard.block.actions import NoOptions, Progress
from blockyard.block.device import Device, ReadOnly
from blockyard.block.sharing import Shared

MANY = 1 << 16  # children, where there is no limit

Notify = Callable[[str, str, str], None]  # severity ("info", "warning", "error"), what has happened in a word, text


def unheard(severity: str, what: str, text: str) -> None:
    """Nobody is told."""


def _no_secret(name: str) -> bytes:
    raise OSError(errno.ENOKEY, f"There is no secret {name!r}: nobody here could say it")


def _no_pool(volume: str) -> Device:
    raise OSError(errno.ENOENT, f"There is no volume {volume}: no pool is open")


def _no_stack(text: str) -> Device:
    raise OSError(errno.EOPNOTSUPP, f"{text} cannot be opened from here")


@dataclass(frozen=True)
class Opening:
    """What a layer may need when it is opened, and for as long as it is open. All of it may be called from any thread."""

    read_only: bool = False  # it will not be written to, and shall not change anything below either
    notify: Notify = unheard
    directory: Path | None = None  # where layers may keep files, by names of their own; None: nowhere
    secret: Callable[[str], bytes] = _no_secret  # by its name; raises OSError
    volume: Callable[[str], Device] = _no_pool  # of a pool, by POOL/VOLUME or POOL/VOLUME@SNAPSHOT; raises OSError
    open: Callable[[str], Device] = _no_stack  # a stack, for another child of a layer; raises OSError, ValueError
    shared: Shared = field(default_factory=Shared)  # what is open for several


def _nothing(options: Any) -> Sequence[str]:
    return ()


@dataclass(frozen=True)
class Kind:
    """A kind of layer.

    `options` is a frozen dataclass with defaults for what may be left out; it is read strictly (block/records.py) and checks
    itself in __post_init__ by ValueError. `children` says how many devices it stands on at least and at most. `open` takes over
    the children when it returns, and closes them with the device that it returns; it raises OSError or ValueError, and then they
    are closed by the caller. It must not take what looks empty for something of its own: layers that keep marks on their
    children are made by `blockyard layer create`.
    """

    name: str
    text: str  # what it is, in a sentence
    open: Callable[[Sequence[Device], Any, Opening], Device]
    options: type = NoOptions
    children: tuple[int, int] = (1, 1)
    argument: str = ""  # of a leaf: the option that stands without its name, as in memory(1G)
    paths: tuple[str, ...] = ()  # options that are paths: relative ones become absolute where the stack is declared
    only_reads: bool = False  # what it stands on is opened for reading only
    absent: bool = False  # it opens with children that are missing or broken: it gets an `Absent` for each
    # What it takes for itself alone, such as "file:PATH" or "pool:POOL/VOLUME"
    claims: Callable[[Any], Sequence[str]] = _nothing
    # Offset and length (0: to the end) of what it takes of its child, where others may take other parts of the same: a stack that
    # is written alike in several such places is open once
    part: Callable[[Any], tuple[int, int]] | None = None
    # What `blockyard layer create` does, where that is needed: put marks on children, which stay open; returns what there is to
    # say to people. Raises OSError or ValueError, for what holds something already, too, unless the options say otherwise. It
    # tells how far it is; what that raises it lets pass, with nothing left that could be opened: what it is known by comes last
    create: Callable[[Sequence[Device], Any, Opening, Progress], str] | None = None
    creation: type = NoOptions  # what there is to choose then
    unit: str = "bytes"  # of the progress of `create`
    example: str = ""  # of a stack, for the documentation


class Absent(ReadOnly):
    """Stands for a child that could not be opened: it has no bytes, and whatever is asked of it fails as opening it did."""

    def __init__(self, label: str, error: OSError) -> None:
        self.label = label
        self.size = 0
        self.error = error

    def preadv(self, buffers: Sequence[memoryview], offset: int) -> None:
        raise OSError(self.error.errno or errno.EIO, f"{self.label} is not there: {self.error.strerror or self.error}")

    def report(self) -> dict[str, object]:
        return {"health": "failed", "text": f"not there: {self.error}"}
