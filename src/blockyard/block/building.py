"""From a stack that is written to devices: checked without touching anything, then opened from the bottom up.

`understood` knows kinds, options and arity; `build` opens; `tree` tells how an open stack is; `found` leads to one of its layers.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import types
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Union, get_args, get_origin, get_type_hints

from blockyard.block import kinds, records
from blockyard.block.device import Device
from blockyard.block.layers import MANY, Absent, Kind, Opening
from blockyard.block.stack import DEPTH, Call, StackError, Value, Word, Written, parse

log = logging.getLogger(__name__)

_WORSE = ("ok", "degraded", "failed")  # and what is none of these is as if it were ok


@dataclass(frozen=True)
class Layer:
    """A layer of a stack that is known to make sense, and could be opened."""

    kind: Kind
    options: Any
    children: tuple[Layer, ...]
    written: Call

    @property
    def label(self) -> str:
        """How it is written, without what it stands on."""
        if self.kind.argument or self.written.options:
            return str(self.written if self.kind.argument else replace(self.written, arguments=()))
        return self.kind.name

    def __iter__(self) -> Iterator[Layer]:
        """It, and then all that it stands on."""
        yield self
        for child in self.children:
            yield from child

    @property
    def claims(self) -> list[str]:
        """What it and all below take for themselves alone."""
        return [claim for layer in self for claim in layer.kind.claims(layer.options)]


# ---- checking


def understood(stack: Written | str, declared: Mapping[str, Written] | None = None) -> Layer:
    """What a stack says. `declared` has layers by their names; where it is None, there are no names: all words are paths.

    Raises StackError for kinds, options and names that there are not, for too many or too few children, layers that stand on
    themselves, and what is claimed twice.
    """
    layer = _understood(parse(stack) if isinstance(stack, str) else stack, declared, ())
    seen: set[str] = set()
    for claim in layer.claims:
        if claim in seen:
            raise StackError(f"{claim.partition(':')[2]} is used twice: what is in one place cannot be in another too")
        seen.add(claim)
    return layer


def _understood(stack: Written, declared: Mapping[str, Written] | None, inside: tuple[str, ...]) -> Layer:
    if len(inside) > DEPTH:
        raise StackError(f"more than {DEPTH} layers stand on each other")
    if isinstance(stack, Call):
        return _call(stack, declared, inside)
    if declared is None or not stack.is_name:
        return _call(Call("file", (replace(stack, quoted=True),)), declared, inside)
    if stack.text not in declared:
        raise StackError(f"there is no layer {stack.text!r}: declare [layers.{records.key(stack.text)}], or write ./{stack.text} "
                         "for a file")  # fmt: skip
    if stack.text in inside:
        raise StackError(f"the layer {stack.text} stands on itself")
    return _understood(declared[stack.text], declared, (*inside, stack.text))


def _call(call: Call, declared: Mapping[str, Written] | None, inside: tuple[str, ...]) -> Layer:
    try:
        kind = kinds.kind(call.name)
    except LookupError as error:
        raise StackError(str(error.args[0])) from None
    given: dict[str, Value] = dict(call.options)
    arguments = call.arguments
    if kind.argument and arguments:
        (argument,) = arguments if len(arguments) == 1 else (None,)
        if not isinstance(argument, Word) or kind.argument in given:
            raise StackError(f"{call.name} has one {kind.argument}, and stands on nothing")
        given[kind.argument] = argument
        arguments = ()
    options = _options(kind, given)
    least, most = kind.children
    if not least <= len(arguments) <= most:
        wanted = f"{least}" if least == most else f"at least {least}" if most >= MANY else f"{least} to {most}"
        raise StackError(f"{call.name} stands on {wanted} layers, not on {len(arguments)}")
    children = tuple(_understood(each, declared, (*inside, "")) for each in arguments)
    return Layer(kind, options, children, call)


def _options(kind: Kind, given: Mapping[str, Value]) -> Any:
    try:
        return options_from(kind.options, given)
    except records.RecordError as error:
        raise StackError(f"{kind.name}: {error}") from None


def options_from(kind: type, given: Mapping[str, Value]) -> Any:
    """An instance of a dataclass of options, of words. Raises RecordError."""
    assert is_dataclass(kind)
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}
    return records.read(kind, {name: _plain(hints[name], value) if name in known else str(value)
                               for name, value in given.items()})  # fmt: skip


def _plain(hint: Any, value: Value) -> object:
    """A value as a table of TOML would have it, if it can be had."""
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (one for one in get_args(hint) if one is not type(None))
    if isinstance(value, tuple):
        inner = get_args(hint)[0] if get_origin(hint) is tuple else str
        return [_plain(inner, each) for each in value]
    if value.quoted:
        return value.text
    if hint is bool:
        return {"true": True, "false": False}.get(value.text, value.text)
    try:
        return hint(value.text) if hint in (int, float) and value.text.isascii() else value.text
    except ValueError:
        return value.text


# ---- opening


def build(layer: Layer, opening: Opening) -> Device:
    """The device at the top of a stack, all of it open. Raises OSError or StackError; then nothing is open."""
    with contextlib.ExitStack() as undo:
        children = []
        for child in layer.children:
            device = _child(layer, child, opening)
            undo.callback(_close, device)
            children.append(device)
        try:
            device = layer.kind.open(children, layer.options, opening)
        except StackError:
            raise
        except ValueError as error:
            raise StackError(f"{layer.label}: {error}") from None
        device.label = layer.label
        undo.pop_all()
        return device


def _child(layer: Layer, child: Layer, opening: Opening) -> Device:
    try:
        return build(child, opening)
    except OSError as error:
        if not layer.kind.absent:
            raise
        opening.notify("error", "layer-not-open", f"{child.label} is left out of {layer.kind.name}: {error}")
        return Absent(child.label, error)


def _close(device: Device) -> None:
    try:
        device.close()
    except OSError as error:
        log.error("%s: closing it has failed: %s", device.label, error)


def open_stack(text: str, opening: Opening | None = None, declared: Mapping[str, Written] | None = None) -> Device:
    """Parse, check and open a stack. Raises OSError or StackError."""
    opening = opening or Opening()
    opening = replace(opening, open=lambda other: open_stack(other, opening, declared))
    return build(understood(text, declared), opening)


# ---- what is open


def health(device: Device) -> str:
    """The word for how a device is: its own, or that of the worst of those that it stands on."""
    own = device.report().get("health")
    if own is not None:
        return str(own)
    return max(map(health, device.children), key=_badness, default="ok")


def _badness(word: str) -> int:
    return _WORSE.index(word) if word in _WORSE else 0


def tree(device: Device) -> dict[str, Any]:
    """A stack that is open, as tables in tables: what each layer reports, with its label, size, health and actions."""
    return {
        "label": device.label or type(device).__name__,
        "size": device.size,
        **device.report(),
        "health": health(device),
        "actions": sorted(device.actions()),
        "children": [tree(child) for child in device.children],
    }


def found(device: Device, path: str) -> Device:
    """A layer beneath (or at) `device`: "" for itself, "1/0" by places, "raid5" or "raid5/0" by the kind that is there once.

    Raises OSError (ENOENT) where there is none, or more than one.
    """
    for part in filter(None, path.split("/")):
        if part.isdecimal():
            at = int(part)
            if at >= len(device.children):
                raise OSError(errno.ENOENT, f"{device.label} stands on {len(device.children)} layers: there is no {at}")
            device = device.children[at]
            continue
        named = [each for each in walk(device) if _kind_of(each) == part]
        if len(named) != 1:
            how_many = "no layer" if not named else f"{len(named)} layers"
            raise OSError(
                errno.ENOENT, f"{how_many} of kind {part!r} in {device.label}: name one by its place, as in 0/1"
            )
        device = named[0]
    return device


def walk(device: Device) -> Iterator[Device]:
    """A device, and then all that it stands on."""
    yield device
    for child in device.children:
        yield from walk(child)


def _kind_of(device: Device) -> str:
    return device.label.partition("(")[0]
