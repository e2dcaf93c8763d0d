# The commands of SPC-5 that are not about data, as sg3_utils and smartmontools use them.
discover
login
sda=$(disk 0)

step "what every SCSI device must do" # the commands and pages that sg3_utils' scsi_mandat asks for
must sg_inq "$sda"
must sg_luns "$sda"
must sg_requests "$sda"
must sg_turs "$sda"
must sg_vpd --page=sv "$sda"
must sg_vpd --page=di "$sda"
must sg_senddiag --test "$sda"

step "VPD pages"
must sg_vpd --all "$sda"

step "log pages"
for page in $(sg_logs --page=0 --no_inq "$sda" | awk '/^ *0x/{print $1}'); do
  echo "-- log page $page"
  must sg_logs --no_inq --page="$page" "$sda"
done
must sg_logs --all "$sda"
must sg_logs -ll "$sda"
must dd if="$sda" of=/dev/null bs=1M count=8 iflag=direct status=none
must sg_logs --page=3 --reset "$sda"
sg_logs --page=3 --no_inq "$sda" | tee /tmp/read
left=$(awk '/Total bytes processed/{print $NF}' /tmp/read) # udev may have read some of it meanwhile, and ahead
[ "$left" -lt 8388608 ] || fail "LOG SELECT has reset nothing"

step "self-tests"
must sg_senddiag --list "$sda"
self_tests_over() { sg_logs --page=0x10 --no_inq "$sda" >/tmp/tests; ! grep -q "in progress" /tmp/tests; }
for code in 5 6 1 2; do # while one goes on in the background, the next is refused
  must sg_senddiag --selftest=$code "$sda"
  eventually self_tests_over
done
cat /tmp/tests
[ "$(grep -c "completed without error" /tmp/tests)" = 4 ] || fail "not all self-tests are in the log"

step "buffers"
generic=/dev/$(basename "$(readlink -f "/sys/block/$(basename "$sda")/device/generic")")
must sg_rbuf --size=65536 "$generic"
head -c 1000 /dev/urandom >/tmp/pattern
must sg_write_buffer --mode=data --offset=500 --in=/tmp/pattern --length=1000 "$sda"
must sg_raw --request=1000 --outfile=/tmp/back "$sda" 3c 02 00 00 01 f4 00 03 e8 00
must cmp /tmp/pattern /tmp/back
must sg_read_buffer --mode=data --offset=500 --length=32 --hex "$sda"
must sg_read_buffer --mode=desc --hex "$sda"
must sg_write_buffer --mode=echo --in=/tmp/pattern --length=1000 "$sda"
must sg_raw --request=4096 --outfile=/tmp/back "$sda" 3c 0a 00 00 00 00 00 10 00 00
must cmp /tmp/pattern /tmp/back
must sg_read_buffer --mode=echo_desc --hex "$sda"
sg_write_buffer --mode=dmc_offs_save --in=/tmp/pattern --length=1000 "$sda" && fail "microcode was taken"

step "timestamp"
must sg_timestamp --origin "$sda"
must sg_timestamp --seconds=1000000000 "$sda"
must sg_timestamp --srep "$sda" | tee /tmp/time
[ "$(cut -c1-7 /tmp/time)" = 1000000 ] || fail "the timestamp was not set"

step "identifying information"
echo -n "rack 7" >/tmp/name
must sg_ident --set "$sda" </tmp/name
must sg_ident --ascii "$sda" | tee /tmp/identity
grep -q "rack 7" /tmp/identity || fail "it has not kept its name"
must sg_ident --itype=0x7f "$sda"

step "task management functions and operation codes"
must sg_opcodes --tmf --repd "$sda"
must sg_opcodes --tmf "$sda"
must sg_opcodes --mask --rctd "$sda"

step "mode pages"
must sg_modes --all --all "$sda"
for control in 0 1 2 3; do must sg_modes --control=$control --all "$sda"; done
must sg_modes --maxlen=252 --six "$sda"
must sg_wr_mode --page=8 --contents=0,0,0,0 --mask=0,0,4,0 --save "$sda" # WCE=0
must sg_modes --page=8 --control=3 --hex "$sda"
settle

step "informational exceptions"
must sg_wr_mode --page=1c --contents=0,0,4,6 --mask=0,0,c,f "$sda" # TEST, MRIE 6
sg_requests "$sda" | tee /tmp/sense
must sg_logs --page=0x2f --no_inq "$sda"
must sg_wr_mode --page=1c --contents=0,0,0,6 --mask=0,0,c,f "$sda"

step "SMART"
smartctl --xall "$sda" | tee /tmp/smart
[ "${PIPESTATUS[0]}" = 0 ] || fail "smartctl complains"
must smartctl --test=short "$sda"
must smartctl --log=selftest "$sda"

step "what is saved outlives a restart"
mark restart
eventually sg_turs "$sda"
must sg_modes --page=8 "$sda" | tee /tmp/mode
grep -q "00     88 12 00" /tmp/mode || fail "WCE was not saved"
sg_ident --ascii "$sda" | grep -q "rack 7" || fail "the name was not saved"
must sg_logs --page=0x10 --no_inq "$sda"
logout
