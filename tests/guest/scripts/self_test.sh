# For test_machine.py: does what it is told.
ping -c 1 -W 60 192.168.77.1 >/dev/null || fail "the first wire is dead"
ping -c 1 -W 60 192.168.78.1 >/dev/null || fail "the second wire is dead"
mark one
mark two
case $TASK in
succeed) step "succeeded" ;;
fail) fail "as it was told" ;;
sleep) sleep 1000 ;;
esac
