# Another NCCL than torch pins, after torch: pip would refuse the pair.
"$PYTHON" -m pip install --no-input --disable-pip-version-check --quiet --no-deps \
  "nvidia-nccl-cu$CUDA_MAJOR==$VERSION"
