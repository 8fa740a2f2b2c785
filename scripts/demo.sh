#!/usr/bin/env bash
# `make demo`: from a clone to two cited answers. Needs Rust, a C compiler and
# Python with pip; no account, no key, no network beyond the first fetch.
set -euo pipefail
cd "$(dirname "$0")/.."

began=$SECONDS
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
need() { command -v "$1" >/dev/null 2>&1 || { echo "demo: $1 is missing: $2" >&2; exit 1; }; }
need cargo "install Rust (https://rustup.rs)"
need cc "install a C compiler (Debian: apt-get install build-essential)"
need python3 "install Python 3 with pip (Debian: apt-get install python3-pip)"
need setpriv "install util-linux"

# Says at least every ten seconds how far a long step has come.
with_progress() {
    local what=$1 log; shift
    log=$(mktemp)
    "$@" >"$log" 2>&1 &
    local pid=$! since=$SECONDS next=$((SECONDS + 8))
    while kill -0 "$pid" 2>/dev/null; do
        if [ "$SECONDS" -ge "$next" ]; then
            printf '  %s: %d s, %s\n' "$what" $((SECONDS - since)) "$(tail -n 1 "$log" | cut -c1-90)"
            next=$((SECONDS + 8))
        fi
        sleep 0.2
    done
    if ! wait "$pid"; then
        echo "demo: $what failed; the end of its output:" >&2
        tail -n 30 "$log" >&2
        rm -f "$log"
        exit 1
    fi
    rm -f "$log"
    printf '  %s: done in %d s\n' "$what" $((SECONDS - since))
}

say "Getting ready"
with_progress models scripts/fetch-models.sh "$MODELS"
with_progress build cargo build --workspace --locked
ready=$SECONDS

say "Starting one machine per app in iad"
root=$(mktemp -d)
out=$root/up.log
target/debug/flynet --root "$root/net" up --port 0 --dev-key "$root/dev.key" --models "$MODELS" >"$out" 2>&1 &
mesh=$!
stop() {
    kill -INT "$mesh" 2>/dev/null || true
    wait "$mesh" 2>/dev/null || true
    rm -rf "$root"
}
trap stop EXIT
until url=$(sed -n 's/^ready in .*: \(http:.*\)$/\1/p' "$out") && [ -n "$url" ]; do
    kill -0 "$mesh" 2>/dev/null || { cat "$out" >&2; exit 1; }
    sleep 0.1
done
sed 's/^/  /' "$out"
export SKEIN_URL=$url SKEIN_API_KEY
SKEIN_API_KEY=$(cat "$root/dev.key")

say "Ingesting the project's own documentation"
target/debug/skein ingest README.md README.zh-CN.md docs

say "How long is a token of the mesh valid?"
target/debug/skein ask "How long is a token of the mesh valid?"
say "检索服务如何保证引用可以核对？"
target/debug/skein ask "检索服务如何保证引用可以核对？"

say "Done in $((SECONDS - ready)) s after the build, $((SECONDS - began)) s in all"
cat <<'TEXT'
Go on with
  make up                              leave it running on http://127.0.0.1:8080
  target/debug/skein ingest PATH...    add your own documents
  target/debug/skein ask QUESTION      ask about them
TEXT
