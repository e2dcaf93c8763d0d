"""From a stack that is written to devices: checked without touching anything, then opened from the bottom up.

`understood` knows kinds, options and arity; `build` opens; `tree` tells how an open stack is; `found` leads to one of its layers.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

from blockyard.block import kinds, records
from blockyard.block.actions import Progress, unwatched
from blockyard.block.device import Device
from blockyard.block.layers import MANY, Absent, Kind, Opening
from blockyard.block.stack import DEPTH, Call, StackError, Value, Word, Written, parse

log = logging.getLogger(__name__)

HERE = "."  # the place of the layer at the top

_WORSE = ("ok", "degraded", "failed")  # and what is none of these is as if it were ok


@dataclass(frozen=True)
class Layer:
    """A layer of a stack that is known to make sense, and could be opened."""

    kind: Kind
    options: Any
    children: tuple[Layer, ...]
    written: Call  # in the one form that all ways of writing it have in common

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

    def claims(self, parts: tuple[Part, ...] = ()) -> Iterator[Claim]:
        """What it and all below take for themselves alone, but for layers that have other parts of the same."""
        for what in self.kind.claims(self.options):
            yield Claim(what, parts)
        for child in self.children:
            taken = Part(str(child.written), *self.kind.part(self.options)) if self.kind.part else None
            yield from child.claims((taken, *parts) if taken else parts)


class Part(NamedTuple):
    """What a layer takes of a stack that others may have other parts of."""

    of: str  # the text of that stack
    offset: int
    length: int  # 0: to the end

    def overlaps(self, other: Part) -> bool:
        """Whether the two, which are of one stack, have a byte in common."""
        first, second = sorted((self, other), key=lambda part: part.offset)
        return not first.length or first.offset + first.length > second.offset


class Claim(NamedTuple):
    """Something that is in one place alone, such as a file; `parts`, if any, lead down to it."""

    what: str
    parts: tuple[Part, ...] = ()

    def agrees_with(self, other: Claim) -> bool:
        """Whether both can have it, as they take different parts of the same stack."""
        return any(part.of == one.of and not part.overlaps(one) for part in self.parts for one in other.parts)


def check_apart(claims: Iterable[Claim]) -> None:
    """That nothing is in two places. Raises StackError."""
    seen: dict[str, list[Claim]] = {}
    for claim in claims:
        before = seen.setdefault(claim.what, [])
        if not all(map(claim.agrees_with, before)):
            raise StackError(
                f"{claim.what.partition(':')[2]} is used twice: what is in one place cannot be in another too"
            )
        before.append(claim)


# ---- checking


def understood(stack: Written | str, declared: Mapping[str, Written] | None = None, directory: str = "") -> Layer:
    """What a stack says. `declared` has layers by their names; where it is None, there are no names: all words are paths.

    Relative paths begin at `directory`. Raises StackError for kinds, options and names that there are not, for too many
    or too few children, layers that stand on themselves, and what is used twice.
    """
    stack = absolute(parse(stack) if isinstance(stack, str) else stack, directory, names=declared is not None)
    layer = _Reader(declared or {}, directory).layer(stack, ())
    check_apart(layer.claims())
    return layer


def absolute(stack: Written, directory: str = "", *, names: bool) -> Written:
    """A stack with its paths made absolute, from a directory on; without `names`, what looks like one is a path too.

    Raises StackError for kinds that there are not.
    """
    if isinstance(stack, Word):
        return stack if names and stack.is_name else _absolute_word(stack, directory)
    kind = _kind(stack.name)
    options = tuple(
        (name, _absolute_word(value, directory) if name in kind.paths and isinstance(value, Word) else value)
        for name, value in stack.options
    )
    arguments = stack.arguments
    if not kind.argument:
        arguments = tuple(absolute(each, directory, names=names) for each in arguments)
    elif kind.argument in kind.paths:
        arguments = tuple(_absolute_word(each, directory) if isinstance(each, Word) else each for each in arguments)
    return replace(stack, arguments=arguments, options=options)


def _absolute_word(word: Word, directory: str) -> Word:
    return word if not word.text else Word(os.path.abspath(os.path.join(directory, word.text)), True)


def _kind(name: str) -> Kind:
    try:
        return kinds.kind(name)
    except LookupError as error:
        raise StackError(str(error.args[0])) from None


class _Reader:
    def __init__(self, declared: Mapping[str, Written], directory: str) -> None:
        self._declared = declared
        self._directory = directory

    def layer(self, stack: Written, inside: tuple[str, ...]) -> Layer:
        """Raises StackError."""
        if len(inside) > DEPTH:
            raise StackError(f"more than {DEPTH} layers stand on each other")
        if isinstance(stack, Call):
            return self._call(stack, inside)
        if not stack.is_name:
            return self._call(Call("file", (replace(stack, quoted=True),)), inside)
        name = stack.text
        if name not in self._declared:
            hint = f"declare [layers.{records.key(name)}], or write ./{name} for a file"
            raise StackError(f"there is no layer {name!r}: {hint}")
        if name in inside:
            raise StackError(f"the layer {name} stands on itself")
        return self.layer(absolute(self._declared[name], self._directory, names=True), (*inside, name))

    def _call(self, call: Call, inside: tuple[str, ...]) -> Layer:
        kind = _kind(call.name)
        return self.made_of(kind, kind.options, call, inside)

    def made_of(self, kind: Kind, wanted: type, call: Call, inside: tuple[str, ...] = ()) -> Layer:
        """A layer of a kind with `wanted` as its options."""
        given: dict[str, Value] = dict(call.options)
        arguments = call.arguments
        if kind.argument and arguments:
            (argument,) = arguments if len(arguments) == 1 else (None,)
            if not isinstance(argument, Word) or kind.argument in given:
                raise StackError(f"{call.name} has one {kind.argument}, and stands on nothing")
            given[kind.argument] = argument
            arguments = ()
        options = _options(kind, wanted, given)
        least, most = kind.children
        if not least <= len(arguments) <= most:
            many = f"{least}" if least == most else f"at least {least}" if most >= MANY else f"{least} to {most}"
            raise StackError(f"{call.name} stands on {many} layers, not on {len(arguments)}")
        children = tuple(self.layer(each, (*inside, "")) for each in arguments)
        return Layer(kind, options, children, _written(kind, wanted, given, children))


def _written(kind: Kind, wanted: type, given: Mapping[str, Value], children: Sequence[Layer]) -> Call:
    argument = given.get(kind.argument)
    arguments = (argument,) if isinstance(argument, Word) else tuple(child.written for child in children)
    ordered = (field.name for field in fields(wanted))
    return Call(
        kind.name, arguments, tuple((name, given[name]) for name in ordered if name in given and name != kind.argument)
    )


def _options(kind: Kind, wanted: type, given: Mapping[str, Value]) -> Any:
    try:
        return options_from(wanted, given)
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
    if hint is not bool and isinstance(hint, type) and issubclass(hint, int) and value.text.isdecimal():
        return int(value.text)
    if hint is bool:
        return {"true": True, "false": False}.get(value.text, value.text)
    try:
        return hint(value.text) if hint in (int, float) and value.text.isascii() else value.text
    except ValueError:
        return value.text


# ---- opening


class Reuse:
    """Devices that are open already, to be parts of a new stack."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        self._there: dict[str, list[Device]] = {}
        self._taken: list[Device] = []
        for device in devices:
            self._there.setdefault(written(device), []).append(device)

    def take(self, text: str) -> Device | None:
        """One with this text, if there is any left."""
        if not self._there.get(text):
            return None
        self._taken.append(self._there[text].pop())
        return self._taken[-1]

    def close(self, device: Device) -> None:
        """Close a device that has been built, but for what has been taken from here, which comes back."""
        if device in self._taken:
            self._taken.remove(device)
            self._there.setdefault(written(device), []).append(device)
        elif any(each in self._taken for each in walk(device)):
            device.detach()
            for child in device.children:
                self.close(child)
        else:
            device.close()


def build(layer: Layer, opening: Opening, reuse: Reuse | None = None) -> Device:
    """The device at the top of a stack, all of it open. Raises OSError or StackError; then nothing is open.

    What `reuse` has is taken out of there, and put back where something fails.
    """
    reuse = reuse or Reuse()
    there = reuse.take(str(layer.written))
    if there is not None:
        return there
    with contextlib.ExitStack() as undo:
        below = replace(opening, read_only=True) if layer.kind.only_reads else opening
        children = [_child(layer, child, below, reuse, undo) for child in layer.children]
        try:
            device = layer.kind.open(children, layer.options, opening)
        except StackError:
            raise
        except ValueError as error:
            raise StackError(f"{layer.label}: {error}") from None
        device.label = layer.label
        undo.pop_all()
        return device


def _child(layer: Layer, child: Layer, opening: Opening, reuse: Reuse, undo: contextlib.ExitStack) -> Device:
    if layer.kind.part is not None:
        device = opening.shared.take(str(child.written), lambda: build(child, replace(opening, read_only=False), reuse))
        undo.callback(_quietly, lambda device: opening.shared.give_back(device, reuse.close), device)
        return device
    try:
        device = build(child, opening, reuse)
    except OSError as error:
        if not layer.kind.absent:
            raise
        opening.notify("error", "layer-not-open", f"{child.label} is left out of {layer.kind.name}: {error}")
        device = Absent(child.label, error)
    undo.callback(_quietly, reuse.close, device)
    return device


def _quietly(close: Callable[[Device], None], device: Device) -> None:
    try:
        close(device)
    except OSError as error:
        log.error("%s: closing it has failed: %s", device.label, error)


def open_stack(text: str, opening: Opening | None = None, declared: Mapping[str, Written] | None = None) -> Device:
    """Parse, check and open a stack. Raises OSError or StackError."""
    return build(understood(text, declared), opening_others(opening or Opening(), declared))


def opening_others(opening: Opening, declared: Mapping[str, Written] | None = None) -> Opening:
    """What layers are given, so that they can open other stacks in the same way."""
    return replace(opening, open=lambda other: open_stack(other, opening, declared))


def creation(text: str, declared: Mapping[str, Written] | None = None) -> Layer:
    """What is to be made so that it can be opened later: a kind with the options that it has for that (Kind.creation).

    `declared` as for `understood`. Raises StackError.
    """
    call = absolute(parse(text), names=declared is not None)
    if not isinstance(call, Call):
        raise StackError(f"{text} is a path: write for example raid1({text}, …)")
    kind = _kind(call.name)
    if kind.create is None:
        raise StackError(f"{kind.name} keeps nothing on what it stands on: it is there as soon as it is in a stack")
    layer = _Reader(declared or {}, "").made_of(kind, kind.creation, call)
    check_apart(layer.claims())
    return layer


def make(layer: Layer, opening: Opening, progress: Progress = unwatched) -> str:
    """Make what `creation` has understood. Returns what there is to say to people. Raises OSError or StackError, and what
    `progress` raises to stop it; then nothing is there that could be opened."""
    assert layer.kind.create is not None
    with contextlib.ExitStack() as undo:
        children = [_child(layer, child, opening, Reuse(), undo) for child in layer.children]
        try:
            return layer.kind.create(children, layer.options, opening, progress)
        except StackError:
            raise
        except ValueError as error:
            raise StackError(f"{layer.label}: {error}") from None


def create_layer(text: str, opening: Opening | None = None) -> str:
    """Both in one. Raises OSError or StackError."""
    return make(creation(text), opening or Opening())


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
    """A layer beneath (or at) `device`: "" or "." for itself, "1/0" by places, "raid5" or "raid5/0" by a kind that is there once.

    Raises OSError (ENOENT) where there is none, or more than one.
    """
    for part in filter(None, path.split("/")):
        if part == HERE:
            continue
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


def written(device: Device) -> str:
    """The text of the stack that a device is the top of, as it is now: what `understood` has for the same."""
    call = parse(device.label)
    if isinstance(call, Word):
        call = Call(call.text)
    return str(replace(call, arguments=tuple(parse(written(child)) for child in device.children) or call.arguments))


def walk(device: Device) -> Iterator[Device]:
    """A device, and then all that it stands on."""
    yield device
    for child in device.children:
        yield from walk(child)


def places(device: Device, at: str = HERE) -> Iterator[tuple[str, Device]]:
    """The same, each with its place, as `found` takes it."""
    yield at, device
    for number, child in enumerate(device.children):
        yield from places(child, str(number) if at == HERE else f"{at}/{number}")


def _kind_of(device: Device) -> str:
    return device.label.partition("(")[0]
