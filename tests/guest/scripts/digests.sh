# Every combination of digests, and of what else is negotiated about data: logged in, loaded under verification.
discover
mkdir -p /mnt/disk
made=

# session_shows WORDS: in what the kernel says was negotiated
session_shows() { iscsiadm -m session -P3 | tr -s '\t ' ' ' | grep -q "^ *$1" || { iscsiadm -m session -P3; fail "not negotiated: $1"; }; }

# combination HEADER DATA INITIAL_R2T IMMEDIATE FIRST_BURST MAX_BURST RECEIVE TRANSMIT
combination() {
  step "header $1, data $2, InitialR2T $3, ImmediateData $4, FirstBurst $5, MaxBurst $6, segments $7 and $8"
  set_node "node.conn[0].iscsi.HeaderDigest" "$1"
  set_node "node.conn[0].iscsi.DataDigest" "$2"
  set_node "node.session.iscsi.InitialR2T" "$3"
  set_node "node.session.iscsi.ImmediateData" "$4"
  set_node "node.session.iscsi.FirstBurstLength" "$5"
  set_node "node.session.iscsi.MaxBurstLength" "$6"
  set_node "node.conn[0].iscsi.MaxRecvDataSegmentLength" "$7"
  set_node "node.conn[0].iscsi.MaxXmitDataSegmentLength" "$8"
  login >/dev/null
  session_shows "HeaderDigest: $1"
  session_shows "DataDigest: $2"
  session_shows "InitialR2T: $3"
  session_shows "ImmediateData: $4"
  sda=$(disk 0)
  if [ -z "$made" ]; then must mkfs.ext4 -q -F "$sda"; made=yes; fi
  must mount "$sda" /mnt/disk
  rm -f /mnt/disk/load*
  verified_load /mnt/disk --size=3m --verify_pattern=0x5a
  must umount /mnt/disk
  logout >/dev/null
}

combination CRC32C CRC32C No Yes 65536 262144 262144 262144
combination CRC32C None Yes Yes 65536 262144 262144 65536
combination None CRC32C No No 65536 65536 8192 8192
combination CRC32C CRC32C Yes No 4096 16384 4096 4096
combination None None Yes No 65536 262144 262144 262144
combination CRC32C CRC32C No Yes 512 512 512 512
login >/dev/null
must e2fsck -fn "$(disk 0)"
logout >/dev/null
