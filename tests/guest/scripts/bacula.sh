# Bacula with a library of two drives and three cartridges of 12 MiB, B00001L8 to B00003L8: a backup that needs all of them,
# another that is appended to the last, and everything restored. $STORAGE and $DIRECTOR are what docs/tape.md advises.
discover
login
mkdir -p /run/bacula /tmp/source /tmp/restored
cat >/tmp/sd.conf <<C
Storage { Name = guest-sd; Working Directory = /var/lib/bacula; Pid Directory = /run/bacula; SD Address = 127.0.0.1 }
Director { Name = guest-dir; Password = "secret" }
Messages { Name = Standard; Director = guest-dir = all }
$STORAGE
C
cat >/tmp/fd.conf <<C
File Daemon { Name = guest-fd; Working Directory = /var/lib/bacula; Pid Directory = /run/bacula; FD Address = 127.0.0.1 }
Director { Name = guest-dir; Password = "secret" }
Messages { Name = Standard; Director = guest-dir = all }
C
cat >/tmp/dir.conf <<C
Director {
  Name = guest-dir; Working Directory = /var/lib/bacula; Pid Directory = /run/bacula; Dir Address = 127.0.0.1
  Query File = /dev/null; Password = "secret"; Messages = Standard
}
Catalog { Name = Catalog; dbname = bacula; dbuser = ""; dbpassword = "" }
Messages { Name = Standard; Console = all, !skipped, !restored }
Client { Name = guest-fd; Address = 127.0.0.1; Catalog = Catalog; Password = "secret" }
FileSet { Name = Source; Include { Options { signature = MD5 }; File = /usr/bin; File = /usr/sbin; File = /tmp/source } }
JobDefs {
  Name = Vault; Type = Backup; Level = Full; Client = guest-fd; FileSet = Source; Storage = Vault; Pool = Tapes; Messages = Standard
}
Job { Name = Backup; JobDefs = Vault }
Job { Name = Restore; JobDefs = Vault; Type = Restore }
$DIRECTOR
C
echo 'Director { Name = guest-dir; Address = 127.0.0.1; DIR Port = 9101; Password = "secret" }' >/tmp/bconsole.conf

# console EXPECTED < commands: what it prints is in $printed, and has a line like this
console() {
  printed=$(timeout 500 bconsole -c /tmp/bconsole.conf) || fail "status $? of bconsole: $printed"
  echo "$printed"
  grep -q -- "$1" <<<"$printed" || fail "no '$1'"
}
# files DIRECTORY: what is in it, with contents, links, modes and times
files() {
  (cd "$1" && find usr/bin usr/sbin tmp/source -printf '%p %y %m %l %T@\n' | sed 's/[.][0-9]*$//' | sort)
  (cd "$1" && find usr/bin usr/sbin tmp/source -type f | sort | xargs md5sum)
}

step "label"
must bacula-sd -c /tmp/sd.conf
must bacula-fd -c /tmp/fd.conf
must bacula-dir -c /tmp/dir.conf
listening() { ss -ltn | grep -q ':9101 ' && ss -ltn | grep -q ':9102 ' && ss -ltn | grep -q ':9103 '; }
eventually listening
console "B00003L8.*successfully created" <<C
label barcodes storage=Vault pool=Tapes drive=0 slots=1-3
yes
C

step "a backup on three cartridges"
console "Termination: *Backup OK" <<C
run job=Backup yes
wait
messages
C
grep -qE "Volume name.*(B0000.L8\|){2}B0000.L8$" <<<"$printed" || fail "not on three cartridges"
grep -qE "SD Errors: *0$" <<<"$printed" || fail "errors of the storage daemon"
[ "$(grep -c "Re-read of last block succeeded" <<<"$printed")" = 2 ] || fail "the last blocks of full cartridges"

step "another one behind it, after a restart of the server"
mark restart # Bacula, with the drive open, only sees one write fail, and tries it again
date >/tmp/source/later
console "Termination: *Backup OK" <<C
run job=Backup level=Incremental yes
wait
messages
C

step "restore"
console "Termination: *Restore OK" <<C
restore where=/tmp/restored select current all done yes
wait
messages
C
files / >/tmp/wanted
files /tmp/restored >/tmp/found
cmp /tmp/wanted /tmp/found || fail "not the same: $(diff /tmp/wanted /tmp/found | head -40)"
kill $(pidof bacula-dir bacula-fd bacula-sd)
logout
