# What all installers share. Every function may be run again after a break at any moment.

say() { printf '%s\n' "$*" >&2; }

die() {
  say "$1"
  exit "${2:-1}"
}

# fetch URL SHA256 FILE: goes on where a cut download ended; FILE appears only once its digest is
# right. An empty SHA256 leaves the check to the caller, who must have another (a signature).
fetch() {
  local url="$1" sha256="$2" file="$3" part="$3.part" attempt code=0 found
  if [[ -f "$file" ]] && { [[ -z "$sha256" ]] || [[ "$(sha256sum "$file" | cut -d' ' -f1)" == "$sha256" ]]; }; then
    return 0
  fi
  mkdir -p "$(dirname "$file")"
  for attempt in $(seq "${FETCH_ATTEMPTS:-6}"); do
    code=0
    # curl's own --retry begins anew at the first byte, so the loop is here.
    curl --fail --silent --show-error --location --connect-timeout 10 --speed-limit 1024 \
      --speed-time 60 --continue-at - --output "$part" "$url" || code=$?
    if ((code == 0)); then break; fi
    # 33: the server has no ranges. 36: it refuses to go on. 22 with a part: 416, nothing is left.
    if ((code == 33 || code == 36 || (code == 22 && attempt > 2))); then rm -f "$part"; fi
    # 23: could not write. Trying again fills no less of the disk.
    if ((code == 23)); then die "$url: can't be written to $part: is the disk full?" 74; fi
    sleep "${FETCH_DELAY_SECONDS:-$((attempt * 2))}"
  done
  if ((code != 0)); then die "$url can't be fetched: curl ended with $code" 69; fi
  if [[ -n "$sha256" ]]; then
    found="$(sha256sum "$part" | cut -d' ' -f1)"
    if [[ "$found" != "$sha256" ]]; then
      rm -f "$part"
      die "$url has SHA-256 $found, planned is $sha256: it is not the file that was planned" 65
    fi
  fi
  mv -f "$part" "$file"
}

# fetch_signed URL SHA256 SIGNER FILE: AWS publishes no digest of its EFA installer but a signature,
# and the fingerprint of its key in the EFA guide. Without a digest FILE stays only if it is signed.
fetch_signed() (
  url="$1" sha256="$2" signer="$3" file="$4"
  fetch "$url" "$sha256" "$file"
  if [[ -n "$sha256" ]]; then return 0; fi
  keys="$(mktemp -d)"
  trap 'rm -rf "$keys"' EXIT
  fetch "${url%/*}/aws-efa-installer.key" "" "$keys/key"
  fetch "$url.sig" "" "$keys/sig"
  gpg --homedir "$keys" --batch --quiet --import "$keys/key"
  if ! gpg --homedir "$keys" --batch --status-fd 1 --verify "$keys/sig" "$file" 2>/dev/null \
    | grep -q "^\[GNUPG:\] VALIDSIG .*$signer"; then
    rm -f "$file"
    die "$url is not signed by $signer: it is not AWS' installer" 65
  fi
)

# unpack ARCHIVE FOLDER: FOLDER appears only once it is whole.
unpack() {
  local archive="$1" folder="$2"
  rm -rf "$folder" "$folder.new"
  mkdir -p "$folder.new"
  tar --extract --no-same-owner --strip-components 1 --directory "$folder.new" --file "$archive"
  mv "$folder.new" "$folder"
}

# checkout REPOSITORY COMMIT FOLDER: the commit is the digest of what is in it.
checkout() {
  local repository="$1" commit="$2" folder="$3" attempt
  if [[ "$(git -C "$folder" rev-parse HEAD 2>/dev/null || true)" != "$commit"* ]]; then
    for attempt in 1 2 3; do
      rm -rf "$folder" "$folder.new"
      if git clone --quiet --no-checkout "$repository" "$folder.new"; then break; fi
      if ((attempt == 3)); then die "$repository can't be cloned" 69; fi
      sleep $((attempt * 5))
    done
    git -C "$folder.new" -c advice.detachedHead=false checkout --quiet "$commit" \
      || die "$repository has no commit $commit" 65
    git -C "$folder.new" submodule --quiet update --init --recursive
    mv "$folder.new" "$folder"
  fi
  # A build that was cut leaves files of the one before.
  git -C "$folder" clean --quiet -ffdx
}

# pip_install OPTION... REQUIREMENT: one distribution; one with a digest is checked by it.
pip_install() {
  local requirement="${!#}" options=("${@:1:$#-1}") file
  if [[ "$requirement" == *--hash=* ]]; then options+=(--require-hashes); fi
  # Only a requirements file can hold a digest.
  file="$(mktemp)"
  printf '%s\n' "$requirement" >"$file"
  local code=0
  "$PYTHON" -m pip install --no-input --disable-pip-version-check --quiet --only-binary :all: \
    "${options[@]}" --requirement "$file" || code=$?
  rm -f "$file"
  return "$code"
}

# apt_install PACKAGE...: waits for whoever holds the lock, cloud-init and unattended upgrades.
apt_install() {
  local options=(-o DPkg::Lock::Timeout=900 -o Acquire::Retries=5 -qq -y)
  export DEBIAN_FRONTEND=noninteractive
  # A dpkg that was killed has to end its work before any other package can be installed.
  dpkg --configure -a
  apt-get "${options[@]}" update
  apt-get "${options[@]}" install --no-install-recommends "$@"
}
