"""What a pool keeps in LMDB, and the room that it has for that on the disk before a commit begins."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from blockyard.pool import store as store_module
from blockyard.pool.datafile import NAME
from blockyard.pool.store import Lost, Store

LOSTS = 5000


def _on_disk(directory: Path) -> int:
    return (directory / NAME).stat().st_blocks * 512


def test_room_for_lost_chunks_suffices_and_is_not_many_times_what_they_take(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_AHEAD", 0)  # what may be touched besides does not help
    monkeypatch.setattr(store_module, "_PAGES_A_COMMIT", 0)
    random = Random(1)
    store = Store(tmp_path, create=True)
    try:
        for generation in range(1, 5):
            store.reserve(0, LOSTS)
            room = _on_disk(tmp_path)
            losts = [
                Lost(1, chunk, generation, chunk + 1, generation) for chunk in random.sample(range(1 << 40), LOSTS)
            ]
            with store.write() as transaction:
                transaction.put_losts(losts)
            assert store.size <= room < 64 << 20  # eight pages for each would be 160 MiB
    finally:
        store.close()
