# LUN 0 is an image of RBD. At the marks the cluster stands still and goes on.
discover
login
disk=$(disk 0)

step "ext4 on an image of RBD"
must mkfs.ext4 -q -F "$disk"
mkdir -p /mnt/disk
must mount "$disk" /mnt/disk
verified_load /mnt/disk

step "the cluster stands still under a load, and goes on"
begin_load /mnt/disk
mark still
end_load
cat /tmp/load.out
dmesg | grep -i "not ready" | tail -2
dmesg | grep -iE "I/O error|remount" && fail "Linux has given up I/O that it should have tried again"
must cp /tmp/load.out /mnt/disk/kept

step "space goes back"
must rm -f /mnt/disk/load*
must sync
must fstrim -v /mnt/disk

step "what was written is there"
forget_cache
must cmp /tmp/load.out /mnt/disk/kept
must umount /mnt/disk
e2fsck -fn "$disk" >/tmp/fsck 2>&1 || fail "e2fsck: $(cat /tmp/fsck)"
