# Protection information as sg3_utils transfer it; Linux itself, which has none over iSCSI, uses the disk all the same.
discover
login
disk=$(disk 0)
generic=/dev/$(ls "/sys/block/$(basename "$disk")/device/scsi_generic")
head -c 512 /dev/zero >/tmp/zeros # whose CRC is 0

# block FILE GUARD TAG REFERENCE: zeros with protection information, in hexadecimal
block() { { cat /tmp/zeros; printf "$(echo "$2$3$4" | sed 's/../\\x&/g')"; } >"$1"; }
# told WORDS COMMAND...: the command must fail, and say so
told() {
  local words=$1
  shift
  "$@" >/tmp/told 2>&1 && fail "it has not failed: $*"
  grep -qi "$words" /tmp/told || { cat /tmp/told; fail "not told: $words"; }
}
type_is() { sg_readcap --16 "$generic" | tee /tmp/readcap | grep -q "prot_en=1, p_type=$1" || { cat /tmp/readcap; fail "not type $1"; }; }

step "type 1"
type_is 0
sg_inq "$generic" | grep -q Protect=1 || fail "INQUIRY says nothing of protection"
sg_vpd --page=ei "$generic" | tee /tmp/vpd
grep -q "GRD_CHK=1" /tmp/vpd || fail "the guard is not checked"
block /tmp/good 0000 1234 00000008
must sg_write_x --normal --16 --bs=520 --wrprotect=1 --lba=8 --num=1 --in=/tmp/good "$generic"
must sg_raw --request=520 --outfile=/tmp/back "$generic" 28 20 00 00 00 08 00 00 01 00
must cmp /tmp/good /tmp/back
block /tmp/bad 0001 1234 00000008
told "guard check failed" sg_write_x -vv --normal --16 --bs=520 --wrprotect=1 --lba=8 --num=1 --in=/tmp/bad "$generic"
block /tmp/bad 0000 1234 00000009
told "reference tag check failed" sg_write_x -vv --normal --16 --bs=520 --wrprotect=1 --lba=8 --num=1 --in=/tmp/bad "$generic"
must sg_write_x --normal --16 --bs=520 --wrprotect=3 --lba=8 --num=1 --in=/tmp/bad "$generic" # unchecked
told "reference tag check failed" sg_raw --request=512 "$generic" 28 00 00 00 00 08 00 00 01 00
must sg_write_x --same=0 --16 --bs=520 --wrprotect=1 --lba=8 --num=4 --in=/tmp/good "$generic"
must sg_raw --request=520 --outfile=/tmp/back "$generic" 28 20 00 00 00 0b 00 00 01 00
block /tmp/fourth 0000 1234 0000000b
must cmp /tmp/fourth /tmp/back
must sg_write_x --or --16 --bs=520 --wrprotect=1 --lba=8 --num=1 --in=/tmp/good "$generic"
must sg_write_x --atomic=0 --16 --lba=8 --num=8 --in=/dev/zero "$generic"

step "a file system"
must mkfs.ext4 -q "$disk"
mkdir -p /tmp/mounted
must mount "$disk" /tmp/mounted
verified_load /tmp/mounted
must umount /tmp/mounted
must e2fsck -fn "$disk"

step "type 2"
must udevadm settle
must sg_format --format --quick --wait --fmtpinfo=3 "$generic"
type_is 1
block /tmp/good 0000 1234 deadbeef
must sg_write_x --normal --32 --bs=520 --wrprotect=1 --ref-tag=0xdeadbeef --lba=8 --num=1 --in=/tmp/good "$generic"
told "reference tag check failed" \
  sg_write_x -vv --normal --32 --bs=520 --wrprotect=1 --ref-tag=0x1234 --lba=8 --num=1 --in=/tmp/good "$generic"
must sg_raw --request=520 --outfile=/tmp/back "$generic" 7f 00 00 00 00 00 00 18 00 09 20 00 00 00 00 00 00 00 00 08 \
  de ad be ef 00 00 00 00 00 00 00 01
must cmp /tmp/good /tmp/back

step "type 3"
must sg_format --format --quick --wait --fmtpinfo=3 --pfu=1 "$generic"
type_is 2
must sg_write_x --normal --16 --bs=520 --wrprotect=1 --lba=8 --num=1 --in=/tmp/good "$generic"
must sg_raw --request=520 --outfile=/tmp/back "$generic" 28 20 00 00 00 08 00 00 01 00
must cmp /tmp/good /tmp/back
logout
