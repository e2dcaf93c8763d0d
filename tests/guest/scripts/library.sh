# What all scripts use. The variables IQN and PORTAL are set before it.

fail() { echo "FAILED: $*"; dmesg | tail -25; exit 1; }
step() { echo "== $1 ($(cut -d' ' -f1 /proc/uptime) s)"; }
must() { "$@" || fail "status $?: $*"; }

# Let the tests do something on their side, and wait until it is done; $answer is what they say to it.
mark() { echo "GUEST_MARK:$1"; read -r answer </dev/ttyS1; }

discover() { must iscsiadm -m discovery -t sendtargets -p "${1:-$PORTAL}"; }

# set_node KEY VALUE: of the target's record, before login
set_node() { must iscsiadm -m node -T "$IQN" -o update -n "$1" -v "$2"; }

# Wait for a target that is silent for a while, as Linux does by default, instead of failing its I/O after 5 seconds: a disk of
# the host that stalls is not what most tests are about.
patient() { set_node node.session.timeo.replacement_timeout 120; }

# in_udev: whether udev has done with each disk and optical drive that the scan has found
in_udev() {
  local device type number
  for device in /sys/bus/scsi/devices/[0-9]*:*; do
    read -r type 2>/dev/null <"$device/type" || continue # it has gone meanwhile
    case $type in 0 | 5) ;; *) continue ;; esac
    read -r number 2>/dev/null <"$(echo "$device"/block/*/dev)" && [ -e "/run/udev/data/b$number" ] || return 1
  done
}

# Wait for what udev does. The driver looks at a disk after the scan has ended (sd probes asynchronously), so that
# udev may have nothing to do yet when it is asked first.
settle() {
  local try
  must udevadm settle
  for try in $(seq 600); do
    if in_udev; then must udevadm settle; return; fi
    sleep 0.1
  done
  fail "udev does not know each disk: $(ls -d /sys/bus/scsi/devices/*/block/* /run/udev/data/b*)"
}

login() { must iscsiadm -m node -T "$IQN" -p "${1:-$PORTAL}" --login; settle; }
logout() { must iscsiadm -m node -T "$IQN" --logout; }

# disk LUN: the device of a LUN of the target, e.g. /dev/sda
disk() { readlink -f /dev/disk/by-path/ip-"$PORTAL":3260-iscsi-"$IQN"-lun-"$1"; }

forget_cache() { sync; echo 3 >/proc/sys/vm/drop_caches; }

# verified_load DIRECTORY [fio options]: random writes of many sizes, each block checked when it is read back
verified_load() {
  local where=$1
  shift
  must fio --name=load --directory="$where" --size=12m --rw=randwrite --bsrange=512-64k --ioengine=libaio --iodepth=16 \
    --direct=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --randrepeat=0 --minimal --output=/tmp/fio.out "$@"
  echo "fio: verified"
}

# begin_load DIRECTORY [fio options]: verified_load again and again in the background, process $load, until end_load
begin_load() {
  rm -f /tmp/enough
  (until [ -e /tmp/enough ]; do verified_load "$@"; done) >/tmp/load.out 2>&1 &
  load=$!
}
end_load() {
  touch /tmp/enough
  wait $load || fail "the load failed: $(cat /tmp/load.out /tmp/fio.out)"
}

# make_lio IQN ADDRESS MIB: LIO, the kernel's own target, with a thin file as LUN 0; it serves once 1 is written to $lio_group/enable.
# Its directories in configfs: $lio_core has the logical unit, $lio_group the portal group.
make_lio() {
  local pair
  mkdir -p /etc/target/pr /var/target/pr /var/target/alua # where it keeps what outlives power loss
  must modprobe -a target_core_mod target_core_file iscsi_target_mod
  mount -t configfs configfs /sys/kernel/config 2>/dev/null
  lio_core=/sys/kernel/config/target/core/fileio_0/disk
  lio_group=/sys/kernel/config/target/iscsi/$1/tpgt_1
  must truncate -s "$3M" /tmp/lio.img
  must mkdir -p $lio_core
  echo "fd_dev_name=/tmp/lio.img,fd_dev_size=$(($3 << 20))" >$lio_core/control || fail "the file of LIO"
  echo 6001405a-1234-4321-8765-0123456789ab >$lio_core/wwn/vpd_unit_serial || fail "the serial number of LIO"
  echo 1 >$lio_core/enable || fail "the backstore cannot be enabled"
  must mkdir -p "$lio_group/lun/lun_0" "$lio_group/np/$2:3260"
  must ln -s $lio_core "$lio_group/lun/lun_0/disk"
  for pair in authentication=0 generate_node_acls=1 demo_mode_write_protect=0 cache_dynamic_acls=1; do
    echo "${pair#*=}" >"$lio_group/attrib/${pair%%=*}" || fail "$pair"
  done
}
