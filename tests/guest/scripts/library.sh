# What all scripts use. The variables IQN and PORTAL are set before it.

fail() { echo "FAILED: $*"; dmesg | tail -25; exit 1; }
step() { echo "== $1 ($(cut -d' ' -f1 /proc/uptime) s)"; }
must() { "$@" || fail "status $?: $*"; }

# Let the tests do something on their side, and wait until it is done; $answer is what they say to it.
mark() { echo "GUEST_MARK:$1"; read -r answer </dev/ttyS1; }

discover() { must iscsiadm -m discovery -t sendtargets -p "${1:-$PORTAL}"; }

# set_node KEY VALUE: of the target's record, before login
set_node() { must iscsiadm -m node -T "$IQN" -o update -n "$1" -v "$2"; }

# eventually COMMAND...: wait until it succeeds, for as long as a busy machine may take
eventually() {
  local end=$((SECONDS + 120))
  until "$@"; do
    [ $SECONDS -lt $end ] || { explain; fail "not so: $*"; }
    sleep 0.2
  done
}
explain() { lsscsi -g; } # what helps to understand why something does not come about; scripts may know more

# in_udev: whether udev has done with each device that the scan has found, under the name that it is used by
in_udev() {
  local device type name kind number
  for device in /sys/bus/scsi/devices/[0-9]*:*; do
    read -r type 2>/dev/null <"$device/type" || continue # it has gone meanwhile
    case $type in
    0 | 5) name=block/* kind=b ;;
    1) name='scsi_tape/nst[0-9]' kind=c ;;
    8) name=scsi_changer/* kind=c ;;
    *) continue ;;
    esac
    read -r number 2>/dev/null <"$(echo "$device"/$name/dev)" && [ -e "/run/udev/data/$kind$number" ] || return 1
  done
}

# Wait for what udev does. The driver looks at a disk after the scan has ended (sd probes asynchronously), so that
# udev may have nothing to do yet when it is asked first.
settle() {
  must udevadm settle
  eventually in_udev
  must udevadm settle
}

has_session() { cat /sys/class/iscsi_session/*/targetname 2>/dev/null | grep -qxF "$1"; }
without_session() { ! has_session "$1"; }

login() { must iscsiadm -m node -T "$IQN" -p "${1:-$PORTAL}" --login; settle; }
logout() { must iscsiadm -m node -T "$IQN" --logout; eventually without_session "$IQN"; must udevadm settle; }

# until_ready DRIVE: until a medium can be used. Who opens the drive has the kernel ask for what has happened to it: the second
# time, nothing is left that udev would look at, which takes the drive for itself meanwhile (cdrom_id opens with O_EXCL).
until_ready() {
  eventually sg_turs "$1" 2>/dev/null
  must sg_turs "$1"
  must udevadm settle
}

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
