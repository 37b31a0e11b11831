# One striped volume over local disks that are bare, or that carry nothing but this volume or a part
# of it: after a reboot, or where an earlier run was killed. LVM and mkfs are asked without --force
# on purpose: a disk that carries another signature makes them refuse.
type_of() { blkid --probe --output value --match-tag TYPE "$1" || true; }

for disk in $DISKS; do
  type="$(type_of "$disk")"
  if [[ -n "$type" && "$type" != LVM2_member ]]; then die "$disk carries data: it is not touched" 73; fi
done
# After a reboot no package index is asked.
if ! command -v vgcreate >/dev/null; then apt_install lvm2; fi
for disk in $DISKS; do
  if [[ -z "$(type_of "$disk")" ]]; then continue; fi
  # A disk that no group has taken yet holds no volume, so nothing of anybody.
  group="$(pvs --noheadings --options vg_name "$disk" | tr -d '[:space:]')"
  if [[ -n "$group" && "$group" != "$GROUP" ]]; then
    die "$disk carries data of the volume group $group: it is not touched" 73
  fi
done
device="/dev/$GROUP/$VOLUME"
if ! vgs "$GROUP" >/dev/null 2>&1; then
  for disk in $DISKS; do
    if ! pvs "$disk" >/dev/null 2>&1; then pvcreate "$disk" </dev/null; fi
  done
  # shellcheck disable=SC2086 # a list of devices without blanks
  vgcreate "$GROUP" $DISKS
fi
if ! lvs "$GROUP/$VOLUME" >/dev/null 2>&1; then
  lvcreate --stripes "$COUNT" --stripesize 256k --extents 100%FREE --name "$VOLUME" "$GROUP" </dev/null
fi
vgchange --activate y "$GROUP"
# mkfs writes the superblock last: a file system that was cut has no type yet.
if [[ -z "$(type_of "$device")" ]]; then
  mkfs.ext4 -q -m 0 -E lazy_itable_init=1,lazy_journal_init=1 "$device"
fi
mkdir -p "$MOUNT"
mount -o noatime,discard "$device" "$MOUNT"
