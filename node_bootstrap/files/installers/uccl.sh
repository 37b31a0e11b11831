# UCCL-EP and its deep_ep wrapper as wheels: DeepEP's first interface, over EFA.
mkdir -p "$WORK" "$WHEELS"
apt_install libnuma-dev build-essential
checkout "$SOURCE" "$COMMIT" "$WORK/uccl"
export PER_EXPERT_BATCHING=1 TORCH_CUDA_ARCH_LIST="$CUDA_ARCHITECTURES" CUDA_HOME
rm -rf "$WORK/wheels.new"
for part in ep ep/deep_ep_wrapper; do
  (cd "$WORK/uccl/$part" && "$PYTHON" -m pip wheel --no-input --disable-pip-version-check \
    --no-build-isolation --no-deps --wheel-dir "$WORK/wheels.new" .)
done
mv -f "$WORK/wheels.new"/*.whl "$WHEELS/"
