# CHAP by iscsiadm: every algorithm that open-iscsi has, mutual, discovery, and what must not work.
# USER, SECRET, TARGET_USER, TARGET_SECRET are of a user with mutual CHAP; SCOUT, SCOUT_SECRET are for discovery.

# refuses COMMAND…: it must fail, and for a reason that iscsiadm calls a login or authorization failure
refuses() {
  if output=$("$@" 2>&1); then fail "was let in: $*"; fi
  echo "$output" | grep -qi -E 'authorization failure|authentication|login failed|login rejected' || fail "another error: $output"
  echo "refused, as it should be"
}

# discovery_key KEY VALUE: of the record of sendtargets discovery
discovery_key() { must iscsiadm -m discoverydb -t sendtargets -p "$PORTAL" -o update -n "discovery.sendtargets.$1" -v "$2"; }
find_targets() { iscsiadm -m discoverydb -t sendtargets -p "$PORTAL" --discover; }

step "discovery needs the scout's secret"
must iscsiadm -m discoverydb -t sendtargets -p "$PORTAL" -o new
refuses find_targets
discovery_key auth.authmethod CHAP
discovery_key auth.username "$SCOUT"
discovery_key auth.password "not his secret"
refuses find_targets
discovery_key auth.password "$SCOUT_SECRET"
find_targets >/tmp/found || fail "discovery with the right secret"
grep -q "$IQN" /tmp/found || fail "the target is not shown"
grep -q "$HIDDEN" /tmp/found && fail "a target is shown that there is no right to"

step "a login without a proof, and with a wrong one"
refuses iscsiadm -m node -T "$IQN" -p "$PORTAL" --login
set_node node.session.auth.authmethod CHAP
set_node node.session.auth.username "$USER"
set_node node.session.auth.password "wrong by design"
refuses iscsiadm -m node -T "$IQN" -p "$PORTAL" --login
set_node node.session.auth.password "$SECRET"

for algorithm in MD5 SHA1 SHA256 SHA3-256; do
  step "one way with $algorithm"
  set_node node.session.auth.chap_algs "$algorithm"
  login >/dev/null
  must dd if="$(disk 0)" of=/dev/null bs=64k count=1 status=none
  logout >/dev/null
done

set_node node.session.auth.username_in "$TARGET_USER"
set_node node.session.auth.password_in "$TARGET_SECRET"
for algorithm in MD5 SHA1 SHA256 SHA3-256 SHA3-256,SHA256,SHA1,MD5; do
  step "both ways with $algorithm"
  set_node node.session.auth.chap_algs "$algorithm"
  login >/dev/null
  must dd if="$(disk 0)" of=/dev/null bs=64k count=1 status=none
  logout >/dev/null
done

step "a target that does not prove itself is not used"
set_node node.session.auth.password_in "what the target never had"
if iscsiadm -m node -T "$IQN" -p "$PORTAL" --login 2>/dev/null; then fail "a target with a wrong secret was believed"; fi
