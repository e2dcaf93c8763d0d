# Copies within the target, as sg3_utils and ddpt ask for them; provisioning; COMPARE AND WRITE from two nexuses at once.
# LUN 0 and 1 are disks of 32 MiB, with one portal on each of the two networks.
discover
must iscsiadm -m node -T "$IQN" --login
settle
a=$(disk 0) b=$(disk 1)
second=$(readlink -f "/dev/disk/by-path/ip-$PORTAL_2:3260-iscsi-$IQN-lun-0")
[ -b "$second" ] && [ "$second" != "$a" ] || fail "no second path"

head -c 16M /dev/urandom >/tmp/data
head -c 16M /dev/zero >/tmp/zeros
fill() { must dd if=/tmp/data of="$a" bs=1M oflag=direct status=none; }
# same FILE DISK [BYTES [SKIP]]: the disk begins (after SKIP bytes) as the file does; not as udev has read it when it did
same() {
  local bytes=${3:-$((16 << 20))}
  dd if="$2" bs=1M skip="${4:-0}" count="$bytes" iflag=direct,skip_bytes,count_bytes status=none | must cmp -n "$bytes" "$1" - || exit 1
}
clear_b() { must dd if=/tmp/zeros of="$b" bs=1M oflag=direct status=none; }

step "what there is"
must sg_vpd --page=tpc "$a" >/tmp/tpc
grep -q "Populate token" /tmp/tpc || fail "no POPULATE TOKEN in VPD page 8Fh"
must sg_copy_results --params "$a"
must ddptctl --info "$a"

step "sg_xcopy"
fill
must sg_xcopy if="$a" of="$b" bs=512 count=32768 bpt=8192
same /tmp/data "$b"
must sg_xcopy if="$a" of="$a" bs=512 count=1000 skip=3 seek=40000 --on_dst
tail -c +1537 /tmp/data | head -c 512000 >/tmp/part
same /tmp/part "$a" 512000 $((40000 * 512))
must sg_xcopy if="$a" of="$b" bs=512 count=100 list_id=7 id_usage=hold --on_src
must sg_copy_results --status --list_id=7 "$a" >/tmp/status
grep -qi "completed without errors" /tmp/status || { cat /tmp/status; fail "status of the copy"; }
sg_xcopy if="$a" of="$b" bs=512 count=2 seek=65535 list_id=8 id_usage=hold --on_src && fail "copied beyond the end"
must sg_copy_results --failed --list_id=8 "$a"

step "ddpt --xcopy"
clear_b
must ddpt --xcopy if="$a" of="$b" bs=512 bpt=32768 count=32768 # in one command: ddpt 0.97 begins each at the first block
same /tmp/data "$b"

# ddpt 0.97 puts the range descriptors of POPULATE TOKEN and WRITE USING TOKEN one byte too early, so that these lists are made
# here; what the target answers is taken apart by ddptctl.
step "tokens"
bytes() { printf "$(printf "%0$((2 * $1))x" "$2" | sed 's/../\\x&/g')"; } # bytes WIDTH NUMBER
range() { bytes 8 "$1"; bytes 4 "$2"; bytes 4 0; }
populate() { # populate LBA BLOCKS: into /tmp/token
  { bytes 2 30; bytes 12 0; bytes 2 16; range "$1" "$2"; } >/tmp/list
  must sg_raw --timeout=120 --send=32 --infile=/tmp/list "$a" 83 10 0 0 0 0 0 0 1 1 0 0 0 20 0 0
  rm -f /tmp/token
  must ddptctl --receive --rtf=/tmp/token "$a"
  [ "$(stat -c %s /tmp/token)" = 512 ] || fail "no token"
}
write_using() { # write_using DISK OFFSET LBA BLOCKS
  { bytes 2 550; bytes 6 0; bytes 8 "$2"; cat /tmp/token; bytes 6 0; bytes 2 16; range "$3" "$4"; } >/tmp/list
  sg_raw --timeout=120 --send=552 --infile=/tmp/list "$1" 83 11 0 0 0 0 0 0 1 1 0 0 2 28 0 0
}
clear_b
populate 0 32768
must ddptctl --info --rtf=/tmp/token
must write_using "$b" 0 0 32768
must ddptctl --receive "$b"
same /tmp/data "$b"
must ddptctl --all_toks "$a"
must write_using "$b" 4096 40000 4096
tail -c +$((4096 * 512 + 1)) /tmp/data | head -c $((4096 * 512)) >/tmp/part
same /tmp/part "$b" $((4096 * 512)) $((40000 * 512))
# the other path writes to the data: the token is good for nothing
must dd if=/tmp/zeros of="$second" bs=512 seek=8191 count=1 oflag=direct status=none
write_using "$b" 0 0 32768 >/tmp/refused 2>&1 && fail "a token was used after its data had changed"
grep -qi "token revoked" /tmp/refused || { cat /tmp/refused; fail "not told that the token was revoked"; }
{ bytes 4 0xffff0001; bytes 4 504; bytes 504 0; } >/tmp/token
must write_using "$b" 0 0 16384
same /tmp/zeros "$b" $((8 << 20))

step "WRITE SAME and UNMAP"
fill
must sg_write_same --16 --lba=8 --num=8 --in=/tmp/data --xferlen=512 "$a"
head -c 512 /tmp/data >/tmp/block
for n in 1 2 3 4 5 6 7 8; do cat /tmp/block; done >/tmp/part
same /tmp/part "$a" 4096 4096
must sg_write_same --10 --unmap --lba=16 --num=16 --in=/tmp/zeros --xferlen=512 "$a"
same /tmp/zeros "$a" 8192 8192
must sg_write_same --16 --unmap --ndob --lba=32 --num=64 "$a"
same /tmp/zeros "$a" 32768 16384
must sg_get_lba_status --lba=16 "$a" >/tmp/lba
grep -qi "deallocated" /tmp/lba || fail "what was unmapped is not deallocated"
must sg_unmap --lba=1024 --num=1024 --force "$a"
same /tmp/zeros "$a" $((512 << 10)) $((512 << 10))
must blkdiscard --offset 1048576 --length 1048576 "$a"
same /tmp/zeros "$a" $((1 << 20)) $((1 << 20))
must blkdiscard --zeroout --offset 2097152 --length 1048576 "$a"
same /tmp/zeros "$a" $((1 << 20)) $((2 << 20))

step "a soft threshold is told to every nexus"
blkdiscard "$a"
must sg_modes --page=0x1c,2 "$a"
must sg_wr_mode --page=0x1c,2 --contents=5c,2,0,1c,0,0,0,0,0,0,0,0,0,0,0,0,0,1,0,0,0,0,0,0,81,2,0,0,0,0,0,8 "$a"
dmesg -c >/dev/null
must dd if=/tmp/data of="$a" bs=1M count=12 oflag=direct status=none
times_told() { dmesg | grep -c "thin provisioning soft threshold"; }
both_told() {
  for path in "$a" "$second"; do dd if="$path" of=/dev/null bs=512 count=1 iflag=direct status=none; done
  [ "$(times_told)" -ge 2 ]
}
eventually both_told
[ "$(times_told)" = 2 ] || fail "not told once on each path"

step "COMPARE AND WRITE from two nexuses at once"
value() { head -c 512 /dev/zero | tr '\0' "$1"; }
value 0 >/tmp/old
must dd if=/tmp/old of="$a" bs=512 seek=100 count=1 oflag=direct status=none
old=/tmp/old
for round in 1 2 3 4 5 6 7 8 9 a b c; do
  value "$round" >/tmp/one
  value "$(echo "$round" | tr '1-9a-c' 'A-L')" >/tmp/two
  cat "$old" /tmp/one >/tmp/try-one
  cat "$old" /tmp/two >/tmp/try-two
  sg_compare_and_write --in=/tmp/try-one --lba=100 --num=1 --xferlen=1024 "$a" >/tmp/out-one 2>&1 &
  sg_compare_and_write --in=/tmp/try-two --lba=100 --num=1 --xferlen=1024 "$second" >/tmp/out-two 2>&1
  two=$?
  wait $!
  one=$?
  case $one,$two in
    0,14) won=/tmp/one ;;
    14,0) won=/tmp/two ;;
    *) cat /tmp/out-one /tmp/out-two; fail "statuses $one and $two: exactly one should have won" ;;
  esac
  cp $won /tmp/was
  old=/tmp/was
  same "$old" "$a" 512 51200
done
logout
