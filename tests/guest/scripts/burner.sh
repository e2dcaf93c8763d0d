# Discs of every kind are burned with the programs that people use, in six drives at the same time (LUN 0 to 5): most of it is waiting.
# Each is read back in another drive (LUN 6).
discover
login
reader=$(disk 6)
export MKISOFS=genisoimage
ln -s /proc/self/fd /dev/fd # growisofs hands the disc over by it
mkdir -p /mnt/disc /tmp/one /tmp/two
head -c 600000 /dev/urandom >/tmp/one/first
head -c 500000 /dev/urandom >/tmp/two/second
(cd /tmp/one && sha256sum first >sums-1)
(cd /tmp/two && sha256sum second >sums-2)
must genisoimage -quiet -R -V ONE -o /tmp/one.iso /tmp/one
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

# burn NUMBER KIND FUNCTION: a blank disc in that drive, and in the background what burns it
burners=()
burn() {
  mark "blank:$1:$2"
  until_ready "$(disk "$1")"
  (set -e; "$3" "$(disk "$1")") >"/tmp/burn-$1" 2>&1 &
  burners[$1]=$!
}

# read_back NUMBER: what was burned there is in the reader
read_back() {
  wait "${burners[$1]}" || fail "drive $1 ended with status $?: $(tail -c 3000 "/tmp/burn-$1")"
  mark "read:$1"
  until_ready "$reader"
}

as_image() {
  must cmp -n "$(stat -c %s /tmp/one.iso)" /tmp/one.iso "$reader"
  echo "as_image: compared"
}

# verified NUMBER: the files are those that were put on it, of one session or of two
verified() {
  must mount -r -t iso9660 "$reader" /mnt/disc
  (cd /mnt/disc && must sha256sum --quiet -c sums-*) || fail "the files differ"
  [ "$(ls /mnt/disc/sums-* | wc -l)" = "$1" ] || fail "the disc shows $(ls /mnt/disc)"
  must umount /mnt/disc
  echo "verified: $1"
}

wodim_track_at_once() {
  wodim dev="$1" -v -atip >/tmp/atip
  grep "ATIP start of lead out: 359849 (79:59/74)" /tmp/atip
  until_ready "$1"
  wodim dev="$1" gracetime=2 -v -tao -data /tmp/one.iso
}
wodim_session_at_once() { wodim dev="$1" gracetime=2 -v -sao -data /tmp/one.iso; }
wodim_rewritable() {
  wodim dev="$1" gracetime=2 -v -dummy -tao -data /tmp/one.iso
  until_ready "$1"
  wodim dev="$1" gracetime=2 -v -tao -data /tmp/two/second
  until_ready "$1"
  wodim dev="$1" gracetime=2 -v blank=fast
  until_ready "$1"
  wodim dev="$1" gracetime=2 -v -tao -data /tmp/one.iso
}
cdrskin_track_at_once() { cdrskin dev="$1" -v -tao /tmp/one.iso; }
cdrskin_audio() { cdrskin dev="$1" -v -sao input_sheet_v07t=/tmp/titles -swab -audio /tmp/1.raw /tmp/2.raw; }
xorriso_two_sessions() {
  xorriso -dev "$1" -close off -map /tmp/one / -commit
  until_ready "$1"
  xorriso -dev "$1" -close on -map /tmp/two / -commit
}
growisofs_two_sessions() {
  growisofs -use-the-force-luke=spare:none -Z "$1" -R -V GROWN /tmp/one
  until_ready "$1"
  growisofs -M "$1" -R -V GROWN /tmp/two
  until_ready "$1"
  dvd+rw-mediainfo "$1"
}

growisofs_over_and_over() { # as it does by itself: a BD-R is formatted for pseudo-overwrite, and grows without sessions
  growisofs -Z "$1" -R -V GROWN /tmp/one
  until_ready "$1"
  growisofs -M "$1" -R -V GROWN /tmp/two
  until_ready "$1"
  dvd+rw-mediainfo "$1"
}
cat >/tmp/disc.toc <<'T'
CD_DA
CATALOG "1234567890123"
CD_TEXT {
  LANGUAGE_MAP { 0 : 9 }
  LANGUAGE 0 { TITLE "An album" PERFORMER "Somebody" }
}
TRACK AUDIO
ISRC "DEABC2600001"
CD_TEXT { LANGUAGE 0 { TITLE "First" PERFORMER "Somebody" } }
FILE "/tmp/1.raw" 0
TRACK AUDIO
COPY
ISRC "DEZ092600002"
CD_TEXT { LANGUAGE 0 { TITLE "Second" PERFORMER "Another" } }
PREGAP 0:2:0
FILE "/tmp/2.raw" 0
INDEX 0:3:0
T
cdrdao_disc_at_once() { cdrdao write --device "$1" --driver generic-mmc:0x10 -n /tmp/disc.toc; }
# What a table of contents of cdrdao says, whatever it does for layout: without the files, and the packs that it counts.
said() { sed -n '/SIZE_INFO/,/}/d; s/FILE "[^"]*"/FILE/; /[^ ]/p' "$1" | tr -s ' \n' '  '; }
cdrskin_session_at_once() { cdrskin dev="$1" -v -sao /tmp/one.iso; }

step "CDs"
burn 0 cd-r wodim_track_at_once
burn 1 cd-r wodim_session_at_once
burn 2 cd-rw wodim_rewritable
burn 3 cd-r cdrskin_track_at_once
burn 4 cd-r cdrskin_audio
burn 5 cd-r xorriso_two_sessions

step "wodim, track at once"
read_back 0
as_image
verified 1
must cd-info --no-cddb --no-device-info -C "$reader" | grep -q "ISO 9660" || fail "cd-info sees no ISO 9660"
step "wodim, session at once"
read_back 1
as_image
step "cdrskin, track at once"
read_back 3
as_image
step "cdrskin, sound with CD-TEXT"
read_back 4
cd /tmp
must cd-paranoia -q -d "$reader" -c -Z -B -r 1-
for track in 1 2; do must cmp /tmp/$track.raw /tmp/track0$track.cdda.raw; done
must cdrskin dev="$reader" cdtext_to_v07t=- >/tmp/out 2>&1
grep -q "An album that has a long title" /tmp/out && grep -q "The first of two" /tmp/out || fail "there are no titles: $(cat /tmp/out)"
must cd-info --no-cddb --no-device-info -C "$reader" >/tmp/out
grep -q "2: 00:07:25  000400 audio" /tmp/out || fail "cd-info sees other tracks: $(cat /tmp/out)"

step "DVDs and a BD begin"
burn 0 dvd-r growisofs_two_sessions
burn 1 dvd+r growisofs_two_sessions
burn 3 dvd+rw growisofs_two_sessions
burn 4 bd-r growisofs_two_sessions
step "wodim: rehearsed, burned, blanked and burned again"
read_back 2
as_image
step "xorriso, two sessions"
read_back 5
verified 2
burn 2 bd-r growisofs_over_and_over
burn 5 dvd-rw growisofs_two_sessions
for number in 0 1 3 4 2 5; do
  step "growisofs, two sessions: drive $number"
  read_back $number
  verified 2
  [ $number != 0 ] || burn 0 cd-r cdrdao_disc_at_once
  [ $number != 1 ] || burn 1 cd-r cdrskin_session_at_once
done
grep -q "BD-R SRM+POW" /tmp/burn-2 || fail "the BD-R was written in another way: $(cat /tmp/burn-2)"
step "cdrskin, session at once"
read_back 1
as_image
step "cdrdao, disc at once; it reads it too"
read_back 0
must cdrdao read-toc --device "$reader" --driver generic-mmc /tmp/read.toc >/tmp/out 2>&1
cat >/tmp/expected.toc <<'T'
CD_DA
CATALOG "1234567890123"
CD_TEXT {
  LANGUAGE_MAP { 0: 9 }
  LANGUAGE 0 { TITLE "An album" PERFORMER "Somebody" }
}
// Track 1
TRACK AUDIO
NO COPY
NO PRE_EMPHASIS
TWO_CHANNEL_AUDIO
ISRC "DEABC2600001"
CD_TEXT { LANGUAGE 0 { TITLE "First" PERFORMER "Somebody" } }
FILE "data.wav" 0 00:05:25
// Track 2
TRACK AUDIO
COPY
NO PRE_EMPHASIS
TWO_CHANNEL_AUDIO
ISRC "DEZ092600002"
CD_TEXT { LANGUAGE 0 { TITLE "Second" PERFORMER "Another" } }
FILE "data.wav" 00:05:25 00:06:50
START 00:02:00
INDEX 00:03:00
T
[ "$(said /tmp/read.toc)" = "$(said /tmp/expected.toc)" ] || fail "what was burned is read as $(cat /tmp/out /tmp/read.toc)"
until_ready "$reader"
# While it copies, it takes what it has just read for the end of a pregap (CdrDriver::audioRead): of that the length is nothing to go by.
must cdrdao read-cd --device "$reader" --driver generic-mmc --datafile /tmp/back.bin /tmp/back.toc >/tmp/out 2>&1
cat /tmp/out /tmp/back.toc
must cmp -n $((2352 * 400)) /tmp/1.raw /tmp/back.bin
must cmp -n $((2352 * 350)) -i 0:$((2352 * 550)) /tmp/2.raw /tmp/back.bin
[ "$(stat -c %s /tmp/back.bin)" = $((2352 * 900)) ] || fail "cdrdao has read $(stat -c %s /tmp/back.bin) bytes"
grep -q 'CATALOG "1234567890123"' /tmp/back.toc && [ "$(grep -c 'TRACK AUDIO' /tmp/back.toc)" = 2 ] \
  || fail "cdrdao has read another table of contents"
logout
