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

blank cd-r "wodim, track at once"
quietly wodim dev="$burner" -v -atip
grep -q "ATIP start of lead out: 359849 (79:59/74)" /tmp/out || fail "wodim sees another disc: $(cat /tmp/out)"
quietly wodim dev="$burner" gracetime=2 -v -tao -data /tmp/one.iso
read_back
as_image
verified iso9660 1
must cd-info --no-cddb --no-device-info -C "$reader" | grep -q "ISO 9660" || fail "cd-info sees no ISO 9660"

blank cd-r "wodim, session at once"
quietly wodim dev="$burner" gracetime=2 -v -sao -data /tmp/one.iso
read_back
as_image

blank cd-rw "wodim: rehearsed, burned, blanked and burned again"
quietly wodim dev="$burner" gracetime=2 -v -dummy -tao -data /tmp/one.iso
quietly wodim dev="$burner" gracetime=2 -v -tao -data /tmp/two/second
quietly wodim dev="$burner" gracetime=2 -v blank=fast
quietly wodim dev="$burner" gracetime=2 -v -tao -data /tmp/one.iso
read_back
as_image

for kind in dvd-r dvd+r dvd+rw bd-r; do
  blank $kind "growisofs, two sessions"
  quietly growisofs -use-the-force-luke=spare:none -Z "$burner" -R -V GROWN /tmp/one
  until_ready "$burner"
  quietly growisofs -M "$burner" -R -V GROWN /tmp/two
  until_ready "$burner"
  quietly dvd+rw-mediainfo "$burner"
  read_back
  verified iso9660 2
done

blank cd-r "xorriso, two sessions"
quietly xorriso -dev "$burner" -close off -map /tmp/one / -commit
quietly xorriso -dev "$burner" -close on -map /tmp/two / -commit
read_back
verified iso9660 2

blank cd-r "cdrskin, track at once"
quietly cdrskin dev="$burner" -v -tao /tmp/one.iso
read_back
as_image

blank cd-r "audio with CD-TEXT: cdrskin, cd-paranoia, cd-info"
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
cd /tmp
quietly cd-paranoia -d "$reader" -c -Z -B -r 1-
for track in 1 2; do must cmp /tmp/$track.raw /tmp/track0$track.cdda.raw; done
must cdrskin dev="$reader" cdtext_to_v07t=- >/tmp/out 2>&1
grep -q "An album that has a long title" /tmp/out && grep -q "The first of two" /tmp/out || fail "there are no titles: $(cat /tmp/out)"
must cd-info --no-cddb --no-device-info -C "$reader" >/tmp/out
grep -q "2: 00:07:25  000400 audio" /tmp/out || fail "cd-info sees other tracks: $(cat /tmp/out)"

logout
