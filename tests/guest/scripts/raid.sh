# LUN 0 to 3 are the members of an array of ours, LEVEL, which nobody else has open. LUN 4 is another array, of ours and served.
# Linux' md runs the first one; ext4 is on the second one, of which a member dies.
discover
login
modprobe -a raid0 raid1 raid10 raid456

step "Linux assembles our array, and finds it in order"
members=$(for lun in 0 1 2 3; do disk $lun; done)
must mdadm --assemble --run /dev/md127 $members
md=md127
cat /proc/mdstat
[ "$(cat "/sys/block/$md/md/array_state")" = clean ] || [ "$(cat "/sys/block/$md/md/array_state")" = active ] || fail "it is $(cat "/sys/block/$md/md/array_state")"
if [ "$LEVEL" != 0 ]; then
  echo check >"/sys/block/$md/md/sync_action"
  while [ "$(cat "/sys/block/$md/md/sync_action")" != idle ]; do sleep 0.1; done
  [ "$(cat "/sys/block/$md/md/mismatch_cnt")" = 0 ] || fail "$(cat "/sys/block/$md/md/mismatch_cnt") sectors differ"
fi
[ "$(sha256sum <"/dev/$md")" = "$SUM  -" ] || fail "Linux reads something else from it"

step "Linux writes to it, without a member where it can"
if [ "$LEVEL" != 0 ]; then
  must mdadm /dev/md127 --fail "$(disk 1)"
fi
head -c 3M /dev/urandom >/tmp/piece
must dd if=/tmp/piece of="/dev/$md" bs=64k seek=5 conv=notrunc,fsync status=none
if [ "$LEVEL" != 0 ]; then
  eventually mdadm /dev/md127 --remove "$(disk 1)" # when md has seen to it that nobody uses it
  must mdadm /dev/md127 --re-add "$(disk 1)" || fail "it does not come back"
  rebuilt() { [ "$(cat "/sys/block/$md/md/degraded")" = 0 ] && [ "$(cat "/sys/block/$md/md/sync_action")" = idle ]; }
  eventually rebuilt
fi
sum=$(sha256sum <"/dev/$md")
echo "LINUX:${sum%  -}"
eventually mdadm --stop /dev/md127
for member in $members; do must blockdev --flushbufs "$member"; done
mark ours

step "Linux makes an array of its own"
must mdadm --zero-superblock $members
must mdadm --create /dev/md127 --run --metadata=1.2 --level="$LEVEL" --raid-devices=4 --name=theirs \
  $([ "$LEVEL" = 1 ] || echo --chunk=64) \
  $([ "$LEVEL" = 0 ] || echo --bitmap=internal --assume-clean) $members
head -c "$(blockdev --getsize64 /dev/md127)" /dev/urandom >/tmp/whole
must dd if=/tmp/whole of=/dev/md127 bs=1M oflag=direct conv=fsync status=none
sum=$(sha256sum </tmp/whole)
echo "THEIRS:${sum%  -}"
rm /tmp/whole
eventually mdadm --stop /dev/md127
logout

step "a member of the served array dies under load, and a spare takes its place"
login
disk=$(disk 4)
must mkfs.ext4 -q -F "$disk"
mkdir -p /mnt/disk
must mount "$disk" /mnt/disk
head -c 4M /dev/urandom >/mnt/disk/kept
kept=$(sha256sum </mnt/disk/kept)
begin_load /mnt/disk
for what in degraded rebuilt; do
  told() { mark $what; [ "$answer" = yes ]; }
  eventually told
done
end_load
forget_cache
[ "$(sha256sum </mnt/disk/kept)" = "$kept" ] || fail "the file is not what it was"
must umount /mnt/disk
must e2fsck -fn "$disk"
logout
