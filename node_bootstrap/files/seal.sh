#!/bin/sh
# Takes away what is this node's own, so that its disk can be the image of others, and powers off.
# What stays: installed software, images of containers, the bootstrap archive and its unpacked form.
set -eu
trap '[ $? -eq 0 ] || echo "moe-seal: this node is not fit to be an image, it stays up"' EXIT

echo "moe-seal: clearing this node"
systemctl stop moe-node.service
# User data writes the units anew. Enabled here, the agent would start before user data has run.
rm -f /etc/systemd/system/moe-*.service /etc/systemd/system/moe-*.timer
find /etc/systemd/system -xtype l -name 'moe-*' -delete
rm -rf /etc/moe
find /var/lib/moe -mindepth 1 -maxdepth 1 ! -name shiv -exec rm -rf {} +

# The instance as cloud-init knows it, its network among it; the next boot is a first one.
cloud-init clean --logs --configs network
# Empty and not missing or `uninitialized`: systemd makes a new one, and does not take the boot for
# the first of all, which would enable every unit that this image has disabled.
: >/etc/machine-id
if [ -f /var/lib/dbus/machine-id ] && [ ! -L /var/lib/dbus/machine-id ]; then
  rm /var/lib/dbus/machine-id
fi
rm -f /etc/hostname /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub
rm -f /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
rm -rf /var/lib/dhcpcd/* /var/lib/dhcp/* /var/lib/systemd/network/*
if [ -d /var/lib/amazon/ssm ]; then
  systemctl stop amazon-ssm-agent.service snap.amazon-ssm-agent.amazon-ssm-agent.service || true
  rm -rf /var/lib/amazon/ssm/*
fi

# What people and registries may have left.
for home in /root /home/*; do
  rm -rf "$home/.ssh" "$home/.aws" "$home/.cache" "$home/.docker/config.json"
  rm -f "$home"/.*_history
done
rm -rf /tmp/* /var/tmp/* /var/cache/apt/archives/*.deb

# Last, for all of the above is logged.
rm -rf /var/log/journal/* /var/log/amazon/* /var/log/moe*
find /var/log -type f -exec truncate --size 0 {} +
echo "moe-seal: done, powering off"
systemctl poweroff
