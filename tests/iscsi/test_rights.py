"""Rights on the wire, by the data path's short cut and without it: what a session may do, and what it cannot do to others."""

from __future__ import annotations

import pytest

from blockyard.block.device import Device
from blockyard.block.overlay import Budget, OverlayDevice
from blockyard.iscsi.access import AccessList, Right, Rule
from blockyard.iscsi.pdu import ScsiResponse, TaskFunction, TaskManagementRequest, TaskManagementResponse, TaskResponse
from blockyard.iscsi.permit import TargetAccess
from blockyard.scsi.target import LunMap
from blockyard.scsi.task import Status
from blockyard.scsi.virtual import VirtualLunMap
from tests.iscsi.commands import TEST_UNIT_READY, command, logged_in, read, sense, write
from tests.wire import Rig, Wire

OTHER = b"\x80\0\0\0\0\7"


def give(rig: Rig, right: Right) -> None:
    """The right of all sessions that are still to come."""

    def cover(device: Device) -> Device:
        return OverlayDevice(device, budget=Budget(1 << 20))

    def virtual(luns: LunMap, rule: Rule) -> LunMap:
        return VirtualLunMap(luns, cover, rig.executor)

    rig.node.access = TargetAccess(rig.node.scsi.luns, AccessList([Rule(right)]), cover=virtual)


def manage(wire: Wire, function: TaskFunction) -> int:
    request = TaskManagementRequest(final=True, immediate=True, function=function, itt=wire.itt, cmd_sn=wire.cmd_sn)
    return wire.ask(request, TaskManagementResponse).response


@pytest.mark.parametrize("fast", [True, False])
def test_read_only(rig: Rig, fast: bool) -> None:
    writer = logged_in(rig, fast=fast)
    give(rig, Right.READ_ONLY)
    reader = logged_in(rig, fast=fast, isid=OTHER)
    assert write(writer, 0, b"w" * 8192).status == Status.GOOD
    assert read(reader, 0, 16) == b"w" * 8192
    assert sense(write(reader, 0, bytes(8192))) == "072700"
    assert read(writer, 0, 16) == b"w" * 8192


@pytest.mark.parametrize("fast", [True, False])
def test_virtual_write(rig: Rig, fast: bool) -> None:
    give(rig, Right.VIRTUAL_WRITE)
    one, other = logged_in(rig, fast=fast), logged_in(rig, fast=fast, isid=OTHER)
    assert write(one, 0, b"1" * 8192).status == write(other, 0, b"2" * 512).status == Status.GOOD
    assert read(one, 0, 16) == b"1" * 8192
    assert read(other, 0, 2) == b"2" * 512 + bytes(512)
    one.close()
    assert read(logged_in(rig, fast=fast), 0, 16) == bytes(8192)


@pytest.mark.parametrize(
    ("right", "function", "response"),
    [
        (Right.READ_ONLY, TaskFunction.ABORT_TASK_SET, TaskResponse.COMPLETE),
        (Right.READ_ONLY, TaskFunction.CLEAR_TASK_SET, TaskResponse.UNAUTHORIZED),
        (Right.READ_ONLY, TaskFunction.LOGICAL_UNIT_RESET, TaskResponse.UNAUTHORIZED),
        (Right.READ_ONLY, TaskFunction.TARGET_WARM_RESET, TaskResponse.UNAUTHORIZED),
        (Right.READ_ONLY, TaskFunction.TARGET_COLD_RESET, TaskResponse.UNAUTHORIZED),
        (Right.VIRTUAL_WRITE, TaskFunction.LOGICAL_UNIT_RESET, TaskResponse.COMPLETE),
        (Right.VIRTUAL_WRITE, TaskFunction.TARGET_WARM_RESET, TaskResponse.COMPLETE),
        (Right.VIRTUAL_WRITE, TaskFunction.TARGET_COLD_RESET, TaskResponse.UNAUTHORIZED),
    ],
)
def test_nobody_ends_what_others_do_without_the_full_right(
    rig: Rig, right: Right, function: TaskFunction, response: TaskResponse
) -> None:
    other = logged_in(rig, isid=OTHER)
    give(rig, right)
    wire = logged_in(rig)
    assert manage(wire, function) == response
    assert other.ask(command(other, TEST_UNIT_READY), ScsiResponse).status == Status.GOOD
