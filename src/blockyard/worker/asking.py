"""What a request about a pool is made of: its arguments, and what they name."""

from __future__ import annotations

from typing import TypeVar

from blockyard.pool.catalog import Snapshot, Volume
from blockyard.worker.handoff import Message
from blockyard.worker.pools import OpenPool

T = TypeVar("T")


def find(pool: OpenPool, name: str) -> Volume:
    """A volume. Raises LookupError, saying what to do."""
    if name not in pool.pool.volumes:
        raise LookupError(f"there is no volume {pool.name}/{name}: `blockyard volume list {pool.name}` lists them")
    return pool.pool.volume(name)


def find_snapshot(pool: OpenPool, volume: str, name: str) -> Snapshot:
    """A snapshot. Raises LookupError, saying what to do."""
    find(pool, volume)
    try:
        return pool.pool.find_snapshot(volume, name)
    except KeyError:
        pass
    of = f"{pool.name}/{volume}"
    raise LookupError(f"there is no snapshot {of}@{name}: `blockyard snapshot list {of}` lists them")


def text_in(request: Message, key: str) -> str:
    """An argument that is a text. Raises ValueError when it is not; so do the others."""
    return _typed(request, key, str)


def number_in(request: Message, key: str) -> int:
    """An argument that is a number."""
    return _typed(request, key, int)


def texts_in(request: Message, key: str) -> list[str]:
    """An argument that is a list of texts."""
    found = _typed(request, key, list)
    if not found or not all(isinstance(each, str) for each in found):
        raise ValueError(f"the request has no {key}")
    return found


def _typed(request: Message, key: str, kind: type[T]) -> T:
    value = request.get(key)
    if type(value) is not kind:
        raise ValueError(f"the request has no {key}")
    return value
