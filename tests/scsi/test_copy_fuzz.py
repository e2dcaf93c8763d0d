"""Parameter lists of copies with bytes changed at random: whatever they say, the answer is one that a standard knows."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from blockyard.block.memory import MemoryDevice
from blockyard.scsi.sense import Asc
from tests.scsi.copies import (
    copy_aborted,
    cscd,
    extended_copy,
    hosts,
    lid1,
    lid4,
    make_token,
    populate,
    populate_list,
    receive,
    segment,
    segment_with_offsets,
    verify,
    write_list,
    write_using,
)
from tests.scsi.host import TEST_UNIT_READY, Host

_SIZE = 256 << 10
changes = st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=6)
cuts = st.integers(0, 700)


def _host_and_lists() -> tuple[Host, list[tuple[bytes, bytes]]]:
    pair = hosts(MemoryDevice(_SIZE), MemoryDevice(_SIZE))
    names = [cscd(host.disk, pad=True) for host in pair]
    segments = [
        segment(0, 1, 8, 0, 8, cat=True),
        segment_with_offsets(0, 1, 1000, (1, 5), (9, 7)),
        verify(1),
        segment(1, 0, 3, 100, 200, dc=True),
    ]
    token = make_token(pair[0], (0, 16))
    return pair[0], [
        (extended_copy(0), lid1(names, segments)),
        (extended_copy(0, 1), lid4(names, segments, list_id=5)),
        (populate(0), populate_list((0, 8), (16, 8), kind=0x00800000)),
        (write_using(0), write_list(token, (32, 8), (64, 8))),
    ]


@settings(max_examples=300, deadline=None)
@given(which=st.integers(0, 3), changes=changes, cut=cuts)
def test_no_list_breaks_anything(which: int, changes: list[tuple[int, int]], cut: int) -> None:
    host, lists = _host_and_lists()
    cdb, whole = lists[which]
    parameters = bytearray(whole)
    for at, value in changes:
        parameters[at % len(whole)] = value
    del parameters[max(cut, 1) :]
    cdb = cdb[:10] + len(parameters).to_bytes(4, "big") + cdb[14:]
    result = host.send(cdb, bytes(parameters))
    if result.sense:
        assert int.from_bytes(result.sense[12:14], "big") != Asc.INTERNAL_TARGET_FAILURE, result
        if result.sense[2] == 0x0A:
            copy_aborted(result.sense)
    for action in range(9):
        answer = host.send(receive(action, 1))
        if answer.sense:
            assert int.from_bytes(answer.sense[12:14], "big") != Asc.INTERNAL_TARGET_FAILURE
    host.ok(TEST_UNIT_READY)
