# Verified load with digests, while a proxy does harm to connections. Portals are not discovered: they would lead past it.
must iscsiadm -m node -o new -T "$IQN" -p "$PORTAL"
set_node "node.conn[0].iscsi.HeaderDigest" CRC32C
set_node "node.conn[0].iscsi.DataDigest" CRC32C
set_node "node.conn[0].timeo.noop_out_interval" 5
set_node "node.conn[0].timeo.noop_out_timeout" 5
login
sda=$(disk 0)
echo 120 >/sys/block/"$(basename "$sda")"/device/timeout
mkdir -p /mnt/disk
must mkfs.ext4 -q -F "$sda"
must mount "$sda" /mnt/disk
mark "begin"
step "load begins"
for _ in $(seq 40); do
  verified_load /mnt/disk --size=4m --loops=200 --time_based --runtime=7 --fsync=64
  mark "loaded"
  [ "$answer" = more ] || break
done
step "load done"
mark "end"
must umount /mnt/disk
forget_cache
must e2fsck -fn "$sda"
dmesg | grep -iE "I/O error, dev|Buffer I/O|EXT4-fs error" && fail "the kernel saw errors"
logout
