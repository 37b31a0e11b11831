#!/bin/sh
# Beside the engine, which is shared by all checkouts; the host itself is the checkout's Python.
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
if [ -z "${MOE_REHEARSAL_PYTHON:-}" ]; then
    echo 'pulumi-language-python: MOE_REHEARSAL_PYTHON is not set; run: eval "$(make -s env)"' >&2
    exit 1
fi
exec "$MOE_REHEARSAL_PYTHON" -P -m rehearsal.engine.language_host \
    --executor "$here/pulumi-language-python-exec" --engine-process "$PPID" "$@"
