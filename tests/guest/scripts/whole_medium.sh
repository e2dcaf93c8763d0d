# Commands on the medium as a whole, and those that change a range in one step, as sg3_utils send them. LUN 0 is a removable
# disk of 16 MiB whose SANITIZE and FORMAT UNIT are held back, from the mark slow to the mark fast, to 64 KiB a second.
discover
login
disk=$(disk 0)
generic=/dev/$(ls "/sys/block/$(basename "$disk")/device/scsi_generic")
size=$(blockdev --getsize64 "$disk")
head -c "$size" /dev/zero >/tmp/zeros

# fill BYTE FILE: as many of it as the disk has
fill() { head -c "$size" /dev/zero | tr '\0' "$1" >"$2"; }
same() { dd if="$disk" bs=1M iflag=direct status=none | must cmp "$1" - || exit 1; }
scribble() { fill s /tmp/scribble; must dd if=/tmp/scribble of="$disk" bs=1M oflag=direct status=none; must udevadm settle; }
told() { sg_requests "$@" >/tmp/requests 2>&1; cat /tmp/requests; }
answers() { sg_turs "$generic" >/dev/null 2>&1; }
ready() { eventually answers; }

step "operation codes"
must sg_opcodes "$disk" >/tmp/opcodes
for name in Sanitize "Format unit" "Prevent allow medium removal" "Pre-fetch(10)" "Write atomic(16)" "Orwrite(16)"; do
  grep -qi "$name" /tmp/opcodes || { cat /tmp/opcodes; fail "no $name"; }
done

step "removable"
# By the generic device: whoever opens the disk itself has the kernel prevent removal.
must udevadm settle
sg_inq "$generic" | grep -q RMB=1 || fail "not removable"
must sg_prevent --prevent=1 "$generic"
sg_start --eject "$generic" && fail "ejected while it was prevented"
must sg_prevent --allow "$generic"
must sg_start --eject "$generic"
told "$generic"
grep -qi "medium not present" /tmp/requests || fail "not told that there is no medium"
must udevadm settle
must sg_start --load "$generic"
must sg_turs "$generic"
must udevadm settle
must dd if="$disk" of=/dev/null bs=4k count=1 iflag=direct status=none
must udevadm settle # the kernel has told it of the new medium, which it reads: that would wake the disk below

step "power conditions"
must sg_start --pc=3 "$generic"
told "$generic"
grep -qi "standby condition activated by command" /tmp/requests || fail "not in standby"
must dd if="$disk" of=/dev/null bs=4k count=1 iflag=direct status=none
told "$generic"
grep -qi standby /tmp/requests && fail "a read has not woken it"

step "ORWRITE and WRITE ATOMIC"
must dd if=/tmp/zeros of="$disk" bs=1M oflag=direct status=none
head -c 4096 /dev/zero | tr '\0' '\017' >/tmp/low
head -c 4096 /dev/zero | tr '\0' '\360' >/tmp/high
head -c 4096 /dev/zero | tr '\0' '\377' >/tmp/ones
must sg_write_x --or --lba=8 --num=8 --in=/tmp/low "$disk"
must sg_write_x --or --lba=8 --num=8 --in=/tmp/high "$disk"
must sg_write_x --atomic=0 --lba=16 --num=8 --in=/tmp/low "$disk"
sg_write_x --atomic=0 --lba=17 --num=8 --in=/tmp/low "$disk" && fail "atomic although it is not aligned"
cat /tmp/ones /tmp/low >/tmp/expected
must dd if="$disk" of=/tmp/back bs=4k skip=1 count=2 iflag=direct status=none
must cmp /tmp/expected /tmp/back

step "SANITIZE, block erase and cryptographic erase"
for how in --block --crypto; do
  scribble
  must sg_sanitize $how --quick --wait "$disk"
  same /tmp/zeros
done

step "SANITIZE, overwrite"
fill p /tmp/pattern
head -c 512 /tmp/pattern >/tmp/block
scribble
mark slow
# By the generic device: when the disk itself is closed, udev has the kernel look at it anew, for which it waits minutes, and so do
# all who open it meanwhile.
must sg_sanitize --overwrite --pattern=/tmp/block --quick --early "$generic"
told --progress "$generic"
grep -q "Progress indication" /tmp/requests || fail "no progress"
sg_turs "$generic" && fail "ready while it is sanitized"
sg_raw --request=512 "$generic" 28 00 00 00 00 00 00 00 01 00 >/tmp/raw 2>&1 && fail "read while it is sanitized"
grep -qi "sanitize in progress" /tmp/raw || { cat /tmp/raw; fail "not told why"; }
must sg_inq "$generic" >/dev/null
mark fast
ready
same /tmp/pattern

step "FORMAT UNIT"
scribble
must sg_format --format --quick --wait "$disk"
same /tmp/zeros
scribble
mark slow
must sg_format --format --quick --security --early "$generic"
sg_turs "$generic" && fail "ready while it is formatted"
mark fast
ready
same /tmp/zeros
sg_format --format --quick --wait --count=1000 "$disk" && fail "another capacity was taken"
must sg_readcap "$disk"
logout
