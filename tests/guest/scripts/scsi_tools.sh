# What sg3_utils and lsscsi make of a target with three LUNs, reached through both portals.
discover
login
lsscsi -gsi
count=$(lsscsi | grep -c BLOCKYRD)
[ "$count" = 3 ] || fail "lsscsi shows $count disks of ours"
sda=$(disk 0)

step "inquiry"
must sg_inq "$sda"
must sg_vpd "$sda"
for page in $(sg_inq --vpd --page=sv "$sda" | awk '/^ *0x/{print $1}'); do
  echo "-- page $page"
  must sg_vpd --page="$page" "$sda"
done

step "capacity and LUNs"
must sg_readcap "$sda"
must sg_readcap --16 "$sda"
must sg_luns "$sda"
[ "$(sg_luns --quiet "$sda" | grep -c .)" = 3 ] || fail "REPORT LUNS does not list three"
must sg_turs "$sda"
must sg_requests "$sda"

step "mode pages"
must sg_modes --all "$sda"
must sg_modes --six "$sda"
must sg_modes --control=1 --all "$sda" # what can be changed
[ "$(cat /sys/block/"$(basename "$sda")"/queue/write_cache)" = "write back" ] || fail "the kernel sees no write-back cache"

step "commands"
must sg_opcodes --rctd "$sda"
must sg_opcodes --opcode=0x8a "$sda"
must sg_opcodes --opcode=0x9e,0x10 "$sda"
must sg_sync "$sda"
must sg_start --start "$sda"
must sg_verify --lba=0 --count=64 --16 "$sda"
head -c 1024 /dev/zero >/tmp/zeros
head -c 512 /dev/urandom >/tmp/one
must sg_write_same --lba=100 --num=8 --in=/tmp/one --xferlen=512 --16 "$sda"
must dd if="$sda" of=/tmp/back bs=512 skip=107 count=1 iflag=direct status=none
must cmp /tmp/one /tmp/back
head -c 512 /tmp/one >/tmp/compare
head -c 512 /dev/zero >>/tmp/compare
must sg_compare_and_write --lba=100 --num=1 --xferlen=1024 --in=/tmp/compare "$sda"
sg_compare_and_write --lba=100 --num=1 --xferlen=1024 --in=/tmp/compare "$sda" && fail "a miscompare was not seen"
must sg_unmap --lba=0 --num=2048 --force "$sda"
must dd if="$sda" of=/tmp/back bs=512 skip=107 count=1 iflag=direct status=none
must cmp -n 512 /tmp/zeros /tmp/back
must sg_get_lba_status --lba=0 "$sda"
must sg_reset --device "$sda"
must sg_turs --number=2 "$sda"

step "identity"
must scsi_id --whitelisted --device="$sda"
ls -l /dev/disk/by-id
names=$(for lun in 0 1 2; do scsi_id --whitelisted --device="$(disk $lun)"; done | sort -u | wc -l)
[ "$names" = 3 ] || fail "three LUNs have $names names"
first=$(scsi_id --whitelisted --device="$sda")
login 192.168.78.1
lsscsi
[ "$(scsi_id --whitelisted --device="$(PORTAL=192.168.78.1 disk 0)")" = "$first" ] || fail "the other path shows another disk"

step "logical units are separate"
for lun in 0 1 2; do
  yes $lun | head -c 65536 >/tmp/lun$lun
  must dd if=/tmp/lun$lun of="$(disk $lun)" bs=64k oflag=direct status=none
done
for lun in 0 1 2; do must cmp -n 65536 /tmp/lun$lun "$(PORTAL=192.168.78.1 disk $lun)"; done
must iscsiadm -m session --rescan
logout
