# GDRCopy: the gdrdrv module for the running kernel (through DKMS, so a new kernel has it too) and
# its library.
mkdir -p "$WORK"
fetch "$URL" "$SHA256" "$WORK/gdrcopy-$VERSION.tar.gz"
unpack "$WORK/gdrcopy-$VERSION.tar.gz" "$WORK/gdrcopy"
apt_install build-essential devscripts debhelper fakeroot pkg-config dkms check \
  "linux-headers-$(uname -r)"
cd "$WORK/gdrcopy/packages"
CUDA="$CUDA_HOME" ./build-deb-packages.sh
export DEBIAN_FRONTEND=noninteractive
dpkg --install ./gdrdrv-dkms_*.deb ./libgdrapi_*.deb
echo gdrdrv >/etc/modules-load.d/moe-gdrdrv.conf
modprobe gdrdrv
