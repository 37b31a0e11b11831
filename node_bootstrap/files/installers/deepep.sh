# DeepEP as a wheel: against the environment's torch, this NVSHMEM and NCCL, for these GPUs.
mkdir -p "$WORK" "$WHEELS"
rm -rf "$WORK/nvshmem" "$WORK/nvshmem.new"
pip_install --no-deps --no-compile --target "$WORK/nvshmem.new" "$NVSHMEM"
mv "$WORK/nvshmem.new/nvidia/nvshmem" "$WORK/nvshmem"
# DeepEP links the library by the name that NVIDIA's archive has, the wheel holds its soname alone.
ln -sf libnvshmem_host.so.3 "$WORK/nvshmem/lib/libnvshmem_host.so"
checkout "$SOURCE" "$COMMIT" "$WORK/DeepEP"
cd "$WORK/DeepEP"
# CUDA 13 keeps CCCL, which NVSHMEM's headers include, where only nvcc looks by itself.
if [[ -d "$CUDA_HOME/include/cccl" ]]; then
  export CPATH="$CUDA_HOME/include/cccl${CPATH:+:$CPATH}"
fi
export NVSHMEM_DIR="$WORK/nvshmem" TORCH_CUDA_ARCH_LIST="$CUDA_ARCHITECTURES" CUDA_HOME
rm -rf "$WORK/wheels.new"
"$PYTHON" -m pip wheel --no-input --disable-pip-version-check --no-build-isolation --no-deps \
  --wheel-dir "$WORK/wheels.new" .
mv -f "$WORK/wheels.new"/*.whl "$WHEELS/"
