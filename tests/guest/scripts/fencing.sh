# Two nodes (two initiator names) share a disk: every type of persistent reservation by sg_persist, then fencing as
# fence_scsi does it, and what a restart of the target leaves.
must iscsiadm -m iface -I node2 -o new
must iscsiadm -m iface -I node2 -o update -n iface.initiatorname -v iqn.2024-01.test.guest:node2
must iscsiadm -m discovery -t sendtargets -p "$PORTAL" -I default -I node2
set_node "node.session.timeo.replacement_timeout" 20
must iscsiadm -m node -T "$IQN" -p "$PORTAL" --login
settle
of_session() { basename "$(ls -d /sys/class/iscsi_session/session*"$1"/device/target*/*:*:*:0/block/* | head -1)"; }
session_of() { grep -lx "$1" /sys/class/iscsi_session/session*/initiatorname | grep -o 'session[0-9]*' | tail -1 | tr -dc 0-9; }
node1=/dev/$(of_session "$(session_of iqn.2024-01.test.guest:initiator)")
node2=/dev/$(of_session "$(session_of iqn.2024-01.test.guest:node2)")
[ "$node1" != "$node2" ] || fail "two nodes, one device"
for device in "$node1" "$node2"; do echo 120 >"/sys/block/${device#/dev/}/device/timeout"; done # time-outs are to mean something

pr() { sg_persist --no-inquiry "$@"; }
out() { must pr --out "$@"; }
taken() { eventually sg_turs "$1" 2>/dev/null; } # unit attentions
can_write() { dd if=/dev/zero of="$1" bs=4k count=1 oflag=direct status=none 2>/dev/null; }
can_read() { dd if="$1" of=/dev/null bs=4k count=1 iflag=direct status=none 2>/dev/null; }
check() { # check DEVICE WRITE READ: yes or no
  taken "$1"
  if dd if=/dev/zero of="$1" bs=4k count=1 oflag=direct status=none; then w=yes; else w=no; fi
  if can_read "$1"; then r=yes; else r=no; fi
  [ "$w $r" = "$2 $3" ] || fail "$1 type $type: write $w, read $r; expected $2 $3"
}

step "capabilities"
must pr --in --report-capabilities "$node1"
for cap in 'RLR_C): 1' 'CRH): 1' 'SIP_C): 1' 'ATP_C): 1' 'PTPL_C): 1' 'Exclusive Access, all registrants: 1' 'Write Exclusive: 1'; do
  pr --in --report-capabilities "$node1" | grep -qF "$cap" || fail "no $cap"
done

step "each type"
for type in 1 3 5 6 7 8; do
  out --register-ignore --param-sark=1 "$node1"
  out --reserve --param-rk=1 --prout-type=$type "$node1"
  check "$node1" yes yes
  case $type in 1 | 5 | 7) check "$node2" no yes ;; *) check "$node2" no no ;; esac
  out --register --param-sark=2 "$node2"
  case $type in 1) check "$node2" no yes ;; 3) check "$node2" no no ;; *) check "$node2" yes yes ;; esac
  pr --in --read-reservation "$node2" | grep -q LU_SCOPE || fail "no reservation of type $type"
  pr --in --read-full-status "$node2" | grep -q 'iqn.2024-01.test.guest:node2,i,0x' || fail "no name in the full status"
  out --clear --param-rk=2 "$node2"
  taken "$node1"
  pr --in --read-keys "$node1" | grep -q 'there are NO registered' || fail "a key is left"
done
type=5

step "fence"
for device in "$node1" "$node2"; do
  out --register-ignore --param-sark=c0de000"${device#/dev/sd}" --param-aptpl "$device"
done
key1=c0de000${node1#/dev/sd} key2=c0de000${node2#/dev/sd}
out --reserve --param-rk="$key1" --prout-type=5 "$node1"
check "$node2" yes yes
settle # what udev reads would be among what is aborted
in_flight() { [ "$(awk '{ print $1 + $2 }' "/sys/block/${node2#/dev/}/inflight")" -gt 0 ]; }
for _ in $(seq 6); do (while dd if=/dev/zero of="$node2" bs=256k count=8 oflag=direct status=none 2>/dev/null; do :; done) & done
eventually in_flight
out --preempt-abort --param-rk="$key1" --param-sark="$key2" --prout-type=5 "$node1"
wait # until every writer has failed
timeouts=$(cat "/sys/block/${node2#/dev/}/device/iotmo_cnt") || fail "no count of time-outs"
[ $((timeouts)) = 0 ] || fail "$timeouts commands of the fenced node had to time out"
check "$node2" no yes
check "$node1" yes yes
[ "$(pr --in --read-keys "$node1" | grep -c 0xc0de)" = 1 ] || fail "the fenced node is registered"

step "move, and back"
out --register --param-sark="$key2" --param-aptpl "$node2" # the last one that says so decides on APTPL
name=iqn.2024-01.test.guest:node2,i,$(pr --in --read-full-status "$node1" | grep -o 'node2,i,0x[0-9a-f]*' | cut -d, -f3)
out --register-move --param-rk="$key1" --param-sark="$key2" --param-aptpl --relative-target-port=1 --transport-id="$name" "$node1" ||
  fail "not moved to $name"
pr --in --read-reservation "$node1" | grep -q "$key2" || fail "the reservation has not moved"
out --preempt --param-rk="$key1" --param-sark="$key2" --prout-type=5 "$node1"

step "the target dies and comes back"
mark restart
both_ready() { sg_turs "$node1" 2>/dev/null && sg_turs "$node2" 2>/dev/null; }
eventually both_ready
check "$node1" yes yes
check "$node2" no yes
out --release --param-rk="$key1" --prout-type=5 "$node1"
check "$node2" yes yes
out --clear --param-rk="$key1" "$node1"

step "RESERVE and RELEASE"
must sg_raw "$node1" 16 00 00 00 00 00
can_write "$node1" || fail "who reserved cannot write"
can_write "$node2" && fail "the other can write"
must sg_reset --device "$node2"
taken "$node1"
check "$node2" yes yes
logout
