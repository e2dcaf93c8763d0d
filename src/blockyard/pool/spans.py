"""Which parts of a volume hold anything: told by pages of its map, so that what is thin costs nothing to go through.

A volume of 8 EiB has 2^47 chunks of 64 KiB, and an initiator may ask for all of them at once which are mapped.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from blockyard.block.device import Run, merged
from blockyard.pool.engine import Engine
from blockyard.pool.livemap import PAGE_SHIFT
from blockyard.pool.parts import parts
from blockyard.pool.tree import Tree


class Span(NamedTuple):
    """A part of a volume in which some chunks may be mapped, or none is."""

    offset: int
    length: int
    held: bool


def spans(engine: Engine, tree: Tree, offset: int, length: int, generation: int | None = None) -> Iterator[Span]:
    """A range of a tree, or of its snapshot of a generation, in parts of at most a page where anything is held."""
    shift = tree.shift + PAGE_SHIFT
    at, end = offset, offset + length
    while at < end:
        page = engine.next_page(tree, at >> shift, generation)
        start = end if page is None else min(end, max(at, page << shift))
        if start > at:
            yield Span(at, start - at, False)
        stop = min(end, (start >> shift) + 1 << shift)
        if stop > start:
            yield Span(start, stop - start, True)
        at = stop


def runs(engine: Engine, tree: Tree, offset: int, length: int, generation: int | None = None) -> Iterator[Run]:
    """The range as runs that are mapped and not mapped in turn (see Device.runs)."""
    return merged(_pieces(engine, tree, offset, length, generation))


def _pieces(engine: Engine, tree: Tree, offset: int, length: int, generation: int | None) -> Iterator[Run]:
    for span in spans(engine, tree, offset, length, generation):
        if not span.held:
            yield Run(*span)
            continue
        mapped = engine.mapped(tree, span.offset >> (tree.shift + PAGE_SHIFT), generation)
        if all(mapped):
            yield Run(*span)
            continue
        at = span.offset
        for part in parts(tree.shift, span.offset, span.length):
            yield Run(at, part.length, mapped[part.chunk & ((1 << PAGE_SHIFT) - 1)])
            at += part.length
