# Verified load while the target goes away and comes back, several times; the file system is intact afterwards.
discover
set_node node.session.err_timeo.abort_timeout 60
login
sda=$(disk 0)
echo 120 >/sys/block/"$(basename "$sda")"/device/timeout
mkdir -p /mnt/disk
must mkfs.ext4 -q -F "$sda"
must mount "$sda" /mnt/disk
must dd if=/dev/urandom of=/mnt/disk/kept bs=1M count=4 conv=fsync status=none
sum=$(sha256sum </mnt/disk/kept)
step "load begins"
begin_load /mnt/disk --size=16m --loops=200 --time_based --runtime=6 --fsync=64
sectors() { awk '{print $7}' /sys/block/"$(basename "$sda")"/stat; }
for number in $OUTAGES; do
  before=$(sectors)
  while [ "$(sectors)" -lt $((before + 4096)) ]; do sleep 0.1; kill -0 $load 2>/dev/null || fail "the load has ended"; done
  mark "outage-$number"
  step "outage $number"
done
before=$(sectors)
explain() { iscsiadm -m session -P3; }
written() { [ "$(sectors)" -ge $((before + 4096)) ]; }
eventually written
step "writes go on"
iscsiadm -m session -P1 | grep -E 'Connection State|Session State'
end_load
step "load done"
must umount /mnt/disk
forget_cache
must e2fsck -fn "$sda"
must mount "$sda" /mnt/disk
[ "$(sha256sum </mnt/disk/kept)" = "$sum" ] || fail "a file has changed"
must umount /mnt/disk
dmesg | grep -iE "I/O error|Buffer I/O|EXT4-fs error" && fail "the kernel saw errors"
logout
