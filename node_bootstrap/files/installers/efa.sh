# EFA's kernel module, libfabric and aws-ofi-nccl by AWS' own installer.
mkdir -p "$WORK"
cd "$WORK"
archive="aws-efa-installer-$VERSION.tar.gz"
fetch "$URL" "$SHA256" "$WORK/$archive"
if [[ -z "$SHA256" ]]; then
  # AWS publishes no digest but a signature, and the fingerprint of its key in the EFA guide.
  keys="$(mktemp -d)"
  trap 'rm -rf "$keys"' EXIT
  fetch "${URL%/*}/aws-efa-installer.key" "" "$keys/key"
  fetch "$URL.sig" "" "$keys/sig"
  gpg --homedir "$keys" --batch --quiet --import "$keys/key"
  if ! gpg --homedir "$keys" --batch --status-fd 1 --verify "$keys/sig" "$archive" 2>/dev/null \
    | grep -q "^\[GNUPG:\] VALIDSIG .*$SIGNER"; then
    rm -f "$archive"
    die "$URL is not signed by $SIGNER: it is not AWS' installer" 65
  fi
fi
unpack "$archive" "$WORK/installer"
cd "$WORK/installer"
options=(--yes --skip-limit-conf --disable-ngc)
if [[ "$KERNEL_MODULE" == no ]]; then options+=(--skip-kmod); fi
./efa_installer.sh "${options[@]}"
if [[ "$KERNEL_MODULE" == yes ]]; then modprobe efa; fi
