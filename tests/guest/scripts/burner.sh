# Discs of every kind are burned in one drive (LUN 0), with the programs that people use, and read back in another (LUN 1).
discover
patient
login
burner=$(disk 0) reader=$(disk 1)
[ "$burner" = /dev/sr0 ] && [ "$reader" = /dev/sr1 ] || fail "the drives are $burner and $reader"
export MKISOFS=genisoimage
ln -s /proc/self/fd /dev/fd # growisofs hands the disc over by it
mkdir -p /mnt/disc /tmp/one /tmp/two
head -c 600000 /dev/urandom >/tmp/one/first
head -c 500000 /dev/urandom >/tmp/two/second
(cd /tmp/one && sha256sum first >sums-1)
(cd /tmp/two && sha256sum second >sums-2)
must genisoimage -quiet -R -V ONE -o /tmp/one.iso /tmp/one

until_ready() { for _ in $(seq 100); do sg_turs "$1" 2>/dev/null && return; sleep 0.1; done; fail "$1 does not get ready"; }

# blank KIND: such a disc is in the burner
blank() { step "$1: $2"; mark "blank:$1"; until_ready "$burner"; }

# read_back: what was burned is in the reader
read_back() { mark read; until_ready "$reader"; }

# as_image: the disc is the ISO image, bit for bit
as_image() {
  must cmp -n "$(stat -c %s /tmp/one.iso)" /tmp/one.iso "$reader"
  echo "as_image: compared"
}

# verified TYPE: the files are those that were put on it, of one session or of two
verified() {
  must mount -r -t "$1" "$reader" /mnt/disc
  (cd /mnt/disc && must sha256sum --quiet -c sums-*) || fail "the files differ"
  [ "$(ls /mnt/disc/sums-* | wc -l)" = "$2" ] || fail "the disc shows $(ls /mnt/disc)"
  must umount /mnt/disc
  echo "verified: $2"
}
quietly() { "$@" >/tmp/out 2>&1 || { local status=$?; cat /tmp/out; fail "status $status: $*"; }; }

blank cd-r "audio with CD-TEXT: cdrskin, icedax, cd-paranoia, cd-info"
head -c $((2352 * 400)) /dev/urandom >/tmp/1.raw
head -c $((2352 * 350)) /dev/urandom >/tmp/2.raw
cat >/tmp/titles <<'T'
Input Sheet Version = 0.7T
Text Code = 8859
Language Code = English
Album Title = An album that has a long title
Artist Name = Somebody
Track 01 Title = The first of two
Track 02 Title = The other
T
quietly cdrskin dev="$burner" -v -sao input_sheet_v07t=/tmp/titles -swab -audio /tmp/1.raw /tmp/2.raw
read_back
quietly icedax -D "$reader" -H -t 1 -O cdr -E little /tmp/read
tail -c 2352 /tmp/1.raw >/tmp/last; tail -c 2352 /tmp/read.cdr | od -A d -t x1 | head -3; od -A d -t x1 /tmp/last | head -3
must sg_raw -r 2352 -o /tmp/sector "$reader" be 04 00 00 01 8f 00 00 01 f8 00 00; od -A d -t x1 /tmp/sector | head -3;
must sg_raw -r 2352 -o /tmp/sector "$reader" be 04 00 00 01 8e 00 00 01 f8 00 00; od -A d -t x1 /tmp/sector | head -3;
ls -l /tmp/*.raw /tmp/read*
cmp /tmp/1.raw /tmp/read.cdr
quietly cd-paranoia -d "$reader" -r 2 /tmp/paranoia.raw
must cmp /tmp/2.raw /tmp/paranoia.raw
must cd-info --no-cddb --no-device-info -C "$reader" >/tmp/out
grep -q "An album that has a long title" /tmp/out && grep -q "The first of two" /tmp/out || fail "cd-info sees no titles: $(cat /tmp/out)"

logout
