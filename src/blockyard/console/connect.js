// What to paste on each kind of host to connect it to a target.

function split(portal) {
  const at = portal.lastIndexOf(':');
  return [portal.slice(0, at), portal.slice(at + 1)];
}

/** The portal as a host elsewhere reaches it: where the server listens on all addresses, by the name that this page came by. */
export function reachable(portal) {
  const [host, port] = split(portal);
  return ['0.0.0.0', '[::]'].includes(host) ? `${location.hostname}:${port}` : portal;
}

/** Lines by kind of host: [name, text]. */
export function instructions(target, portal) {
  const [host, port] = split(portal);
  return [
    ['Linux', `iscsiadm -m discovery -t sendtargets -p ${portal}\niscsiadm -m node -T ${target} -p ${portal} --login`],
    ['Windows', `# PowerShell as administrator\nSet-Service MSiSCSI -StartupType Automatic; Start-Service MSiSCSI\nNew-IscsiTargetPortal -TargetPortalAddress ${host} -TargetPortalPortNumber ${port}\nConnect-IscsiTarget -NodeAddress ${target} -IsPersistent $true`],
    ['VMware ESXi', `# vmhba64: see \`esxcli iscsi adapter list\`\nesxcli iscsi software set --enabled=true\nesxcli iscsi adapter discovery sendtarget add --adapter=vmhba64 --address=${portal}\nesxcli storage core adapter rescan --adapter=vmhba64`],
    ['Proxmox VE', `pvesm add iscsi blockyard --portal ${host} --target ${target}`],
    ['Kubernetes', `# a PersistentVolume; make its size and file system yours\napiVersion: v1\nkind: PersistentVolume\nmetadata: {name: blockyard-disk}\nspec:\n  capacity: {storage: 10Gi}\n  accessModes: [ReadWriteOnce]\n  iscsi: {targetPortal: "${portal}", iqn: "${target}", lun: 0, fsType: ext4}`],
    ['QEMU', `qemu-system-x86_64 -m 1G -drive file=iscsi://${portal}/${target}/0,format=raw,if=virtio`],
    ['libvirt', `<disk type='network' device='disk'>\n  <driver name='qemu' type='raw'/>\n  <source protocol='iscsi' name='${target}/0'><host name='${host}' port='${port}'/></source>\n  <target dev='vdb' bus='virtio'/>\n</disk>`],
    ['FreeBSD', `iscsictl -A -p ${portal} -t ${target}`],
  ];
}
