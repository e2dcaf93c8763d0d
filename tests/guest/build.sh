#!/bin/bash
# build.sh DIRECTORY: a Linux kernel and a root image for a QEMU guest (TCG, no KVM) that is a real iSCSI initiator.
#
# Into DIRECTORY go vmlinux, initrd.img and root.img (about 200 MB; half a minute). The kernel is Debian's, downloaded but
# not installed, and so is Bacula, whose services nobody wants on this machine; the tools are those of this machine, with the
# libraries that they need. tests/apt-packages.txt lists the packages. machine.py calls this, once for each version of this file and of the kernel.
set -eu -o pipefail
out=$1
mkdir -p "$out"
cd "$out"
root=$out/root
libraries=/usr/lib/x86_64-linux-gnu

tools=(
  bash tar gzip find openssl dd cmp md5sum sha256sum timeout stty head hostname strace ip ss tc
  iscsid iscsiadm iscsistart iscsi-iname multipathd multipath mpathpersist kpartx dmsetup
  lsscsi mtx tapeinfo loaderinfo scsitape stenc mt-st cpio wodim growisofs dvd+rw-mediainfo dvd+rw-format xorriso cdrskin cdrdao cd-paranoia isoinfo genisoimage
  mkfs.ext4 e2fsck resize2fs tune2fs dumpe2fs debugfs mkfs.xfs xfs_repair xfs_db xfs_io fio
  mdadm blkid lsblk blockdev blkdiscard wipefs fstrim udevadm modprobe rmmod lsmod insmod
  sg_inq sg_vpd sg_readcap sg_raw sg_persist sg_reset sg_luns sg_modes sg_opcodes sg_rtpg sg_stpg sg_turs sg_unmap
  sg_write_same sg_xcopy sg_copy_results sg_compare_and_write sg_dd sg_logs sg_requests sg_start sg_sync sg_verify
  sg_get_lba_status sg_ses sg_rbuf sg_map sg_scan sg_read sg_sanitize sg_senddiag sg_get_config sg_format sg_ident
  cd-info eject sg_prevent sg_rdac sg_write_buffer sg_write_verify sg_write_x sg_wr_mode sg_timestamp sg_read_buffer sg_read_attr smartctl scsi_id ddpt ddptctl
)
modules=(
  virtio_pci virtio_net virtio_blk
  iscsi_tcp sd_mod sr_mod st ch sg ses crc32c_generic crc32c-intel crct10dif_generic crct10dif-pclmul
  dm_mod dm_multipath dm_round_robin dm_service_time dm_queue_length dm_snapshot scsi_dh_alua scsi_dh_rdac
  target_core_mod target_core_file iscsi_target_mod
  raid0 raid1 raid10 raid456
  ext4 xfs btrfs vfat nls_utf8 nls_iso8859-1 nls_ascii nls_cp437 isofs udf loop sch_netem sch_tbf
)

# unpacked DIRECTORY PACKAGE…: what is in Debian's packages
unpacked() {
  local directory=$1 package
  mkdir download
  (cd download && apt-get -o APT::Sandbox::User=root -qq download "${@:2}")
  for package in download/*.deb; do dpkg-deb -x "$package" "$directory"; done
  rm -r download
}

# The kernel, uncompressed: QEMU boots the ELF file through PVH (CONFIG_PVH=y), so that nothing is unpacked under TCG.
kernel_files() {
  unpacked kernel "$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-[0-9]/{print $2; exit}')"
  version=$(ls kernel/lib/modules)
  depmod -b kernel "$version"
  python3 - "kernel/boot/vmlinuz-$version" vmlinux <<'P'
import lzma, struct, sys
image = open(sys.argv[1], "rb").read()
setup = ((image[0x1F1] or 4) + 1) * 512  # Documentation/arch/x86/boot.rst: setup_sects
(payload,) = struct.unpack("<I", image[0x248:0x24C])
open(sys.argv[2], "wb").write(lzma.LZMADecompressor().decompress(image[setup + payload :]))
P
  [ "$(head -c 4 vmlinux | tail -c 3)" = ELF ] || { echo "the kernel is not an ELF file compressed by xz" >&2; exit 1; }
}

# The modules named on the line, with those they need, in the order in which they have to be loaded.
module_files() {
  local module
  for module; do
    modprobe -d "$out/kernel" -S "$version" --show-depends --ignore-install "$module" | awk '/^insmod/{print $2}'
  done | awk '!seen[$0]++'
}

copy_libraries() {
  local library target
  { ldd "$1" 2>/dev/null || true; } | awk '/not found/{print $1} /=> \//{print $3} /^\t\/lib/{print $1}' | while read -r library; do
    case $library in "$root"/*) continue ;; /*) ;; *) echo "$1 needs $library: not installed here" >&2; exit 1 ;; esac
    target=$root$(readlink -f "$(dirname "$library")")/$(basename "$library")
    [ -e "$target" ] || { mkdir -p "$(dirname "$target")"; cp -L "$library" "$target"; }
  done
}

copy_tools() {
  local tool path directory missing=()
  for tool in "${tools[@]}"; do
    path=$(PATH=/usr/sbin:/usr/bin:/lib/udev command -v "$tool") || { missing+=("$tool"); continue; }
    directory=$root/usr/bin
    case $path in */sbin/*) directory=$root/usr/sbin ;; esac
    cp -L "$(readlink -f "$path")" "$directory/$tool"
    copy_libraries "$path"
  done
  if [ ${#missing[@]} -gt 0 ]; then
    echo "not installed here: ${missing[*]}: install the packages of tests/apt-packages.txt" >&2
    exit 1
  fi
  ln -s mt-st "$root/usr/bin/mt"
}

# The director, its console, the storage and the file daemon, btape, and an empty catalogue in SQLite.
copy_bacula() {
  local program
  unpacked bacula bacula-{common,common-sqlite3,director,director-sqlite3,sd,fd,console}
  mkdir -p "$root"/etc/bacula/scripts "$root/var/lib/bacula"
  cp bacula/etc/bacula/scripts/mtx-changer* "$root/etc/bacula/scripts/"
  sed -i 1s/sh/bash/ "$root/etc/bacula/scripts/mtx-changer" # busybox as sh has an mt of its own
  cp -r bacula/usr/lib/bacula "$root/usr/lib/"
  cp bacula/usr/sbin/{bacula-dir,bacula-sd,bacula-fd,bconsole,btape} "$root/usr/sbin/"
  for program in "$root"/usr/sbin/{bacula-dir,bacula-sd,bacula-fd,bconsole,btape}; do
    LD_LIBRARY_PATH=$root/usr/lib/bacula copy_libraries "$program"
  done
  python3 - bacula/usr/share/dbconfig-common/data/bacula-director-sqlite3/install/sqlite3 "$root/var/lib/bacula/bacula.db" <<'P'
import pathlib, sqlite3, sys
sqlite3.connect(sys.argv[2]).executescript(pathlib.Path(sys.argv[1]).read_text())
P
}

copy_udev() {
  local file
  mkdir -p "$root/usr/lib/multipath" "$root/usr/lib/udev/rules.d" "$root/usr/lib/systemd"
  for file in /lib/multipath/*.so; do cp -L "$file" "$root/usr/lib/multipath/"; copy_libraries "$file"; done
  ln -s ../../bin/udevadm "$root/usr/lib/systemd/systemd-udevd"
  for file in ata_id scsi_id cdrom_id dmsetup_env kpartx_id dm-mpath-udev; do
    if [ -e "/lib/udev/$file" ]; then cp -L "/lib/udev/$file" "$root/usr/lib/udev/"; copy_libraries "/lib/udev/$file"; fi
  done
  for file in 50-udev-default 55-dm 55-scsi-sg3_id 56-dm-mpath 56-dm-parts 58-scsi-sg3_symlink 60-block 60-cdrom_id \
    60-kpartx 60-multipath 60-persistent-storage 60-persistent-storage-dm 60-persistent-storage-tape \
    68-del-part-nodes 80-drivers 95-dm-notify; do
    if [ -e "/lib/udev/rules.d/$file.rules" ]; then cp -L "/lib/udev/rules.d/$file.rules" "$root/usr/lib/udev/rules.d/"; fi
  done
}

settings() {
  cp /etc/group /etc/services /etc/protocols /etc/mke2fs.conf "$root/etc/" 2>/dev/null || true
  printf 'root:x:0:0:root:/:/bin/sh\n' >"$root/etc/passwd"
  printf 'passwd: files\ngroup: files\nhosts: files\n' >"$root/etc/nsswitch.conf"
  printf '127.0.0.1 localhost guest\n' >"$root/etc/hosts"
  ln -s /proc/mounts "$root/etc/mtab"
  mkdir -p "$root"/etc/iscsi/{nodes,send_targets,isns,slp,static,ifaces} "$root/var/lib/iscsi"
  echo "InitiatorName=iqn.2024-01.test.guest:initiator" >"$root/etc/iscsi/initiatorname.iscsi"
  cat >"$root/etc/iscsi/iscsid.conf" <<'C'
iscsid.startup = /usr/sbin/iscsid
node.startup = manual
node.leading_login = No
node.session.timeo.replacement_timeout = 120
node.conn[0].timeo.login_timeout = 15
node.conn[0].timeo.logout_timeout = 60
node.conn[0].timeo.noop_out_interval = 30
node.conn[0].timeo.noop_out_timeout = 30
node.session.err_timeo.abort_timeout = 15
node.session.err_timeo.lu_reset_timeout = 30
node.session.err_timeo.tgt_reset_timeout = 30
node.session.initial_login_retry_max = 8
node.session.cmds_max = 128
node.session.queue_depth = 32
node.session.scan = auto
C
  cat >"$root/etc/multipath.conf" <<'C'
defaults {
 user_friendly_names yes
 find_multipaths no
 polling_interval 1
 max_polling_interval 2
 checker_timeout 5
 no_path_retry 10
 skip_kpartx yes
}
C
}

# First stage: busybox and what it takes to mount the root image (its disk is opened with snapshot=on).
initial_ramdisk() {
  local file
  mkdir -p initrd/{bin,dev,new,modules}
  cp "$busybox" initrd/bin/busybox
  module_files virtio_pci virtio_blk crc32c_generic ext4 | while read -r file; do
    strip --strip-debug -o "initrd/modules/$(basename "$file")" "$file"
    basename "$file" >>initrd/modules/list
  done
  cat >initrd/init <<'C'
#!/bin/busybox sh
b=/bin/busybox
$b mount -t devtmpfs d /dev
while read m; do $b insmod /modules/$m; done < /modules/list
$b mount -t ext4 -o noatime,nobarrier /dev/vda /new || exec $b poweroff -f
$b umount /dev
exec $b switch_root /new /init
C
  chmod +x initrd/init
  (cd initrd && find . | cpio -o -H newc --quiet) >initrd.img
}

# Second stage. It stops at GUEST_READY, where the machine's state is saved; when it is resumed, a line on the second
# serial port sets it off: the test's files are in a tar archive on the second disk.
second_stage() {
  cat >"$root/init" <<'C'
#!/bin/bash
export PATH=/usr/sbin:/usr/bin HOME=/ TERM=dumb
mount -t proc p /proc; mount -t sysfs s /sys; mount -t devtmpfs d /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts d /dev/pts; mount -t tmpfs t /run; mount -t tmpfs t /dev/shm; mount -t tmpfs t /tmp
mkdir -p /run/lock/iscsi /run/udev /run/multipathd
ip link set lo up; hostname guest
modprobe -a virtio_net iscsi_tcp sd_mod sr_mod st ch sg dm_multipath dm_service_time scsi_dh_alua ext4 xfs crc32c_generic
/usr/lib/systemd/systemd-udevd --daemon --resolve-names=never 2>/dev/null
for w in $(cat /proc/cmdline); do case $w in addresses=*) addresses=${w#*=};; esac; done
for x in ${addresses//,/ }; do ip addr add "${x#*=}" dev "${x%%=*}"; ip link set "${x%%=*}" up; done
iscsid
stty -F /dev/ttyS1 raw -echo; exec 3<>/dev/ttyS1
sync; echo GUEST_READY
read -r _ <&3
mkdir -p /job; tar -xf /dev/vdb -C /job; cd /job
bash ./main.sh; status=$?
echo "GUEST_EXIT:$status"
busybox poweroff -f
C
  chmod +x "$root/init"
}

[ "$(uname -m)" = x86_64 ] || { echo "the guest is for x86_64 only" >&2; exit 1; }
busybox=$(command -v busybox) || { echo "busybox is missing: apt-get install busybox-static" >&2; exit 1; }
if ldd "$busybox" >/dev/null 2>&1; then echo "busybox is not static: apt-get install busybox-static" >&2; exit 1; fi

kernel_files
mkdir -p "$root"/usr/{bin,sbin,lib,lib64} "$root"/{proc,sys,dev,run,tmp,mnt,etc,root,var/lib,var/log,job}
for directory in bin sbin lib lib64; do ln -s "usr/$directory" "$root/$directory"; done
ln -s /run "$root/var/run"
ln -s /run/lock "$root/var/lock"
copy_tools
copy_bacula
copy_udev
for library in libnss_files.so.2 libgcc_s.so.1 libkmod.so.2; do # opened by name at run time, so ldd does not see them
  if [ -e "$libraries/$library" ]; then mkdir -p "$root$libraries"; cp -L "$libraries/$library" "$root$libraries/"; fi
done
cp "$busybox" "$root/usr/bin/busybox"
"$busybox" --list | while read -r applet; do
  [ -e "$root/usr/bin/$applet" ] || [ -e "$root/usr/sbin/$applet" ] || ln -s busybox "$root/usr/bin/$applet"
done
settings
module_files "${modules[@]}" | while read -r file; do
  directory=$root/usr/$(dirname "${file#"$out"/kernel/}")
  mkdir -p "$directory"
  strip --strip-debug -o "$directory/$(basename "$file")" "$file"
done
cp kernel/lib/modules/"$version"/modules.{builtin,order,builtin.modinfo} "$root/usr/lib/modules/$version/"
depmod -b "$root/usr" "$version"
initial_ramdisk
second_stage
truncate -s 400M root.img
mke2fs -q -F -t ext4 -O ^has_journal,^metadata_csum -E root_owner=0:0,lazy_itable_init=1 -d "$root" root.img
rm -rf kernel bacula initrd root
