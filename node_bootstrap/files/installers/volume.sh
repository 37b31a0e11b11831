# One striped volume over bare local disks. LVM and mkfs are asked without --force on purpose: a
# disk that carries a signature makes them refuse.
for disk in $DISKS; do
  if [[ -n "$(blkid --probe --output value --match-tag TYPE "$disk" || true)" ]]; then
    die "$disk carries data: it is not touched" 73
  fi
done
apt_install lvm2
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
if [[ -z "$(blkid --probe --output value --match-tag TYPE "$device" || true)" ]]; then
  mkfs.ext4 -q -m 0 -E lazy_itable_init=1,lazy_journal_init=1 "$device"
fi
mkdir -p "$MOUNT"
mount -o noatime,discard "$device" "$MOUNT"
