# multipathd with $PATHS paths in two target port groups: grouped by priority; I/O goes on while a cable is pulled and plugged
# in, and returns to the first group by itself where that is $PREFERRED, else by explicit
# switches; then the administrator's, and mpathpersist.
sed -i 's/^defaults {/defaults {\n path_grouping_policy group_by_prio\n prio alua\n path_checker tur\n failback immediate\n reservation_key file/
  s/no_path_retry .*/no_path_retry queue/; s/checker_timeout .*/checker_timeout 60/' /etc/multipath.conf
must iscsiadm -m discovery -t sendtargets -p "$PORTAL"
set_node node.session.timeo.replacement_timeout 2
set_node 'node.conn[0].timeo.noop_out_interval' 1
set_node 'node.conn[0].timeo.noop_out_timeout' 5 # who stands still for a moment is not gone
must iscsiadm -m node -T "$IQN" --login
settle
[ "$(lsscsi | grep -c BLOCKYRD)" = "$PATHS" ] || fail "not $PATHS paths: $(lsscsi)"
multipathd -d -v2 >/tmp/multipathd.log 2>&1 &
explain() { multipath -ll; tail -20 /tmp/multipathd.log; }
half=$((PATHS / 2))
D=/dev/mapper/mpatha
# sd_of TAG: the disks that are reached through a portal group
sd_of() {
  local session
  for session in /sys/class/iscsi_session/session*; do
    [ "$(cat "$session/tpgt")" != "$1" ] || ls "$session"/device/target*/*/block | sed 's,^,/dev/,'
  done
}
# at TAG PRIORITY NUMBER: so many paths through a portal group are ready, or in standby, and have this priority
at() {
  multipathd show paths format '%d %T %p' 2>/dev/null >/tmp/paths
  [ "$(for d in $(sd_of "$1"); do grep -E "^${d#/dev/} +(ready|ghost) +$2 *$" /tmp/paths; done | wc -l)" = "$3" ]
}
both() { at 1 "$1" $half && at 2 "$2" $half; }
eventually test -b $D
eventually both 50 10 # active/optimized; active/non-optimized
multipath -ll
grouped() { [ "$(multipath -ll | grep -c 'prio=')" = 2 ]; }
eventually grouped
good=$(sd_of 1 | head -1) worse=$(sd_of 2 | head -1)
# requests TAG: how many reads and writes have gone through a portal group
requests() { for d in $(sd_of "$1"); do cat "/sys/block/${d#/dev/}/stat"; done | awk '{s += $1 + $5} END {print s}'; }
# only TAG: reads go through this portal group; multipathd may know the priorities and have yet to switch
only() { eventually through "$1"; }
through() {
  local before
  before=$(requests "$1")
  must dd if=$D of=/dev/null bs=64k count=32 iflag=direct status=none
  [ "$(requests "$1")" -ge $((before + 32)) ]
}
step "reads take the optimized paths"
only 1

step "a cable is pulled under load"
must mkfs.ext4 -q -F $D
mkdir -p /mnt/m
must mount $D /mnt/m
begin_load /mnt/m --size=6m --unlink=1
before=$(requests 1)
busy() { [ "$(requests 1)" -gt $((before + 500)) ]; }
eventually busy
mark pull
eventually at 2 50 $half # the kernel has made them active/optimized, and with that the others non-optimized
step "paths are gone, I/O goes on by the others"
before=$(requests 2)
busy() { [ "$(requests 2)" -gt $((before + 500)) ]; }
eventually busy
mark plug
if [ "$PREFERRED" = true ]; then
  eventually both 50 10 # the kernel has moved the load back
else
  settled() { both 50 10 || both 10 50; }
  eventually settled # where the load is now is for multipathd to say
fi
step "paths are back"
end_load
must umount /mnt/m
must e2fsck -fn $D

if [ "$PREFERRED" = false ]; then
  step "explicit switch"
  must sg_stpg --tp 1,2 --state an,ao "$good"
  eventually both 10 50
  only 2
  must sg_stpg --tp 1,2 --state ao,an "$good"
  sg_rtpg --decode "$good"
  sg_rtpg --decode "$good" | grep -q 'changed by SET TARGET PORT GROUPS' || fail "no status code"
  eventually both 50 10
  only 1
  step "the administrator's switch"
  mark switch
  eventually both 10 50
  mark standby
  eventually both 1 50
  only 2
  mark back
  eventually both 50 10
fi

step "mpathpersist"
must mpathpersist --in --report-capabilities $D
must mpathpersist --out --register-ignore --param-sark=1 --param-aptpl $D
mpathpersist --in --read-keys $D
registered() { [ "$(mpathpersist --in --read-keys $D | grep -c '0x1$')" = "$PATHS" ]; }
eventually registered # by multipathd, where a path was away for a moment
must mpathpersist --out --reserve --param-rk=1 --prout-type=5 $D
mpathpersist --in --read-reservation $D | grep -q 'Write Exclusive, registrants only' || fail "no reservation"
must mpathpersist --in --read-full-status $D
must dd if=/dev/zero of=$D bs=4k count=1 oflag=direct status=none
mark rival # another node registers with key 2 and is fenced off
must mpathpersist --out --preempt-abort --param-rk=1 --param-sark=2 --prout-type=5 $D
mpathpersist --in --read-keys $D | grep -q '0x2$' && fail "the rival is still registered"
must dd if=/dev/zero of=$D bs=4k count=1 oflag=direct status=none
must mpathpersist --out --release --param-rk=1 --prout-type=5 $D
must mpathpersist --out --clear --param-rk=1 $D
multipathd shutdown >/dev/null
logout
