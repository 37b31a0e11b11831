# The host as GPUs and EFA want it; what is written here is compared by the step before.
for unit in apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service; do
  # Not every distribution has all three.
  if systemctl cat "$unit" >/dev/null 2>&1; then systemctl mask --now "$unit"; fi
done
if [[ "$FABRIC_MANAGER" == yes ]]; then
  driver="$(modinfo --field version nvidia)"
  if [[ "$(nv-fabricmanager --version 2>/dev/null | grep -oE '[0-9]+\.[0-9.]+' | head -n 1)" != "$driver" ]]; then
    apt_install "nvidia-fabricmanager-${driver%%.*}=$driver-*"
  fi
  systemctl enable --now nvidia-fabricmanager.service
fi
systemctl enable --now nvidia-persistenced.service
sysctl --quiet --load "$SYSCTL"
if [[ "$NEW_OPTIONS" == yes ]]; then update-initramfs -u; fi
