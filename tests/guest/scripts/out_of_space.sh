# A thin disk of 64 MiB on a file system that has room for 12 of them, until the mark.
discover
login
disk=$(disk 0)
head -c 20M /dev/urandom >/tmp/data
first=$((8 << 20))

step "full"
must dd if=/tmp/data of="$disk" bs=1M count=8 oflag=direct status=none
dd if=/tmp/data of="$disk" bs=1M oflag=direct status=none 2>/tmp/error && fail "more was written than there is room for"
cat /tmp/error
grep -q "No space left on device" /tmp/error || fail "Linux was not told that there is no space"
must cmp -n $first /tmp/data "$disk"
# what is there already can be written all the same
must dd if=/tmp/data of="$disk" bs=1M count=4 oflag=direct status=none
sg_turs "$disk" || fail "not ready"

mark full
step "space has come back"
must dd if=/tmp/data of="$disk" bs=1M oflag=direct status=none
blockdev --flushbufs "$disk"
must cmp -n $((20 << 20)) /tmp/data "$disk"
logout
