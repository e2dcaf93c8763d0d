# LIO, the kernel's own target, on a file of 16 MiB: up to 4 connections a session, error recovery level 2, no digests of its own wish.
make_lio "$IQN" "$ADDRESS" 16
echo 2 >"$lio_group/attrib/default_erl" || fail "the error recovery level"
for pair in MaxConnections=4 ErrorRecoveryLevel=2 DefaultTime2Wait=0 DefaultTime2Retain=20 MaxBurstLength=4096 FirstBurstLength=2048 \
  MaxRecvDataSegmentLength=1024 InitialR2T=No; do
  echo "${pair#*=}" >"$lio_group/param/${pair%%=*}" || fail "$pair"
done
echo 1 >"$lio_group/enable" || fail "the portal group cannot be enabled"
step "LIO serves"
mark "ready"
