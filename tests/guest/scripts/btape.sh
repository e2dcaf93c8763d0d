# btape, with which users of Bacula find out whether it can use a drive: two empty cartridges of 400 MiB are in slots 1 and 2.
discover
login
mkdir -p /run/bacula
cat >/tmp/sd.conf <<C
Storage { Name = guest-sd; Working Directory = /var/lib/bacula; Pid Directory = /run/bacula }
Director { Name = guest-dir; Password = "secret" }
Messages { Name = Standard; Director = guest-dir = all }
$STORAGE
C
changer=$(lsscsi -g | awk '/mediumx/{print $NF}')
must mtx -f "$changer" load 1 0

# btape_says EXPECTED… < commands: what it prints has these lines
btape_says() {
  local expected
  printed=$(btape -c /tmp/sd.conf Vault-1 2>&1) || fail "status $? of btape: $printed"
  echo "$printed"
  for expected; do grep -qF -- "$expected" <<<"$printed" || fail "no '$expected'"; done
}

step "fill"
btape_says "The last block of the first tape matches." "The first block on the second tape matches." \
  "The last block on the second tape matches. Test succeeded." <<C
fill
m
quit
C
must mtx -f "$changer" unload 2 0
must mtx -f "$changer" load 1 0

step "test"
sed -i 's/Maximum Block Size = .*/Maximum Block Size = 4096/' /tmp/sd.conf
btape_says "Total files=4, blocks=7" "Block re-read correct. Test succeeded!" "The test autochanger worked!!" <<C
test
y
quit
C
[ "$(grep -c "=== Test Succeeded" <<<"$printed")" = 2 ] || fail "writing, reading and positioning"
[ "$(grep -c "This is correct!" <<<"$printed")" = 6 ] || fail "file numbers"
