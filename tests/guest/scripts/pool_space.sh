# A pool of 64 MiB; LUN 0 is a thin volume of it with ext4, LUN 1 another one that fills the pool.
discover
login
disk=$(disk 0)
hog=$(disk 1)
head -c 24M /dev/urandom >/tmp/data

step "a file system on a thin volume"
granularity=$(cat "/sys/block/$(basename "$disk")/queue/discard_granularity")
[ "$granularity" = 65536 ] || fail "Linux gives space back in units of $granularity bytes"
must mkfs.ext4 -q -F "$disk"
mkdir -p /mnt/disk
must mount "$disk" /mnt/disk
must cp /tmp/data /mnt/disk/first
must sync
mark used
must rm /mnt/disk/first
must sync
must fstrim -v /mnt/disk
must blockdev --flushbufs "$disk" # what is freed is free when that is stable
mark trimmed

step "the pool is full"
must cp /tmp/data /mnt/disk/kept
must sync
dd if=/dev/zero bs=1M count=64 2>/dev/null | tr '\0' 'h' >/tmp/hog
mark reserve
dd if=/tmp/hog of="$hog" bs=64k oflag=direct status=none 2>/tmp/error && fail "more was written than there is room for"
cat /tmp/error
grep -q "No space left on device" /tmp/error || fail "Linux was not told that there is no space"
for try in $(seq 240); do # the pool is looked at about once a second, and the next command brings the warning
  must dd if="$hog" of=/dev/null bs=4k count=1 iflag=direct status=none
  dmesg | grep -q "thin provisioning soft threshold" && break
  [ "$try" -lt 240 ] || fail "Linux was not warned"
  sleep 0.5
done
must dd if=/tmp/hog of="$hog" bs=64k count=16 oflag=direct status=none # what is there already can be written

step "who has space reserved goes on"
head -c 4M /dev/urandom >/tmp/more
must cp /tmp/more /mnt/disk/more
must sync
must cmp /tmp/more /mnt/disk/more
forget_cache
must cmp /tmp/data /mnt/disk/kept

step "and without reserve, it is refused and nothing is lost"
dd if=/tmp/hog of=/mnt/disk/big bs=1M oflag=direct status=none 2>/tmp/error && fail "more was written than there is room for"
cat /tmp/error
forget_cache
must cmp /tmp/data /mnt/disk/kept
mark full

step "space has come back"
must umount /mnt/disk
e2fsck -fy "$disk" >/tmp/fsck 2>&1
[ $? -le 1 ] || fail "e2fsck: $(cat /tmp/fsck)"
must mount "$disk" /mnt/disk
must cmp /tmp/data /mnt/disk/kept
must cmp /tmp/more /mnt/disk/more
must cp /tmp/data /mnt/disk/second
must dd if=/tmp/hog of="$hog" bs=64k oflag=direct status=none
blockdev --flushbufs "$hog"
must cmp -n $((64 << 20)) /tmp/hog "$hog"
must umount /mnt/disk
must e2fsck -fn "$disk"
