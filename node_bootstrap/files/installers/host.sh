# The host as GPUs and EFA want it; what is written here is compared by the step before.
for unit in apt-daily.timer apt-daily-upgrade.timer unattended-upgrades.service; do
  # Not every distribution has all three.
  if systemctl cat "$unit" >/dev/null 2>&1; then systemctl mask --now "$unit"; fi
done
now=()
if [[ "$START" == yes ]]; then now=(--now); fi
if [[ "$FABRIC_MANAGER" == yes ]]; then
  driver="$(modinfo --field version nvidia)"
  if [[ "$(nv-fabricmanager --version 2>/dev/null | grep -oE '[0-9]+\.[0-9.]+' | head -n 1)" != "$driver" ]]; then
    apt_install "nvidia-fabricmanager-${driver%%.*}=$driver-*"
  fi
  systemctl enable "${now[@]}" nvidia-fabricmanager.service
fi
systemctl enable "${now[@]}" nvidia-persistenced.service
sysctl --quiet --load "$SYSCTL"
if ! command -v chronyc >/dev/null; then apt_install chrony; fi
systemctl enable "${now[@]}" chrony.service
if [[ "$START" == yes ]]; then
  chronyc reload sources >/dev/null
  # Until the clock has been set: 30 looks, 2 s apart.
  chronyc waitsync 30 0.5 0 2 >/dev/null || die "the clock follows no time source: see chronyc sources" 69
fi
if [[ "$NEW_OPTIONS" == yes ]]; then update-initramfs -u; fi
