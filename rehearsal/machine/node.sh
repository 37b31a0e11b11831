#!/bin/bash
# Boots one instance: own namespaces, own root file system, then its systemd as process 1.
#
# Runs in the instance's folder, which holds `base` (empty, for the image), `disk/upper`,
# `disk/work`, `root` (empty), `sys` (empty), `hw/hypervisor/uuid`, `boot_id`, `empty`, `layers`
# (a line for each folder that lies above the image, the topmost first) and `layer0`, `layer1`, …
# (empty, for these).
# Only names relative to it are given to overlayfs: a colon or comma in a path would end an option.
#
#   node.sh enter NETNS NEWS CONSOLE IMAGE CGROUP[:CGROUP…] [SOURCE TARGET]…
#   node.sh boot NEWS CONSOLE IMAGE [SOURCE TARGET]…        (by itself, inside the namespaces)
#
# NEWS is the open descriptor that takes the process id of the instance's process 1, as this
# machine counts.
set -euo pipefail

own_proc() {
  mount -t proc -o nosuid,nodev,noexec proc root/proc
  # Kernel settings belong to the outer machine, but for those of the network namespace.
  mount --bind root/proc/sys root/proc/sys
  mount --bind root/proc/sys/net root/proc/sys/net
  mount -o remount,bind,ro root/proc/sys
  [ ! -e root/proc/sysrq-trigger ] || mount --bind empty root/proc/sysrq-trigger
  # The kernel has one boot id; every boot of an instance must have its own.
  mount --bind boot_id root/proc/sys/kernel/random/boot_id
}

own_sys() {
  # A container has no DMI. An uuid that begins with ec2 is how cloud-init knows EC2 then.
  mount -t sysfs -o ro,nosuid,nodev,noexec sysfs sys
  mount -t overlay -o ro,lowerdir=hw:sys overlay root/sys
  mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 root/sys/fs/cgroup
}

# Device nodes of its own and never bind mounts of the outer ones: systemd and agetty change owner
# and mode of their console, which would be the outer machine's /dev/null.
own_dev() {
  local console=$1 device
  mount -t tmpfs -o nosuid,mode=755 tmpfs root/dev
  mkdir root/dev/pts root/dev/shm root/dev/mqueue
  for device in null:3 zero:5 full:7 random:8 urandom:9; do
    mknod -m 666 "root/dev/${device%:*}" c 1 "${device#*:}"
  done
  mknod -m 666 root/dev/tty c 5 0
  mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts root/dev/pts
  mount -t tmpfs -o nosuid,nodev,mode=1777 tmpfs root/dev/shm
  mount -t mqueue mqueue root/dev/mqueue
  ln -s pts/ptmx root/dev/ptmx
  ln -s /proc/self/fd root/dev/fd
  ln -s /proc/self/fd/0 root/dev/stdin
  ln -s /proc/self/fd/1 root/dev/stdout
  ln -s /proc/self/fd/2 root/dev/stderr
  : >root/dev/console
  mount --bind "$console" root/dev/console
}

# What is bound in is for every user of the instance; a home folder on the way (an interpreter
# below /root, say) is closed to all but its owner.
bind_read_only() {
  local above
  while [ $# -gt 0 ]; do
    mkdir -p "root$2"
    above=$(dirname "$2")
    while [ "$above" != / ]; do
      chmod a+x "root$above"
      above=$(dirname "$above")
    done
    mount --bind "$1" "root$2"
    mount -o remount,bind,ro,nosuid,nodev "root$2"
    shift 2
  done
}

enter() {
  local netns=$1 news=$2 console=$3 image=$4 groups=$5 group
  shift 5
  local -a folders
  IFS=: read -r -a folders <<<"$groups"
  for group in "${folders[@]}"; do
    echo $$ >"$group/cgroup.procs"
  done
  exec nsenter --net="/run/netns/$netns" \
    unshare --pid --fork --kill-child=KILL --mount --propagation private --uts --ipc --cgroup \
    bash "$0" boot "$news" "$console" "$image" "$@"
}

boot() {
  local news=$1 console=$2 image=$3 init layer lower="" number=0
  shift 3
  # /proc is still the outer one here, and this read is done by the shell itself.
  read -r init _ </proc/self/stat
  mount --bind "$image" base
  # An instance of an earlier version has no such file.
  [ -e layers ] || : >layers
  while read -r layer; do
    mount --bind "$layer" "layer$number"
    lower="${lower}layer$number:"
    number=$((number + 1))
  done <layers
  mount -t overlay -o "lowerdir=${lower}base,upperdir=disk/upper,workdir=disk/work" overlay root
  own_proc
  own_sys
  own_dev "$console"
  mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs root/run
  bind_read_only "$@"
  hostname localhost
  cd root
  pivot_root . mnt
  umount -l /mnt
  echo "$init" >&"$news"
  exec {news}>&-
  exec chroot . /usr/bin/env -i \
    container=ec2-node PATH=/usr/sbin:/usr/bin:/sbin:/bin TERM=linux \
    setpriv --bounding-set -sys_module,-sys_time,-sys_rawio,-mac_admin,-mac_override,-syslog,-wake_alarm,-block_suspend \
    /lib/systemd/systemd
}

"$@"
