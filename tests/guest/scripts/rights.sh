# Two users on one target: each with LUNs and a right of its own; and two sessions that write without changing anything.
# ALICE, BOB, EVE and their _SECRETs; CHARLIE too, who like EVE may write virtually.
discover >/dev/null

# as USER SECRET: log in as somebody
as() {
  set_node node.session.auth.authmethod CHAP
  set_node node.session.auth.username "$1"
  set_node node.session.auth.password "$2"
  login >/dev/null
}

step "alice has two LUNs of her own, and writes"
as "$ALICE" "$ALICE_SECRET"
[ -e "$(disk 3)" ] && [ -e "$(disk 5)" ] || fail "LUNs 3 and 5 are missing"
[ -e /dev/disk/by-path/ip-"$PORTAL":3260-iscsi-"$IQN"-lun-0 ] && fail "LUN 0 is not alice's"
[ "$(blockdev --getro "$(disk 3)")" = 0 ] || fail "read only for alice"
must mkfs.ext4 -q -F "$(disk 3)"
mkdir -p /mnt/disk /mnt/other
must mount "$(disk 3)" /mnt/disk
echo "written by alice" >/mnt/disk/text
must umount /mnt/disk
logout >/dev/null

step "bob reads the same disk as LUN 0, and cannot write"
as "$BOB" "$BOB_SECRET"
[ "$(blockdev --getro "$(disk 0)")" = 1 ] || fail "bob may write"
generic=/dev/$(ls /sys/block/"$(basename "$(disk 0)")"/device/scsi_generic)  # the kernel itself lets nobody write
must sg_raw -q -r 512 "$generic" 28 00 00 00 00 00 00 00 01 00 >/dev/null 2>&1
sg_raw -s 512 -i /dev/zero "$generic" 2a 00 00 00 00 00 00 00 01 00 >/tmp/out 2>&1 && fail "bob has written"
grep -q -i "data protect" /tmp/out || fail "no DATA PROTECT: $(cat /tmp/out)"
must mount -o ro,noload "$(disk 0)" /mnt/disk
grep -q "written by alice" /mnt/disk/text || fail "bob reads something else"
must umount /mnt/disk
logout >/dev/null
mark before

step "two sessions write to the same disk, each to an overlay of its own"
for who in eve charlie; do
  must iscsiadm -m iface -I "$who" -o new
  must iscsiadm -m iface -I "$who" -o update -n iface.transport_name -v tcp
done
iscsiadm -m node -o delete >/dev/null
must iscsiadm -m discovery -t sendtargets -p "$PORTAL" -I eve -I charlie >/dev/null
login_as() { # INTERFACE USER SECRET
  for pair in authmethod=CHAP "username=$2" "password=$3"; do
    must iscsiadm -m node -T "$IQN" -I "$1" -o update -n "node.session.auth.${pair%%=*}" -v "${pair#*=}"
  done
  must iscsiadm -m node -T "$IQN" -p "$PORTAL" -I "$1" --login >/dev/null
  settle
}
all_disks() { ls -d /sys/block/sd* 2>/dev/null | sed 's|/sys/block/|/dev/|' | sort; }

another_disk() { all_disks | grep -qvxFf "$1"; }
# new_disk FILE: the one that is not in this list, as soon as the kernel has it (it looks for disks by itself)
new_disk() {
  eventually another_disk "$1" >&2
  all_disks | grep -vxFf "$1"
}
echo none >/tmp/none
login_as eve "$EVE" "$EVE_SECRET"
eves=$(new_disk /tmp/none)
echo "$eves" >/tmp/one
login_as charlie "$CHARLIE" "$CHARLIE_SECRET"
charlies=$(new_disk /tmp/one)
echo "eve has $eves, charlie $charlies"
[ -b "$eves" ] && [ -b "$charlies" ] || fail "two disks are wanted"

must mount "$eves" /mnt/disk
must mount "$charlies" /mnt/other
echo "eve was here" >/mnt/disk/eve
echo "charlie was here" >/mnt/other/charlie
verified_load /mnt/disk --size=4m &
verified_load /mnt/other --size=4m
wait $! || fail "the load of eve"
forget_cache
grep -q "eve was here" /mnt/disk/eve || fail "eve's file is lost"
[ -e /mnt/disk/charlie ] && fail "eve sees charlie's file"
[ -e /mnt/other/eve ] && fail "charlie sees eve's file"
grep -q "written by alice" /mnt/other/text || fail "the base does not show through"
must umount /mnt/disk
must umount /mnt/other
must e2fsck -fn "$eves"
must e2fsck -fn "$charlies"
must mkfs.ext4 -q -F "$eves" # discards all of it first
logout >/dev/null
mark after

step "nothing of it is left in the next session"
login_as eve "$EVE" "$EVE_SECRET"
eves=$(new_disk /tmp/none)
must mount "$eves" /mnt/disk
[ -e /mnt/disk/eve ] && fail "eve's file outlived the session"
grep -q "written by alice" /mnt/disk/text || fail "the base is not as it was"
must umount /mnt/disk
logout >/dev/null
