"""Requests about the members of a pool (see pool_requests.py)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from blockyard.pool.members import prepare
from blockyard.worker.asking import number_in, text_in
from blockyard.worker.handoff import Message
from blockyard.worker.inventory import Inventory
from blockyard.worker.later import Answer, Later, nothing_more
from blockyard.worker.pools import OpenPool


def add_member(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Another member (see members.prepare)."""
    path, size, force = text_in(request, "path"), number_in(request, "size"), bool(request.get("force"))

    def work() -> str:
        there = Path(path).is_file() or Path(path).is_block_device()
        prepared = prepare(path, size, number=max(pool.pool.members, default=-1) + 1, force=force)
        try:
            pool.pool.add_member(prepared)
        except BaseException:
            if not there:
                os.unlink(prepared)
            raise
        return prepared

    return Later(work, lambda prepared: {"path": prepared})


def grow_member(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Use what a member has become larger by; a file is made larger where a size is given."""
    number, size = _member(pool, request), number_in(request, "size")
    return Later(lambda: pool.pool.grow_member(number, size), lambda result: {"size": pool.pool.members[number].size})


def remove_member(inventory: Inventory, pool: OpenPool, request: Message) -> Answer:
    """Take out a member that holds nothing."""
    number = _member(pool, request)
    return Later(lambda: pool.pool.remove_member(number), nothing_more)


def _member(pool: OpenPool, request: Message) -> int:
    number = number_in(request, "member")
    if number not in pool.pool.members:
        raise LookupError(f"{pool.name} has no member {number}: `blockyard pool show {pool.name}` lists them")
    return number


MEMBER_REQUESTS: Mapping[str, Callable[[Inventory, OpenPool, Message], Answer]] = {
    "add member": add_member,
    "grow member": grow_member,
    "remove member": remove_member,
}
