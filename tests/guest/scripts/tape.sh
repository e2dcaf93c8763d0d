# A tape library as Linux uses it: st, ch, mt, mtx, tar, cpio, dd. It has two drives, six slots, two import/export elements;
# in the slots are A00001L8 and A00002L8 with room for everything, and S00001L8 to S00003L8 with 4 MiB each.
discover
login
changer=$(lsscsi -g | awk '/mediumx/{print $NF}')
generic=$(lsscsi -g | awk '/tape/{print $NF; exit}')
lsscsi -g
[ -c "$changer" ] || fail "no changer"
[ -c /dev/nst0 ] && [ -c /dev/nst1 ] || fail "no drives"
[ -e /dev/sch0 ] || fail "ch has not taken the changer"
tape=/dev/nst0

expect() { # TEXT COMMAND…: what it prints has the text
  local text=$1 found
  shift
  found=$("$@" 2>&1) || fail "status $?: $* printed $found"
  grep -qF -- "$text" <<<"$found" || fail "$* printed no '$text' but: $found"
}
refused() { "$@" 2>/dev/null && fail "it should fail: $*"; true; }
at() { # NUMBER FILE BLOCK: where the tape stands
  [ "$(mt -f $tape tell)" = "At block $1." ] || fail "$(mt -f $tape tell), not $1"
  expect "File number=$2, block number=$3, partition=0." mt -f $tape status
}

step "the changer"
must mtx -f "$changer" inquiry
must mtx -f "$changer" inventory
expect "2 Drives, 8 Slots ( 2 Import/Export )" mtx -f "$changer" status
expect "Storage Element 1:Full :VolumeTag=A00001L8" mtx -f "$changer" status
expect "Product ID: 'Virtual Library" loaderinfo -f "$changer"
{ printf 'A0000?L8'; head -c 32 /dev/zero; } >/tmp/template
must sg_raw -s 40 -i /tmp/template "$changer" b6 02 00 00 00 05 00 00 00 28 00 00       # SEND VOLUME TAG: slots
must sg_raw -r 400 -o /tmp/found "$changer" b5 10 00 00 00 ff 00 00 01 90 00 00         # REQUEST VOLUME ELEMENT ADDRESS
[ "$(grep -aoE '[A-Z][0-9]{5}L8' /tmp/found | xargs)" = "A00001L8 A00002L8" ] || fail "found $(xxd /tmp/found)"
must mtx -f "$changer" load 1 0
expect "Data Transfer Element 0:Full (Storage Element 1 Loaded):VolumeTag = A00001L8" mtx -f "$changer" status
refused mtx -f "$changer" load 2 0
must mtx -f "$changer" load 2 1
must mtx -f "$changer" unload 2 1
must mtx -f "$changer" transfer 2 7
expect "Storage Element 7 IMPORT/EXPORT:Full :VolumeTag=A00002L8" mtx -f "$changer" status
must mtx -f "$changer" transfer 7 2
mark label # A00002L8 becomes B00002L8, in its slot
[ "$(mtx -f "$changer" status | grep -o 'VolumeTag *= *[^ ]*' | tr -d ' ' | sort | xargs)" = \
  "VolumeTag=A00001L8 VolumeTag=B00002L8 VolumeTag=S00001L8 VolumeTag=S00002L8 VolumeTag=S00003L8" ] || fail "$(mtx -f "$changer" status)"
must mtx -f "$changer" inventory
expect "Storage Element 2:Full :VolumeTag=B00002L8" mtx -f "$changer" status

step "what the drive tells of itself"
expect "Density code 0x5e" mt -f $tape status
expect "Product ID: 'Virtual Tape" tapeinfo -f "$generic"
expect "BlockSize: 0" tapeinfo -f "$generic"
must sg_logs -a "$generic"
expect "Barcode: A00001L8" sg_read_attr "$generic"
must sg_opcodes "$generic"
for page in 0x80 0x83 0x86 0xb0 0xb1 0xb2; do must sg_vpd -p $page "$generic" >/dev/null; done
must mt -f $tape densities >/dev/null

step "variable blocks and filemarks"
for file in 1 2 3; do # what is written until the device is closed ends with a filemark
  for size in 1 1000 70000; do
    head -c $size /dev/zero | tr '\0' $file | dd bs=$size count=1 iflag=fullblock status=none || fail "dd of $size"
  done >$tape
done
at 12 3 0
must mt -f $tape rewind
at 0 0 0
must mt -f $tape fsf 1
at 4 1 0
must mt -f $tape fsr 2
at 6 1 2
must mt -f $tape bsr 1
at 5 1 1
must mt -f $tape bsf 1
must mt -f $tape fsf 2
at 8 2 0
must mt -f $tape bsfm 2
at 4 1 0
must mt -f $tape fsfm 1
[ "$(mt -f $tape tell)" = "At block 7." ] || fail "fsfm: $(mt -f $tape tell)"
must mt -f $tape asf 2
at 8 2 0
must mt -f $tape seek 9
[ "$(dd if=$tape bs=100000 count=1 status=none | md5sum)" = "$(head -c 1000 /dev/zero | tr '\0' 3 | md5sum)" ] || fail "block 9"
must mt -f $tape rewind # after `seek` Linux does not know in which file it is
must mt -f $tape eod
[ "$(mt -f $tape tell)" = "At block 12." ] || fail "eod: $(mt -f $tape tell)"
expect "File number=3" mt -f $tape status
refused mt -f $tape fsf 1
must mt -f $tape rewind
refused dd if=$tape bs=10 count=2 of=/dev/null # the second block is larger

step "fixed blocks"
must mt -f $tape eod
must mt -f $tape setblk 512
dd if=/bin/bash of=$tape bs=10240 count=40 status=none || fail "dd of fixed blocks"
must mt -f $tape bsf 1
must mt -f $tape bsf 1
must mt -f $tape fsf 1
[ "$(dd if=$tape bs=5120 status=none | md5sum)" = "$(head -c 409600 /bin/bash | md5sum)" ] || fail "fixed blocks"
must mt -f $tape setblk 0

step "the other verbs of mt"
must mt -f $tape rewind
must mt -f $tape retension
must mt -f $tape lock
refused mtx -f "$changer" unload 1 0
must mt -f $tape unlock
must mt -f $tape drvbuffer 1
must mt -f $tape compression 1
must mt -f $tape compression 0
must mt -f $tape defcompression -1
must mt -f $tape stoptions scsi2logical
must mt -f $tape stshowoptions
must mt -f $tape stsetoptions scsi2logical
must mt -f $tape stclearoptions debug
must mt -f $tape stwrthreshold 64
must mt -f $tape sttimeout 900
must mt -f $tape stlongtimeout 10800
must mt -f $tape stsetcln 0
must mt -f $tape setdensity 0x5e
must mt -f $tape defblksize 0
must mt -f $tape defdensity 0x5e
must mt -f $tape defdrvbuffer 1
for verb in fss bss wset; do refused mt -f $tape $verb 1; done # setmarks: no tape has had them for long
must mt -f $tape rewind
for verb in offline rewoffl eject; do
  must mt -f $tape $verb
  must mt -f $tape load
done
must mt -f $tape seod
must mt -f $tape weof 2
must mt -f $tape erase
must mt -f $tape rewind
must mt -f $tape erase
must mt -f $tape eod
[ "$(mt -f $tape tell)" = "At block 0." ] || fail "an erased tape ends at $(mt -f $tape tell)"

step "tar and cpio"
mkdir -p /tmp/source /tmp/copy
cp /bin/bash /usr/bin/mtx /usr/bin/strace /tmp/source 2>/dev/null
(cd /tmp/source && sha256sum * >/tmp/sums)
must mt -f $tape rewind
must tar -b 128 -cf $tape -C /tmp source
(cd /tmp && find source | cpio -o -H newc -C 32768 --quiet >$tape) || fail "cpio"
must mt -f $tape rewind
must tar -b 128 -df $tape -C /tmp
must mt -f $tape asf 1
mkdir -p /tmp/copied
(cd /tmp/copied && cpio -i -d -H newc -C 32768 --quiet <$tape) || fail "cpio -i"
(cd /tmp/copied/source && sha256sum --quiet -c /tmp/sums) || fail "what cpio has brought back"

step "the data outlives a restart of the server"
must mt -f $tape rewind
must mt -f $tape weof 0
mark restart
eventually mt -f $tape rewind # st gives up what was on its way when the connection went
mkdir -p /tmp/copy2
must tar -b 128 -xf $tape -C /tmp/copy2
(cd /tmp/copy2/source && sha256sum --quiet -c /tmp/sums) || fail "what tar has brought back"

step "a server that is killed in the midst of writing"
must mt -f $tape rewind
must tar -b 128 -cf $tape -C /tmp source # it ends with a filemark, which is waited for
exec 9>$tape
dd if=/dev/zero bs=64k count=20 status=none >&9 || fail "writing before the crash"
mark crash
exec 9>&- 2>/dev/null
eventually mt -f $tape rewind
must tar -b 128 -df $tape -C /tmp
must mt -f $tape rewind
must mt -f $tape fsf 1
dd if=$tape of=/tmp/after bs=64k 2>/dev/null || true # no filemark ends it: that is an error
blocks=$(($(stat -c %s /tmp/after) / 65536))
[ "$(stat -c %s /tmp/after)" -eq $((blocks * 65536)) ] && [ $blocks -le 20 ] || fail "$(stat -c %s /tmp/after) bytes behind the filemark"
[ "$(tr -d '\0' </tmp/after | wc -c)" -eq 0 ] || fail "what is behind the filemark was never written"

step "end of tape"
must mt -f $tape offline
must mtx -f "$changer" unload 1 0
must mtx -f "$changer" load 3 0
dd if=/dev/urandom of=$tape bs=64k 2>/tmp/dd && fail "the tape has no end"
grep -q "No space left" /tmp/dd || fail "$(cat /tmp/dd)"
must mt -f $tape rewind
blocks=$(dd if=$tape of=/dev/null bs=64k 2>&1 | sed -n 's/+.*records in//p')
[ "$blocks" -ge 58 ] && [ "$blocks" -le 63 ] || fail "$blocks blocks of 64 KiB on a cartridge of 4 MiB"
must mt -f $tape offline
must mtx -f "$changer" unload 3 0

step "an archive on three cartridges"
cat >/tmp/next.sh <<S
#!/bin/bash
mt -f $tape offline
mtx -f $changer unload \$((TAR_VOLUME + 1)) 0 && mtx -f $changer load \$((TAR_VOLUME + 2)) 0
S
chmod +x /tmp/next.sh
head -c 7000000 /dev/urandom >/tmp/source/large
(cd /tmp/source && sha256sum * >/tmp/sums)
must mtx -f "$changer" load 3 0
must tar -b 64 -c -M -F /tmp/next.sh -f $tape -C /tmp source
must mt -f $tape offline
must mtx -f "$changer" unload 5 0
must mtx -f "$changer" load 3 0
rm -rf /tmp/copy && mkdir /tmp/copy
must tar -b 64 -x -M -F /tmp/next.sh -f $tape -C /tmp/copy
(cd /tmp/copy/source && sha256sum --quiet -c /tmp/sums) || fail "what three cartridges have brought back"
must mt -f $tape offline
must mtx -f "$changer" unload 5 0

step "encryption"
must mtx -f "$changer" load 1 0
for key in right wrong; do openssl rand -hex 32 >/tmp/$key.key; echo "key of $key" >>/tmp/$key.key; done
must stenc -f $tape -e on -k /tmp/right.key -a 1 --ckod
expect "Drive Encryption:        on" stenc -f $tape
must tar -b 128 -cf $tape -C /tmp source
must mt -f $tape rewind
must tar -b 128 -df $tape -C /tmp
must mt -f $tape rewind
expect "Encrypted and able to decrypt" stenc -f $tape --detail
must stenc -f $tape -e off
expect "Drive Encryption:        off" stenc -f $tape
refused tar -b 128 -tf $tape
must mt -f $tape rewind
expect "Encrypted, but unable to decrypt" stenc -f $tape --detail
expect "key of right" stenc -f $tape --detail
must stenc -f $tape -e on -k /tmp/wrong.key -a 1
refused tar -b 128 -tf $tape
must mt -f $tape rewind
must stenc -f $tape -e rawread -k /tmp/right.key -a 1
dd if=$tape of=/tmp/raw bs=256k count=1 status=none || fail "reading raw"
[ "$(stat -c %s /tmp/raw)" -gt 65536 ] || fail "a raw block of $(stat -c %s /tmp/raw) bytes"
grep -q "key of right" /tmp/raw || fail "no description of the key"
grep -q "source/bash" /tmp/raw && fail "what was encrypted can be read"
must mt -f $tape rewind
must stenc -f $tape -e mixed -k /tmp/right.key -a 1 --ckod
must tar -b 128 -df $tape -C /tmp
must mt -f $tape offline
must mtx -f "$changer" unload 1 0
must mtx -f "$changer" load 1 0
expect "Drive Encryption:        off" stenc -f $tape

step "partitions"
must mt -f $tape stoptions can-partitions scsi2logical
must mt -f $tape mkpartition 20
must mt -f $tape setpartition 1
echo "in the second" | dd of=$tape bs=100 status=none || fail "writing to partition 1"
must mt -f $tape partseek 0 0
echo "in the first" | dd of=$tape bs=100 status=none || fail "writing to partition 0"
must mt -f $tape setpartition 1
must mt -f $tape rewind
[ "$(dd if=$tape bs=100 count=1 status=none)" = "in the second" ] || fail "partition 1"
must mt -f $tape setpartition 0
must mt -f $tape rewind
[ "$(dd if=$tape bs=100 count=1 status=none)" = "in the first" ] || fail "partition 0"
must mt -f $tape mkpartition 0
must mt -f $tape offline
must mtx -f "$changer" unload 1 0
logout
