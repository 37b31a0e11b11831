# DeepEP as a wheel: against the environment's torch, this NVSHMEM and NCCL, for these GPUs.
mkdir -p "$WORK" "$WHEELS"
index="$NVSHMEM_URL/redistrib_$NVSHMEM_VERSION.json"
fetch "$index" "" "$WORK/nvshmem-$NVSHMEM_VERSION.json"
entry="$("$PYTHON" -c '
import json, sys
with open(sys.argv[1]) as index:
    entry = json.load(index)["libnvshmem"][sys.argv[2]]["cuda" + sys.argv[3]]
print(entry["relative_path"], entry["sha256"])
' "$WORK/nvshmem-$NVSHMEM_VERSION.json" "linux-$ARCHITECTURE" "$CUDA_MAJOR")"
read -r path sha256 <<<"$entry"
fetch "$NVSHMEM_URL/$path" "$sha256" "$WORK/nvshmem.tar.xz"
unpack "$WORK/nvshmem.tar.xz" "$WORK/nvshmem"
checkout "$SOURCE" "$COMMIT" "$WORK/DeepEP"
cd "$WORK/DeepEP"
export NVSHMEM_DIR="$WORK/nvshmem" TORCH_CUDA_ARCH_LIST="$CUDA_ARCHITECTURES" CUDA_HOME
rm -rf "$WORK/wheels.new"
"$PYTHON" -m pip wheel --no-input --disable-pip-version-check --no-build-isolation --no-deps \
  --wheel-dir "$WORK/wheels.new" .
mv -f "$WORK/wheels.new"/*.whl "$WHEELS/"
