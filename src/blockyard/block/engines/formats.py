"""Image formats that are left to QEMU: what they look like, and what qemu-img says of an image.

An image may name other files: what it stands on, where its data is. Who wrote the image chose these names, and they would be read
with our rights. So such an image is refused unless the administrator has named a directory, and all of its files are there.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from blockyard.block.image_states import ImageError

FORMATS = ("qcow2", "qcow", "vmdk", "vdi", "qed", "parallels", "bochs", "cloop", "dmg")  # as QEMU calls them
WRITABLE = ("qcow2", "qcow", "vmdk", "vdi", "qed", "parallels")  # and these can be made
_MAGIC = (
    (0, b"QFI\xfb\0\0\0\1", "qcow"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
    (0, b"QED\0", "qed"),
    (0, b"WithoutFreeSpace", "parallels"),
    (0, b"WithouFreSpacExt", "parallels"),
    (0, b"Bochs Virtual HD Image\0", "bochs"),
    (0, b"#!/bin/sh\n#V2.0 Format\nmodprobe cloop", "cloop"),
)
LOOKED_AT = 128  # bytes at the beginning
_CORRUPT, _LEAKS, _UNCHECKED = 2, 3, 63  # what `qemu-img check` ends with
_DEPTH = 64  # images that stand on each other
_SECONDS = 60.0


def looks_like(beginning: bytes) -> str | None:
    """The format of what begins so."""
    return next((name for at, magic, name in _MAGIC if beginning[at : at + len(magic)] == magic), None)


@dataclass(frozen=True)
class Found:
    """What qemu-img says of an image."""

    path: str
    format: str
    size: int  # of the disk, in bytes
    file_size: int
    used: int
    block_size: int = 0
    backing: str = ""  # the path of what it stands on
    backing_format: str = ""
    others: tuple[str, ...] = ()  # further files that it has its data in
    notes: list[str] = field(default_factory=list)


def tool(*words: str, seconds: float | None = _SECONDS) -> str:
    """What qemu-img prints. Raises OSError with what it says of an error."""
    if shutil.which("qemu-img") is None:
        raise OSError(errno.ENOPKG, "qemu-img is not installed: it is in the package qemu-utils or qemu-img")
    try:
        done = subprocess.run(
            ("qemu-img", *words), capture_output=True, timeout=seconds, stdin=subprocess.DEVNULL, check=False,
            env=os.environ | {"LC_ALL": "C.UTF-8"}, cwd="/",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise OSError(errno.ETIMEDOUT, f"qemu-img has not answered for {seconds:g} s") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it says nothing"]
        raise ToolError(said[-1].removeprefix("qemu-img: "), done.returncode, done.stdout.decode("utf-8", "replace"))
    return done.stdout.decode("utf-8", "replace")


class ToolError(OSError):
    """qemu-img ends with an error."""

    def __init__(self, said: str, status: int, output: str) -> None:
        super().__init__(errno.EINVAL, f"qemu-img: {said}")
        self.status = status
        self.output = output


def inspected(path: str, kind: str) -> Found:
    """Look at an image of that format, whoever has it open. Raises OSError."""
    path = os.path.abspath(path)  # what begins with a slash is a file to QEMU, whatever is in its name
    os.stat(path)
    try:
        said: Any = json.loads(tool("info", "--output=json", "-U", "-f", kind, path))
        return _found(path, kind, said)
    except (ValueError, TypeError, KeyError) as error:
        raise ImageError(path, f"what qemu-img says of it is not understood: {error!r}") from None
    except OSError as error:
        raise ImageError(path, error.strerror or str(error)) from None


def checked(path: str, kind: str, *, mend: bool) -> list[str]:
    """What is wrong with the metadata of an image, after mending it where that is wanted. Raises OSError."""
    path = os.path.abspath(path)
    words = ("check", "--output=json", "-f", kind, *(("-r", "all") if mend else ()), path)
    try:
        output = tool(*words, seconds=None)
    except ToolError as error:
        if error.status == _UNCHECKED:
            return []  # there is nothing in this format that could be checked
        if error.status not in (_CORRUPT, _LEAKS):
            raise
        output = error.output
    try:
        said = json.loads(output)
    except ValueError:
        raise ImageError(path, "what qemu-img says of it is not understood") from None
    kinds = {
        "corruptions": "errors in its metadata",
        "leaks": "clusters that nothing uses",
        "check-errors": "errors of reading",
    }
    return [f"{said[key]} {text}" for key, text in kinds.items() if said.get(key)]


def _found(path: str, kind: str, said: dict[str, Any]) -> Found:
    details = (said.get("format-specific") or {}).get("data") or {}
    others = [str(extent["filename"]) for extent in details.get("extents", ())]
    if details.get("data-file"):
        others.append(os.path.join(os.path.dirname(path), str(details["data-file"])))
    notes = ["it was not closed cleanly"] if said.get("dirty-flag") else []
    if details.get("corrupt"):
        notes.append("it is marked as damaged")
    if said.get("encrypted"):
        raise ImageError(path, "it is encrypted, in a way that only QEMU knows: encryption is a layer of its own here")
    backing = str(said.get("full-backing-filename") or said.get("backing-filename") or "")
    return Found(
        path, kind, int(said["virtual-size"]), os.stat(path).st_size, int(said.get("actual-size", 0)),
        int(said.get("cluster-size", 0)), backing, str(said.get("backing-filename-format") or ""),
        tuple(other for other in others if os.path.realpath(other) != os.path.realpath(path)), notes,
    )  # fmt: skip


def chain(path: str, kind: str, allowed: str = "") -> Iterator[Found]:
    """An image and all that it stands on. Raises OSError for files that are not in `allowed`, and unknown formats."""
    seen: set[str] = set()
    while True:
        if kind == "raw":
            return
        found = inspected(path, kind)
        seen.add(os.path.realpath(path))
        yield found
        for other in (*found.others, *filter(None, [found.backing])):
            _check_place(path, other, allowed)
        if not found.backing:
            return
        if not found.backing_format:
            raise ImageError(path, f"it stands on {found.backing} and does not say of what format that is: "
                                   "have `qemu-img rebase -u -F FORMAT` note it")  # fmt: skip
        if found.backing_format not in (*FORMATS, "raw", "vpc", "vhdx"):
            raise ImageError(path, f"it stands on {found.backing}, of format {found.backing_format!r}")
        path, kind = found.backing, found.backing_format
        if os.path.realpath(path) in seen or len(seen) >= _DEPTH:
            raise ImageError(
                path, "it stands on itself" if len(seen) < _DEPTH else "too many images stand on each other"
            )


def _check_place(path: str, other: str, allowed: str) -> None:
    real = os.path.realpath(other)
    if not allowed:
        raise ImageError(
            path, f'it uses another file, {other}: say in which directory such files may be (backing = "…")'
        )
    if not other.startswith("/") or os.path.commonpath((real, os.path.realpath(allowed))) != os.path.realpath(allowed):
        raise ImageError(path, f"it uses {other}, which is not in {allowed}")
    if not os.path.isfile(real):
        raise ImageError(path, f"it uses {other}, which is not a file")
