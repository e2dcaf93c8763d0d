"""What `blockyard serve` prints: what is served, and lines to paste at the initiator's end."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator

from blockyard import __version__
from blockyard.block.size import format_size
from blockyard.control.settling import Found
from blockyard.control.volumes import Backing
from blockyard.iscsi.directory import Portal
from blockyard.optical.kinds import BLOCK
from blockyard.worker.configuration import Settled, Volume

_ROWS = 40  # logical units that are listed


def overview(found: Found) -> str:
    """Portals, targets and their LUNs; of very many the first."""
    settled = found.settled
    lines = [f"Blockyard {__version__}", ""]
    for portal in settled.portals:
        scope = "this machine only" if portal.loopback else "anyone who reaches it can read and write"
        lines.append(f"  portal  {portal}   {scope}")
    left = _ROWS
    for name, target in settled.targets.items():
        shown = dict(sorted(target.luns.items())[: max(left, 0)])
        if left > 0:
            lines += ["", f"  target  {name}", *_table(shown, found)]
        left -= max(len(target.luns), 1)
    if left < 0:
        lines += ["", f"  … {-left} more: `blockyard status` lists them"]
    return "\n".join(lines)


def _table(luns: dict[int, str], found: Found) -> Iterator[str]:
    rows = [("LUN", "SIZE", "BLOCK", "ACCESS", "VOLUME")]
    for lun, name in luns.items():
        if name in found.settled.drives:
            rows.append((str(lun), "-", str(BLOCK), "read-only", f"{name} (optical drive)"))
        else:
            rows.append(_row(lun, found.settled.volumes[name], found.backings.get(name)))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row[:3], widths, strict=False)]
        yield "  " + "   ".join(["", *cells, row[3].ljust(widths[3]), row[4]])


def _row(lun: int, volume: Volume, backing: Backing | None) -> tuple[str, str, str, str, str]:
    access = "read-only" if volume.read_only else "write-through" if volume.write_through else "read-write"
    note = " (new)" if backing is not None and backing.created else ""
    size = format_size(volume.size) if volume.size else "-"  # of a stack: that is known when it is open
    return str(lun), size, str(volume.block_size), access, f"{volume.source}{note}"


def usage(settled: Settled) -> str:
    """Lines to paste for each kind of initiator, with the first target."""
    if not settled.targets:
        return "\nThere is no target yet.\n"
    portals, target, others = settled.portals, next(iter(settled.targets)), len(settled.targets) - 1
    near = _local(portals[0])
    far = _remote(portals)
    text = _NEAR.format(portal=near, host=near.host.strip("[]"), port=near.port, target=target)
    if far is not None:
        heading = "On another machine"
    else:
        far = Portal(_outward_address(portals[0]), portals[0].port)
        heading = f"On another machine, once served with --portal {far}"
    text += _FAR.format(heading=heading, portal=far, host=far.host.strip("[]"), port=far.port, target=target)
    if others:
        text += f"\n  Likewise for the other target{'s' if others > 1 else ''}.\n"
    return text


def _local(portal: Portal) -> Portal:
    """The portal as somebody on this machine reaches it."""
    if portal.wildcard:
        return Portal(ipaddress.ip_address("::1" if portal.address.version == 6 else "127.0.0.1"), portal.port)
    return portal


def _remote(portals: list[Portal]) -> Portal | None:
    """The first portal that others can reach, as they see it."""
    for portal in portals:
        if portal.wildcard:
            return Portal(_outward_address(portal), portal.port)
        if not portal.loopback:
            return portal
    return None


def _outward_address(portal: Portal) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address of this machine that faces the network; connecting a datagram socket chooses it and sends nothing."""
    v6 = portal.address.version == 6
    family, anywhere = (socket.AF_INET6, "2001:db8::1") if v6 else (socket.AF_INET, "192.0.2.1")
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.connect((anywhere, 9))
            return ipaddress.ip_address(sock.getsockname()[0])
    except OSError:  # no network
        return ipaddress.ip_address(anywhere)


_NEAR = """
To use it on this machine, paste

  Linux (open-iscsi, as root)
    iscsiadm -m discovery -t sendtargets -p {portal}
    iscsiadm -m node -T {target} -p {portal} --login

  QEMU
    qemu-img info iscsi://{portal}/{target}/0
    qemu-system-x86_64 -m 1G -drive file=iscsi://{portal}/{target}/0,format=raw,if=virtio

  libvirt (virsh attach-device DOMAIN disk.xml)
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw'/>
      <source protocol='iscsi' name='{target}/0'><host name='{host}' port='{port}'/></source>
      <target dev='vdb' bus='virtio'/>
    </disk>

  Nothing installed
    blockyard inquiry iscsi://{portal}/{target}/0
"""

_FAR = """
{heading}

  Windows (PowerShell as administrator)
    Set-Service MSiSCSI -StartupType Automatic; Start-Service MSiSCSI
    New-IscsiTargetPortal -TargetPortalAddress {host} -TargetPortalPortNumber {port}
    Connect-IscsiTarget -NodeAddress {target} -IsPersistent $true

  VMware ESXi (vmhba64: see `esxcli iscsi adapter list`)
    esxcli iscsi software set --enabled=true
    esxcli iscsi adapter discovery sendtarget add --adapter=vmhba64 --address={portal}
    esxcli storage core adapter rescan --adapter=vmhba64
"""
