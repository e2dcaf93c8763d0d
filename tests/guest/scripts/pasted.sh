# What a new user does: pastes the lines for Linux that the server has printed, makes a file system and mounts it.
echo "$PASTED"
eval "$PASTED" || fail "what the server says to paste"
settle
sda=$(readlink -f /dev/disk/by-path/*-iscsi-*-lun-0)
[ -b "$sda" ] || fail "there is no disk"
must mkfs.ext4 -q -F "$sda"
mkdir -p /mnt/disk
must mount "$sda" /mnt/disk
echo "it works" >/mnt/disk/file
must umount /mnt/disk
must mount "$sda" /mnt/disk
[ "$(cat /mnt/disk/file)" = "it works" ] || fail "the file"
mark mounted
must umount /mnt/disk
must iscsiadm -m node --logout
