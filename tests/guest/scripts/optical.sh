# A CD, a DVD and a BD in one drive, one after the other, with the tools that people use. LUN 0 is the drive with the CD in it.
discover
login
lsscsi -g
sr=$(disk 0)
[ "$(cat /sys/block/sr0/device/type)" = 5 ] || fail "LUN 0 is no optical drive"
[ "$sr" = /dev/sr0 ] || fail "the drive is $sr"
mkdir -p /mnt/disc

# verified TYPE [mount options]: the files of the disc are those that were put on it
verified() {
  must mount -r -t "$1" ${2:+-o "$2"} "$sr" /mnt/disc
  (cd /mnt/disc && must sha256sum --quiet -c sums) || fail "the files of the $1 file system differ"
  echo "$1: verified"
}

# until the drive says so: its state is what TEST UNIT READY ends with
until_empty() { eventually empty; }
empty() { ! sg_turs "$sr" 2>/dev/null; }

step "a CD with iso9660"
[ "$(blockdev --getsize64 "$sr")" = "$CD_SIZE" ] || fail "the CD has $(blockdev --getsize64 "$sr") bytes"
[ "$(sha256sum <"$sr" | cut -d' ' -f1)" = "$CD_SUM" ] || fail "the CD reads otherwise than its image"
verified iso9660
must cd-info --no-cddb --no-device-info -C "$sr" >/tmp/cd-info
cat /tmp/cd-info
grep -q "CD-ROM Track List (1 - 1)" /tmp/cd-info || fail "cd-info sees another table of contents"
grep -q "ISO 9660" /tmp/cd-info || fail "cd-info sees no ISO 9660"
must isoinfo -d -i "$sr" | grep "Volume id: A_CD" || fail "isoinfo sees another volume"
must sg_get_config "$sr" >/tmp/config
cat /tmp/config
grep -q "CD-ROM *(current)\|\[current\].*CD-ROM\|CD-ROM .*current" /tmp/config || grep -qi "current.*cd-rom\|cd-rom.*current" /tmp/config \
  || fail "sg_get_config sees another profile"

step "raw commands"
must sg_raw -r 34 "$sr" 51 00 00 00 00 00 00 00 22 00        # READ DISC INFORMATION
must sg_raw -r 48 "$sr" 52 01 00 00 00 01 00 00 30 00        # READ TRACK INFORMATION
must sg_raw -r 2352 -o /tmp/sector "$sr" be 00 00 00 00 10 00 00 01 f8 00 00 # READ CD: all of sector 16
[ "$(stat -c %s /tmp/sector)" = 2352 ] || fail "READ CD gives $(stat -c %s /tmp/sector) bytes"
dd if="$sr" of=/tmp/block bs=2048 skip=16 count=1 status=none
must cmp -n 2048 -i 16:0 /tmp/sector /tmp/block
must sg_raw -r 8 "$sr" bd 00 00 00 00 00 00 00 00 08 00 00   # MECHANISM STATUS
must sg_modes --page=0x2a "$sr"

step "a DVD takes its place under the mount's feet"
ls /mnt/disc >/dev/null
mark dvd
cat /mnt/disc/* >/dev/null 2>&1 # whatever it reads: it must not hang
umount /mnt/disc || must umount -l /mnt/disc
until_ready "$sr"
verified udf
must umount /mnt/disc
verified iso9660
must umount /mnt/disc
must dvd+rw-mediainfo "$sr" >/tmp/mediainfo
cat /tmp/mediainfo
grep -q "Mounted Media: *10h, DVD-ROM" /tmp/mediainfo || fail "dvd+rw-mediainfo sees another profile"
grep -q "Legacy lead-out at: *$(($(blockdev --getsize64 "$sr") / 2048))\*2KB" /tmp/mediainfo || fail "dvd+rw-mediainfo sees another size"

step "eject and load"
must udevadm settle # whoever has the drive open keeps it shut
must eject "$sr"
sg_turs "$sr" 2>/dev/null && fail "the disc is ready in an open tray"
must sg_requests "$sr"
must eject -t "$sr"
until_ready "$sr"
verified iso9660

step "a BD with udf alone: udev is asked for the disc that is mounted, and ejects it"
echo 200 >/sys/block/sr0/events_poll_msecs
mark bd
umount /mnt/disc || must umount -l /mnt/disc
until_ready "$sr"
must mount -r -t udf "$sr" /mnt/disc
[ "$(blkid -p -o value -s LABEL "$sr")" = "A_BD" ] || fail "blkid sees $(blkid -p "$sr")"
must umount /mnt/disc
must dvd+rw-mediainfo "$sr" >/tmp/mediainfo
grep -q "Mounted Media: *40h, BD-ROM" /tmp/mediainfo || fail "dvd+rw-mediainfo sees another profile: $(cat /tmp/mediainfo)"

step "two sessions"
mark sessions
until_ready "$sr"
verified iso9660
ls /mnt/disc
[ -e /mnt/disc/first ] && [ -e /mnt/disc/second ] || fail "a session is missing"
must umount /mnt/disc

step "a blank BD-RE is written, and written again"
mark blank
until_ready "$sr"
export MKISOFS=genisoimage
ln -s /proc/self/fd /dev/fd # growisofs hands the disc over by it
must dvd+rw-mediainfo "$sr" >/tmp/mediainfo
cat /tmp/mediainfo
grep -q "Mounted Media: *43h, BD-RE" /tmp/mediainfo || fail "dvd+rw-mediainfo sees another profile"
mkdir /tmp/one /tmp/two
head -c 2000000 /dev/urandom >/tmp/one/burned
head -c 2000000 /dev/urandom >/tmp/two/added
(cd /tmp/one && sha256sum burned >sums)
(cat /tmp/one/sums; cd /tmp/two && sha256sum added) >/tmp/two/sums
until_ready "$sr"
must growisofs -quiet -Z "$sr" -quiet -R -V BURNED /tmp/one
until_ready "$sr"
verified iso9660
must umount /mnt/disc
must growisofs -quiet -M "$sr" -quiet -R -V BURNED /tmp/two
until_ready "$sr"
forget_cache
verified iso9660
[ -e /mnt/disc/burned ] && [ -e /mnt/disc/added ] || fail "a session is missing"
must umount /mnt/disc
cat /tmp/two/sums

step "the disc is taken out"
mark eject
until_empty
logout
