# EFA's kernel module, libfabric and aws-ofi-nccl by AWS' own installer.
mkdir -p "$WORK"
cd "$WORK"
archive="aws-efa-installer-$VERSION.tar.gz"
fetch_signed "$URL" "$SHA256" "$SIGNER" "$WORK/$archive"
unpack "$archive" "$WORK/installer"
cd "$WORK/installer"
options=(--yes --skip-limit-conf --disable-ngc)
if [[ "$KERNEL_MODULE" == no ]]; then options+=(--skip-kmod); fi
./efa_installer.sh "${options[@]}"
if [[ "$KERNEL_MODULE" == yes ]]; then modprobe efa; fi
