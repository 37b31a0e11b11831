# GDRCopy: the gdrdrv module for the running kernel (through DKMS, so a new kernel has it too) and
# its library.
mkdir -p "$WORK"
apt_install git build-essential devscripts debhelper fakeroot pkg-config dkms check \
  "linux-headers-$(uname -r)"
checkout "$SOURCE" "$COMMIT" "$WORK/gdrcopy"
cd "$WORK/gdrcopy/packages"
CUDA="$CUDA_HOME" ./build-deb-packages.sh
export DEBIAN_FRONTEND=noninteractive
dpkg --install ./gdrdrv-dkms_*.deb ./libgdrapi_*.deb
echo gdrdrv >/etc/modules-load.d/moe-gdrdrv.conf
if [[ "$LOAD" == yes ]]; then modprobe gdrdrv; fi
