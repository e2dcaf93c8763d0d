# A file is deleted by accident, and taken back from a few seconds ago: by a login to the target's name with that time.
discover
login
volume=$(disk 0)
mkdir -p /mnt/volume /mnt/then
must mkfs.ext4 -q -F "$volume"
must mount "$volume" /mnt/volume
must dd if=/dev/urandom of=/mnt/volume/thesis bs=1M count=8 conv=fsync status=none
must umount /mnt/volume # so that it is not in the journal alone, which cannot be replayed where nothing can be written
must mount "$volume" /mnt/volume
sum=$(sha256sum </mnt/volume/thesis)

now() { cut -d. -f1 /proc/uptime; }
mark there # the moment: the next full second
moment=$answer
there=$(now)
step "the file is there"
verified_load /mnt/volume --size=4m --fsync=16
while [ "$(now)" -lt $((there + 4)) ]; do sleep 0.2; done

must rm /mnt/volume/thesis
sync
forget_cache
[ -e /mnt/volume/thesis ] && fail "the file is there still"

present=$IQN
IQN=$present@$moment
step "login to $IQN"
must iscsiadm -m node -o new -T "$IQN" -p "$PORTAL"
login
then=$(disk 0)
[ "$(blockdev --getro "$then")" = 1 ] || fail "what was can be written"
must mount -o ro,noload "$then" /mnt/then
must cp /mnt/then/thesis /mnt/volume/thesis
[ "$(sha256sum </mnt/volume/thesis)" = "$sum" ] || fail "it is another file"
iscsiadm -m discovery -t sendtargets -p "$PORTAL" | grep -q @ && fail "a moment is shown in discovery"

step "both are used at once"
image() { dd if="$then" bs=1M iflag=direct status=none | sha256sum; }
was=$(image)
verified_load /mnt/volume --size=4m --fsync=16
[ "$(image)" = "$was" ] || fail "what was has changed"
must umount /mnt/then
logout
IQN=$present@-9d
must iscsiadm -m node -o new -T "$IQN" -p "$PORTAL"
iscsiadm -m node -T "$IQN" --login && fail "there is no such moment"
IQN=$present
must umount /mnt/volume
must e2fsck -fn "$volume"
dmesg | grep -iE "I/O error|Buffer I/O|EXT4-fs error" && fail "the kernel saw errors"
logout
