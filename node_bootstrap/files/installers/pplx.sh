# PPLX kernels as a wheel: releases up to 0.16 only.
mkdir -p "$WORK" "$WHEELS"
apt_install cmake ninja-build build-essential
checkout "$SOURCE" "$COMMIT" "$WORK/pplx-kernels"
cd "$WORK/pplx-kernels"
export TORCH_CUDA_ARCH_LIST="$CUDA_ARCHITECTURES" CUDA_HOME
rm -rf "$WORK/wheels.new"
"$PYTHON" -m pip wheel --no-input --disable-pip-version-check --no-build-isolation --no-deps \
  --wheel-dir "$WORK/wheels.new" .
mv -f "$WORK/wheels.new"/*.whl "$WHEELS/"
