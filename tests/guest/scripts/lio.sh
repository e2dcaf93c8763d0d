# LIO, the kernel's own target, on a file of 16 MiB: up to 4 connections a session, error recovery level 2, no digests of its own wish.
must modprobe -a target_core_mod target_core_file iscsi_target_mod
mount -t configfs c /sys/kernel/config 2>/dev/null
lio=/sys/kernel/config/target
truncate -s 16M /tmp/lio.img
must mkdir -p $lio/core/fileio_0/disk
echo "fd_dev_name=/tmp/lio.img,fd_dev_size=$((16 << 20))" >$lio/core/fileio_0/disk/control || fail "control"
echo 1 >$lio/core/fileio_0/disk/enable || fail "the backstore cannot be enabled"
tpg=$lio/iscsi/$IQN/tpgt_1
must mkdir -p "$tpg/lun/lun_0" "$tpg/np/$ADDRESS:3260"
must ln -s $lio/core/fileio_0/disk "$tpg/lun/lun_0/disk"
for pair in authentication=0 generate_node_acls=1 demo_mode_write_protect=0 cache_dynamic_acls=1 default_erl=2; do
  echo "${pair#*=}" >"$tpg/attrib/${pair%%=*}" || fail "$pair"
done
for pair in MaxConnections=4 ErrorRecoveryLevel=2 DefaultTime2Wait=0 DefaultTime2Retain=20 MaxBurstLength=4096 FirstBurstLength=2048 \
  MaxRecvDataSegmentLength=1024 InitialR2T=No; do
  echo "${pair#*=}" >"$tpg/param/${pair%%=*}" || fail "$pair"
done
echo 1 >"$tpg/enable" || fail "the portal group cannot be enabled"
step "LIO serves"
mark "ready"
