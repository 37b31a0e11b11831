# UCCL-EP and its deep_ep wrapper as wheels: DeepEP's first interface, over EFA.
mkdir -p "$WORK" "$WHEELS"
apt_install build-essential libibverbs-dev libnl-3-dev libnl-route-3-dev libnuma-dev python3-dev
rm -rf "$WORK/nanobind"
pip_install --no-deps --target "$WORK/nanobind" "$NANOBIND"
checkout "$SOURCE" "$COMMIT" "$WORK/uccl"
export PER_EXPERT_BATCHING=1 TORCH_CUDA_ARCH_LIST="$CUDA_ARCHITECTURES" CUDA_HOME
# A wheel of `ep` would have its library beside the package that the wrapper imports it from:
# upstream puts it into that package, and makes a wheel of the whole.
(
  cd "$WORK/uccl/ep"
  export INSTALL_DIR="$WORK/uccl/uccl" PYTHONPATH="$WORK/nanobind${PYTHONPATH:+:$PYTHONPATH}"
  "$PYTHON" setup.py install >&2
)
rm -rf "$WORK/wheels.new"
for part in . ep/deep_ep_wrapper; do
  (cd "$WORK/uccl/$part" && "$PYTHON" -m pip wheel --no-input --disable-pip-version-check \
    --no-build-isolation --no-deps --wheel-dir "$WORK/wheels.new" .)
done
mv -f "$WORK/wheels.new"/*.whl "$WHEELS/"
