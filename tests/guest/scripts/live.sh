# What a target changes while the kernel is logged in. $MOVED is a target that sends logins to $ELSEWHERE; $SECOND is the portal
# that comes and goes. LUN 0 holds a file system, on a multipath device, that is under load from the first change to the last.
syslogd -O /tmp/messages # iscsid's
sed -i 's/find_multipaths no/find_multipaths strict/' /etc/multipath.conf

explain() { lsscsi; multipath -ll; cat /tmp/messages; }
told() { dmesg | grep -qi "$1"; }
logged() { grep -qi "$1" /tmp/messages; }
# The kernel does nothing about such unit attentions but log them: to look anew is the administrator's.
rescan() { must iscsiadm -m node -T "$IQN" --rescan >/dev/null; settle; }
written() { # written DISK: a mebibyte that comes back as it was
  head -c 1M /dev/urandom >/tmp/random
  must dd if=/tmp/random of="$1" bs=256k oflag=direct status=none
  dd if="$1" bs=256k count=4 iflag=direct status=none | cmp /tmp/random || fail "$1 has something else"
}

step "redirection"
discover
must iscsiadm -m node -T "$MOVED" -p "$PORTAL" --login
connection=$(echo /sys/class/iscsi_connection/connection*)
[ "$(cat "$connection/persistent_address")" = "$PORTAL" ] || fail "did not begin where it was told to"
[ "$(cat "$connection/address")" = "$ELSEWHERE" ] || fail "the redirection was not followed"
settle
must sg_turs "$(readlink -f /dev/disk/by-path/ip-*-iscsi-"$MOVED"-lun-0)"
must iscsiadm -m node -T "$MOVED" -p "$PORTAL" --logout
eventually without_session "$MOVED"

step "load"
set_node node.session.timeo.replacement_timeout 5 # so that a path that is gone is seen to be
login
first=$(disk 0)
must multipath -a "$first" >/dev/null
multipathd -d -v2 >/tmp/multipathd.log 2>&1 &
D=/dev/mapper/mpatha
eventually test -b $D
must mkfs.ext4 -q -F $D
mkdir -p /mnt/m
must mount $D /mnt/m
begin_load /mnt/m --size=2m --unlink=1
goes_on() { # a whole file more is written, read and verified
  local before
  before=$(grep -c verified /tmp/load.out)
  more() { [ "$(grep -c verified /tmp/load.out)" -gt $((before + 1)) ]; }
  eventually more
}

step "LUNs come"
mark luns-come
eventually told 'LUN assignments on this target have changed'
[ -e "$(disk 1)" ] && fail "LUN 1 is there before anybody looks"
rescan
one=$(disk 1) far=$(disk 0x412c000000000000) # 300: flat space addressing
[ -b "$one" ] && [ -b "$far" ] || fail "not there: $(ls /dev/disk/by-path)"
[ "$(blockdev --getsize64 "$one")" = $((16 << 20)) ] || fail "the size of LUN 1"
[ "$(blockdev --getsize64 "$far")" = $((8 << 20)) ] || fail "the size of LUN 300"
written "$one"
written "$far"
goes_on

step "growth"
mark grow
eventually told 'Capacity data has changed'
rescan
[ "$(blockdev --getsize64 "$first")" = $((64 << 20)) ] || fail "the disk has $(blockdev --getsize64 "$first") bytes"
must multipathd resize map mpatha
[ "$(blockdev --getsize64 $D)" = $((64 << 20)) ] || fail "the multipath device has $(blockdev --getsize64 $D) bytes"
must resize2fs $D
head -c 40M /dev/urandom >/tmp/large
must cp /tmp/large /mnt/m/large
goes_on

step "read-only, and back"
mark protect
rescan
told 'Mode parameters changed' || fail "nobody was told"
[ "$(blockdev --getro "$far")" = 1 ] || fail "not write protected"
[ "$(blockdev --getro "$one")" = 0 ] || fail "write protected like LUN 300"
dd if=/dev/zero of="$far" bs=4k count=1 oflag=direct status=none && fail "written although it is read-only"
must cmp -n 1048576 /tmp/random "$far"
mark unprotect
rescan
[ "$(blockdev --getro "$far")" = 0 ] || fail "still write protected"
written "$far"

step "a LUN goes"
(while dd if=/dev/zero of="$one" bs=64k count=16 oflag=direct status=none; do :; done) 2>/tmp/dd.err &
writer=$!
mark lun-goes
eventually grep -qi error /tmp/dd.err
wait $writer
told 'Logical unit not supported' || fail "the kernel was told something else: $(cat /tmp/dd.err)"
written "$far"
goes_on
echo 1 >"/sys/block/${one#/dev/}/device/delete"
rescan
[ -e "$(disk 1)" ] && fail "LUN 1 is there again"

step "a portal comes"
mark portal-comes
discover >/dev/null
set_node node.session.timeo.replacement_timeout 5
login "$SECOND"
paths() { [ "$(multipathd show paths format '%m %t %T' | grep -cE 'mpatha +active +ready')" = "$1" ]; }
eventually paths 2
goes_on

step "it goes"
mark portal-goes
eventually logged 'target requests logout'
eventually paths 1
goes_on
alone() { # iscsid may be about to try whether the portal has come back: it refuses to log out then
  iscsiadm -m node -T "$IQN" -p "$SECOND" --logout
  [ "$(ls /sys/class/iscsi_session | wc -l)" = 1 ]
}
eventually alone

step "the file system is whole"
end_load
forget_cache
must cmp /tmp/large /mnt/m/large
must umount /mnt/m
must e2fsck -fn $D
multipathd shutdown >/dev/null
logout
