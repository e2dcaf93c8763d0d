"""What clusters do with a shared disk, command by command: Windows, Linux with fence_mpath or fence_scsi, VMware."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockyard.scsi.sense import Asc, SenseKey
from blockyard.scsi.target import Target
from blockyard.scsi.task import Status
from tests.scsi.cluster import (
    APTPL,
    CLEAR,
    EA,
    PREEMPT,
    PREEMPT_AND_ABORT,
    REGISTER,
    REGISTER_AND_IGNORE,
    RELEASE,
    RESERVE,
    WERO,
    attentions,
    conflicts,
    do,
    full_status,
    good,
    join,
    keys,
    parameters,
    pr_in,
    pr_out,
    reservation,
    shared_disk,
)
from tests.scsi.host import (
    TEST_UNIT_READY,
    Host,
    compare_and_write,
    inquiry,
    read_16,
    report_luns,
    supported_opcodes,
    write_16,
)


def writes(host: Host) -> bool:
    return host.send(write_16(0, 1), bytes(512)).status == Status.GOOD


def reads(host: Host) -> bool:
    return host.send(read_16(0, 1)).status == Status.GOOD


@pytest.fixture
def disk(tmp_path: Path) -> Target:
    return shared_disk(tmp_path)


class TestWindowsFailoverCluster:
    """The validation of SCSI-3 persistent reservations, and the arbitration that the cluster disk driver does (type 5)."""

    NODE_1, NODE_2 = 0x6B6C_D1E9_0001_734D, 0x6B6C_D1E9_0002_734D

    def nodes(self, disk: Target) -> tuple[Host, Host]:
        return join(disk, "node1"), join(disk, "node2")

    def test_identity_is_the_same_on_every_node_and_path(self, disk: Target) -> None:
        hosts = [join(disk, "node1", 1), join(disk, "node1", 2), join(disk, "node2", 1)]
        assert len({host.ok(inquiry(0x80)) for host in hosts}) == 1
        pages = [host.ok(inquiry(0x83, 4096)) for host in hosts]
        assert len({page[4:16] for page in pages}) == 1  # the NAA designator of the logical unit stands first
        assert all(page[4:8] == b"\x01\x03\x00\x08" for page in pages)
        assert len({host.ok(report_luns()) for host in hosts}) == 1

    def test_validation(self, disk: Target) -> None:
        one, two = self.nodes(disk)
        for node, key in ((one, self.NODE_1), (two, self.NODE_2)):
            good(node, REGISTER_AND_IGNORE, 0, key)
            assert keys(node).count(key) == 1
        good(one, RESERVE, self.NODE_1, kind=WERO)
        assert reservation(two) == (self.NODE_1, WERO)
        assert writes(one)
        assert writes(two)  # a registrant
        assert conflicts(do(two, RESERVE, self.NODE_2, kind=WERO))
        good(two, REGISTER, self.NODE_2, 0)
        assert not writes(two)
        assert reads(two)
        assert conflicts(do(two, RESERVE, self.NODE_2, kind=WERO))  # not registered any more
        good(one, RELEASE, self.NODE_1, kind=WERO)
        assert reservation(one) is None
        good(one, CLEAR, self.NODE_1)
        assert keys(one) == []

    def test_arbitration_the_challenger_waits_and_the_defender_defends(self, disk: Target) -> None:
        defender, challenger = self.nodes(disk)
        good(defender, REGISTER_AND_IGNORE, 0, self.NODE_1)
        good(defender, RESERVE, self.NODE_1, kind=WERO)
        good(challenger, REGISTER_AND_IGNORE, 0, self.NODE_2)  # it has found the reservation, and waits for 6 s
        assert keys(defender) == [self.NODE_1, self.NODE_2]
        good(defender, PREEMPT, self.NODE_1, self.NODE_2, kind=WERO)  # within 3 s
        assert attentions(challenger) == [Asc.REGISTRATIONS_PREEMPTED]
        assert conflicts(do(challenger, PREEMPT, self.NODE_2, self.NODE_1, kind=WERO))
        assert not writes(challenger)
        assert writes(defender)

    def test_arbitration_a_dead_defender_loses_the_disk(self, disk: Target) -> None:
        defender, challenger = self.nodes(disk)
        good(defender, REGISTER_AND_IGNORE, 0, self.NODE_1)
        good(defender, RESERVE, self.NODE_1, kind=WERO)
        defender.unit.detach(defender.nexus)  # its session is lost; its registration stays
        good(challenger, REGISTER_AND_IGNORE, 0, self.NODE_2)
        good(challenger, PREEMPT_AND_ABORT, self.NODE_2, self.NODE_1, kind=WERO)
        assert reservation(challenger) == (self.NODE_2, WERO)
        assert writes(challenger)
        back = join(disk, "node1")
        assert not writes(back)
        assert conflicts(do(back, RELEASE, self.NODE_1, kind=WERO))

    def test_failover_registers_both_paths_and_moves_with_the_key(self, disk: Target) -> None:
        """MPIO: every path of a node is registered with the node's key, so that preempting takes them all."""
        paths = [join(disk, "node1", tag) for tag in (1, 2)]
        other = join(disk, "node2")
        for path in paths:
            good(path, REGISTER_AND_IGNORE, 0, self.NODE_1)
        good(paths[0], RESERVE, self.NODE_1, kind=WERO)
        assert writes(paths[1])
        good(other, REGISTER_AND_IGNORE, 0, self.NODE_2)
        good(other, PREEMPT, self.NODE_2, self.NODE_1, kind=WERO)
        for path in paths:
            assert attentions(path) == [Asc.REGISTRATIONS_PREEMPTED]
            assert not writes(path)


class TestFencing:
    """fence_mpath and fence_scsi: a key for each node, Write Exclusive - Registrants Only, fenced by PREEMPT AND ABORT."""

    def test_fence_and_unfence(self, disk: Target) -> None:
        nodes = {key: [join(disk, f"node{key}", tag) for tag in (1, 2)] for key in (1, 2, 3)}
        for key, paths in nodes.items():  # fence action "on": every path of the map
            for path in paths:
                good(path, REGISTER_AND_IGNORE, 0, key, flags=APTPL)
        good(nodes[1][0], RESERVE, 1, kind=WERO)
        assert all(writes(path) for paths in nodes.values() for path in paths)
        for path in nodes[2]:
            attentions(path)
        good(nodes[1][0], PREEMPT_AND_ABORT, 1, 2, kind=WERO)  # "off" of node 2
        assert keys(nodes[1][0]) == [1, 1, 3, 3]  # how "status" knows
        for path in nodes[2]:
            assert attentions(path) == [Asc.REGISTRATIONS_PREEMPTED]
            assert not writes(path)
            assert reads(path)
        assert writes(nodes[3][1])
        good(
            nodes[3][0], PREEMPT_AND_ABORT, 3, 1, kind=WERO
        )  # the holder is fenced: the reservation goes to who fences
        assert reservation(nodes[3][0]) == (3, WERO)
        for path in nodes[2]:
            good(path, REGISTER_AND_IGNORE, 0, 2, flags=APTPL)
            assert writes(path)

    def test_what_mpathpersist_asks_first(self, disk: Target) -> None:
        host = join(disk, "node1")
        good(host, REGISTER_AND_IGNORE, 0, 0x123ABC, flags=APTPL)
        capabilities = host.ok(pr_in(2))
        assert capabilities[2] & 0x01  # PTPL_C
        assert capabilities[3] & 0x01  # PTPL_A
        assert [entry.initiator for entry in full_status(host)] == ["iqn.test:node1,i,0x00023d000000"]
        for action in (0, 1, 2, 3):
            assert host.ok(supported_opcodes(2, 0x5E, action))[1] == 3
        for action in range(9):
            assert host.ok(supported_opcodes(2, 0x5F, action))[1] == 3
        short = host.ok(pr_in(0, 8))  # a first look at how much there is
        assert int.from_bytes(short[4:8], "big") == 8


class TestVmware:
    """VMFS locks with COMPARE AND WRITE, else with RESERVE and RELEASE; WSFC in virtual machines passes reservations through."""

    def test_heartbeats_go_on_beside_each_other(self, disk: Target) -> None:
        one, two = join(disk, "esx1"), join(disk, "esx2")
        free, mine, theirs = bytes(512), b"1" * 512, b"2" * 512
        one.ok(compare_and_write(0, 1), free + mine)
        two.fail(compare_and_write(0, 1), SenseKey.MISCOMPARE, Asc.MISCOMPARE_DURING_VERIFY_OPERATION, free + theirs)
        one.ok(compare_and_write(0, 1), mine + free)
        two.ok(compare_and_write(0, 1), free + theirs)

    @pytest.mark.parametrize("end", ["release", "reset", "loss"])
    def test_a_metadata_lock_by_reserve(self, end: str, disk: Target) -> None:
        one, two = join(disk, "esx1"), join(disk, "esx2")
        one.ok(bytes([0x16, 0, 0, 0, 0, 0]))
        assert conflicts(two.send(bytes([0x16, 0, 0, 0, 0, 0])))
        assert not writes(two)
        if end == "release":
            one.ok(bytes([0x17, 0, 0, 0, 0, 0]))
        elif end == "reset":
            two.unit.reset()
            attentions(two)
        else:
            one.unit.detach(one.nexus)
        two.ok(bytes([0x16, 0, 0, 0, 0, 0]))
        assert writes(two)

    def test_a_virtual_machine_holds_what_its_host_registered(self, disk: Target) -> None:
        one, two = join(disk, "esx1"), join(disk, "esx2")
        good(one, REGISTER, 0, 0x10)
        good(one, RESERVE, 0x10, kind=EA)
        assert not reads(two)
        two.ok(TEST_UNIT_READY)  # a perennially reserved device must not hold up a rescan
        two.ok(inquiry())
        two.ok(report_luns())
        assert not conflicts(two.send(pr_out(REGISTER), parameters(0, 0x20)))
        good(two, PREEMPT, 0x20, 0x10, kind=EA)
        assert reads(two)
        assert attentions(one) == [Asc.REGISTRATIONS_PREEMPTED]
        assert not reads(one)
