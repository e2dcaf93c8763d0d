# A snapshot is mounted and read while its volume is being written; a clone of it is written beside.
discover
login
volume=$(disk 0)
mkdir -p /mnt/volume /mnt/snapshot /mnt/clone
must mkfs.ext4 -q -F "$volume"
must mount "$volume" /mnt/volume
must dd if=/dev/urandom of=/mnt/volume/kept bs=1M count=8 conv=fsync status=none
must umount /mnt/volume # so that the file is not in the journal alone, which a snapshot cannot be mended with
must mount "$volume" /mnt/volume
sum=$(sha256sum </mnt/volume/kept)
image() { dd if="$1" bs=1M iflag=direct status=none | sha256sum; }
sectors() { awk '{print $7}' /sys/block/"$(basename "$volume")"/stat; }
written() { # waits until 4 MiB more have been written
  local before
  before=$(sectors)
  while [ "$(sectors)" -lt $((before + 8192)) ]; do sleep 0.1; kill -0 $load 2>/dev/null || fail "the load has ended"; done
}

step "load begins"
begin_load /mnt/volume --size=16m --loops=200 --time_based --runtime=6 --fsync=64
written
mark "snapshot"
must iscsiadm -m session --rescan
settle
snapshot=$(disk 1)
[ "$(blockdev --getro "$snapshot")" = 1 ] || fail "the snapshot can be written"
was=$(image "$snapshot")
must mount -o ro,noload "$snapshot" /mnt/snapshot
written
[ "$(sha256sum </mnt/snapshot/kept)" = "$sum" ] || fail "the file is another one in the snapshot"
must umount /mnt/snapshot

step "clone"
mark "clone"
must iscsiadm -m session --rescan
settle
clone=$(disk 2)
e2fsck -fy "$clone" >/tmp/e2fsck 2>&1
[ $? -le 1 ] || fail "the clone cannot be mended: $(cat /tmp/e2fsck)"
must mount "$clone" /mnt/clone
[ "$(sha256sum </mnt/clone/kept)" = "$sum" ] || fail "the file is another one in the clone"
must dd if=/dev/urandom of=/mnt/clone/kept bs=1M count=8 conv=notrunc,fsync status=none
must umount /mnt/clone
written

end_load
step "load done"
[ "$(sha256sum </mnt/volume/kept)" = "$sum" ] || fail "the file has changed"
must umount /mnt/volume
must e2fsck -fn "$volume"
[ "$(image "$snapshot")" = "$was" ] || fail "the snapshot has changed"
dmesg | grep -iE "I/O error|Buffer I/O|EXT4-fs error" && fail "the kernel saw errors"
logout
