# What all scripts use. The variables IQN and PORTAL are set before it.

fail() { echo "FAILED: $*"; dmesg | tail -25; exit 1; }
step() { echo "== $1 ($(cut -d' ' -f1 /proc/uptime) s)"; }
must() { "$@" || fail "status $?: $*"; }

# Let the tests do something on their side, and wait until it is done.
mark() { echo "GUEST_MARK:$1"; read -r _ </dev/ttyS1; }

discover() { must iscsiadm -m discovery -t sendtargets -p "${1:-$PORTAL}"; }

# set_node KEY VALUE: of the target's record, before login
set_node() { must iscsiadm -m node -T "$IQN" -o update -n "$1" -v "$2"; }

login() { must iscsiadm -m node -T "$IQN" -p "${1:-$PORTAL}" --login; must udevadm settle; }
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
