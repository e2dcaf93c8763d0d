# Both file systems on a disk: made, filled under verification, checked; and fstrim gives the space back.
discover
login
sda=$(disk 0)
step "logged in: $sda"
[ "$(blockdev --getss "$sda")" = "$BLOCK_SIZE" ] || fail "logical blocks of $(blockdev --getss "$sda") bytes"
lsblk --discard "$sda"
mkdir -p /mnt/disk

for kind in ext4 xfs; do
  case $kind in
  ext4) must mkfs.ext4 -q -F "$sda" ;;
  xfs) must mkfs.xfs -q -f "$sda" ;;
  esac
  step "mkfs.$kind"
  must mount "$sda" /mnt/disk
  verified_load /mnt/disk --bsrange=4k-64k --bs_unaligned=0 --blockalign=4k
  step "load on $kind"
  must dd if=/dev/urandom of=/mnt/disk/kept bs=1M count=8 conv=fsync status=none
  must dd if=/dev/urandom of=/mnt/disk/removed bs=1M count=24 conv=fsync status=none
  sum=$(sha256sum </mnt/disk/kept)
  must umount /mnt/disk
  mark "filled-$kind"
  forget_cache
  must mount "$sda" /mnt/disk
  [ "$(sha256sum </mnt/disk/kept)" = "$sum" ] || fail "a file of $kind has changed"
  rm /mnt/disk/removed /mnt/disk/load*
  sync
  must fstrim -v /mnt/disk
  mark "trimmed-$kind"
  [ "$(sha256sum </mnt/disk/kept)" = "$sum" ] || fail "a file of $kind has changed by fstrim"
  must umount /mnt/disk
  case $kind in
  ext4) must e2fsck -fn "$sda" ;;
  xfs) must xfs_repair -n "$sda" >/tmp/repair.out 2>&1 || { cat /tmp/repair.out; fail xfs_repair; } ;;
  esac
  step "$kind checked"
done
logout
[ -z "$(iscsiadm -m session 2>/dev/null)" ] || fail "there is still a session"
