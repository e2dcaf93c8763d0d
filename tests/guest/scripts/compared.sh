# The same commands to LIO, the kernel's own target, on the guest's loopback and to the target under test: a line
# "CHECK lio|ours NAME STATUS" for each, STATUS being sg3_utils' exit status, and "SAID lio|ours NAME text" where
# what was printed matters. Comparing them is the test's business.

step "LIO"
lio=iqn.2024-01.test:lio
make_lio $lio 127.0.0.1 64
for setting in emulate_tpu emulate_tpws; do echo 1 >$lio_core/attrib/$setting || fail "$setting"; done # thin
echo 1 >"$lio_group/enable" || fail "the portal group cannot be enabled"

must iscsiadm -m discovery -t sendtargets -p 127.0.0.1
must iscsiadm -m node -T $lio -p 127.0.0.1 --login
discover
login
reference=$(readlink -f /dev/disk/by-path/ip-127.0.0.1:3260-iscsi-$lio-lun-0)
ours=$(disk 0)
[ -b "$reference" ] && [ -b "$ours" ] || fail "no disks: $reference $ours"

head -c 1024 /dev/zero >/tmp/zeros
head -c 512 /dev/zero | tr '\0' Z >/tmp/z
cat /tmp/zeros | head -c 512 >/tmp/zero
cat /tmp/zero /tmp/z >/tmp/zero_then_z
head -c 4096 /dev/zero | tr '\0' P >/tmp/page
key=0x1234
must udevadm control --stop-exec-queue # it looks at a disk when a program that could have written to it is done

# check NAME WORDS…: DEV stands for the device
check() {
  local name=$1
  shift
  "${@//DEV/$device}" >/tmp/said 2>&1
  echo "CHECK $which $name $?"
}
# said NAME PATTERN: of what the last check printed, the lines that match
said() { grep -E "$2" /tmp/said | sed -e 's/^ *//' -e 's/  */ /g' | while read -r line; do echo "SAID $which $1 $line"; done; }

for which in lio ours; do
  device=$reference
  [ $which = lio ] || device=$ours
  step $which
  check inquiry sg_inq DEV; said inquiry 'Peripheral|RMB|version=|CmdQue|3PC|Protect|TPGS'
  check vpd-supported sg_vpd --page=sv DEV
  for page in 0x80 0x83 0x86 0x87 0x88 0x8f 0xb0 0xb1 0xb2; do check vpd-$page sg_vpd --page=$page DEV; done
  check vpd-unknown sg_vpd --page=0xdf DEV
  check block-limits sg_vpd --page=0xb0 DEV; said block-limits 'WSNZ|compare and write'
  check provisioning sg_vpd --page=0xb2 DEV; said provisioning 'LBP|ANC_SUP|Provisioning'
  check readcap-10 sg_readcap DEV; said readcap-10 'Last L|block length'
  check readcap-16 sg_readcap --16 DEV; said readcap-16 'Protection|provisioning|Last L'
  check luns sg_luns DEV
  check turs sg_turs DEV
  check request-sense sg_requests DEV
  check request-sense-descriptor sg_requests --desc DEV
  check mode-6 sg_modes --six --all DEV
  check mode-10 sg_modes --all DEV
  check mode-changeable sg_modes --all --control=1 DEV
  check mode-saved sg_modes --control=3 --page=8 DEV
  check mode-caching sg_modes --page=8 DEV
  check mode-control sg_modes --page=0x0a DEV
  check mode-control-extension sg_modes --page=0x0a,1 DEV
  check mode-exceptions sg_modes --page=0x1c DEV
  check mode-unknown sg_modes --page=0x2f DEV
  check opcodes sg_opcodes DEV
  check opcode-one sg_opcodes --opcode=0x8a DEV
  check opcode-unknown sg_opcodes --opcode=0x44 DEV
  check task-functions sg_opcodes --tmf DEV
  check logs-supported sg_logs --page=0 DEV
  check logs-temperature sg_logs --page=0x0d DEV
  check logs-informational sg_logs --page=0x2f DEV
  check port-groups sg_rtpg DEV; said port-groups 'asymmetric access state|target port group id'
  check timestamp sg_timestamp DEV
  check identify sg_ident DEV
  check diagnostic sg_senddiag --test DEV
  check read-buffer sg_rbuf --size=4096 DEV
  check sync sg_sync DEV
  check start sg_start --start DEV
  check eject sg_start --eject DEV
  check start-again sg_start --start DEV
  check write-same sg_write_same --lba=100 --num=8 --in=/tmp/z --xferlen=512 DEV
  check write-same-16-unmap sg_write_same --16 --unmap --lba=100 --num=8 --in=/tmp/zero --xferlen=512 DEV
  check write-same-ndob sg_write_same --16 --ndob --lba=100 --num=8 DEV
  check write-same-beyond sg_write_same --lba=131071 --num=8 --in=/tmp/z --xferlen=512 DEV
  check verify sg_verify --lba=0 --count=64 DEV
  check verify-16 sg_verify --16 --lba=0 --count=64 DEV
  check verify-compare sg_verify --lba=0 --count=1 --ndo=512 --in=/tmp/zero DEV
  check verify-miscompare sg_verify --lba=0 --count=1 --ndo=512 --in=/tmp/z DEV
  check compare-and-write sg_compare_and_write --lba=0 --num=1 --xferlen=1024 --in=/tmp/zero_then_z DEV
  check compare-and-write-miscompare sg_compare_and_write --lba=0 --num=1 --xferlen=1024 --in=/tmp/zero_then_z DEV
  check unmap sg_unmap --lba=0 --num=2048 --force DEV
  check unmap-beyond sg_unmap --lba=131071 --num=8 --force DEV
  check lba-status sg_get_lba_status --lba=0 DEV
  check read-beyond sg_dd if=DEV of=/dev/null bs=512 skip=131072 count=1 blk_sgio=1
  check read-dpo-fua sg_dd if=DEV of=/dev/null bs=512 count=8 blk_sgio=1 iflag=dpo,fua
  check prefetch sg_raw DEV 34 00 00 00 00 00 00 00 08 00
  check orwrite sg_raw --send=512 --infile=/tmp/z DEV 8b 00 00 00 00 00 00 00 00 00 00 00 00 01 00 00
  check write-atomic sg_raw --send=4096 --infile=/tmp/page DEV 9c 00 00 00 00 00 00 00 00 00 00 00 00 08 00 00
  check write-and-verify sg_raw --send=512 --infile=/tmp/z DEV 2e 02 00 00 00 00 00 00 01 00
  check read-defects sg_raw --request=64 DEV 37 00 08 00 00 00 00 00 40 00
  check reserved-bit sg_raw --request=512 DEV 28 00 00 00 00 00 00 00 01 80
  check unknown-opcode sg_raw DEV ff 00 00 00 00 00
  check unknown-service-action sg_raw --request=32 DEV 9e 1f 00 00 00 00 00 00 00 00 00 00 00 20 00 00
  check prevent sg_prevent --prevent=1 DEV
  check allow sg_prevent --allow DEV
  check reserve-6 sg_raw DEV 16 00 00 00 00 00
  check release-6 sg_raw DEV 17 00 00 00 00 00
  check pr-keys sg_persist --in --read-keys DEV
  check pr-capabilities sg_persist --in --report-capabilities DEV; said pr-capabilities 'ATP_C|CRH|SIP_C|PTPL_C|PTPL_A|Exclusive|Registrants|All Reg'
  check pr-register sg_persist --out --register --param-sark=$key DEV
  check pr-reserve sg_persist --out --reserve --param-rk=$key --prout-type=5 DEV
  check pr-reservation sg_persist --in --read-reservation DEV; said pr-reservation 'scope|Key'
  check pr-full-status sg_persist --in --read-full-status DEV
  check pr-wrong-key sg_persist --out --release --param-rk=0x9999 --prout-type=5 DEV
  check pr-wrong-type sg_persist --out --release --param-rk=$key --prout-type=1 DEV
  check reserve-6-with-registration sg_raw DEV 16 00 00 00 00 00
  check pr-release sg_persist --out --release --param-rk=$key --prout-type=5 DEV
  check pr-aptpl sg_persist --out --register --param-rk=$key --param-sark=$key --param-aptpl DEV
  check pr-preempt sg_persist --out --preempt --param-rk=$key --param-sark=$key --prout-type=1 DEV
  check pr-register-again sg_persist --out --register-ignore --param-sark=$key DEV
  check pr-clear sg_persist --out --clear --param-rk=$key DEV
  check copy-parameters sg_copy_results --params DEV
  check copy sg_xcopy if=DEV of=DEV bs=512 skip=0 seek=4096 count=64
  check sanitize sg_sanitize --block --quick --wait DEV
  check reset-unit sg_reset --device DEV
  check turs-after-reset sg_turs --number=3 DEV
done
iscsiadm -m node --logout
