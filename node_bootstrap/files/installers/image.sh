# The container's image: pulled, or where vLLM publishes none with EFA, built on its plain one.
for attempt in 1 2 3 4 5; do
  if docker image inspect "$BASE" >/dev/null 2>&1 || docker pull --quiet "$BASE" >&2; then break; fi
  if ((attempt == 5)); then die "$BASE can't be pulled: see above" 69; fi
  sleep $((attempt * 5))
done
if [[ "$IMAGE" != "$BASE" ]]; then
  mkdir -p "$WORK/image"
  fetch_signed "$EFA_URL" "$EFA_SHA256" "$EFA_SIGNER" "$WORK/image/$EFA_ARCHIVE"
  printf '%s\n' "$DOCKERFILE" >"$WORK/image/Dockerfile"
  docker build --quiet --network host --tag "$IMAGE" "$WORK/image" >&2
fi
