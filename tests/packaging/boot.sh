#!/bin/sh
# boot.sh ROOT: the Debian in that directory as a machine of its own, with systemd as its first process.
#
# It has its own processes, mounts and control groups; the network is that of this machine.
set -eu
root=$1
groups=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
if [ -z "${BOOT_INSIDE:-}" ]; then
  mkdir "$groups/$BOOT_GROUP"
  echo $$ >"$groups/$BOOT_GROUP/cgroup.procs"
  BOOT_INSIDE=yes exec unshare --mount --pid --fork --kill-child --cgroup --uts --ipc "$0" "$root"
fi
mount --make-rprivate /
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for each in null zero full random urandom tty; do
  touch "$root/dev/$each"
  mount --bind "/dev/$each" "$root/dev/$each"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mount -t tmpfs tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount --bind /etc/ssl/certs "$root/etc/ssl/certs" # of whom this machine trusts, for pip
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test chroot "$root" /lib/systemd/systemd
