#!/usr/bin/env bash
# Builds the four apps of the release before this one into target/previous/bin:
# of the last release tag, or of the commit before when there is none.
# `make chaos` rolls from them to the present ones under load.
set -euo pipefail
cd "$(dirname "$0")/.."

rev=$(git describe --tags --abbrev=0 --match 'v[0-9]*' HEAD^ 2>/dev/null \
    || git rev-parse --verify --quiet HEAD^) \
    || { echo "SKIPPED: there is no earlier commit to build" >&2; exit 0; }
rev=$(git rev-parse "$rev^{commit}")
folder=target/previous
if [ "$(cat "$folder/revision" 2>/dev/null || true)" = "$rev" ]; then
    echo "previous: $rev is there ($folder/bin)"
    exit 0
fi
rm -rf "$folder"
mkdir -p "$folder/source" "$folder/bin"
# -m: as new as they are here, or cargo would take them for built.
git archive "$rev" | tar -x -m -C "$folder/source"
apps=(gateway router model-proxy retrieval)
echo "previous: building $rev"
# In the same target folder, so that the dependencies are there; from here, so that
# .cargo/config.toml counts once.
cargo build --locked --manifest-path "$folder/source/Cargo.toml" --target-dir target \
    "${apps[@]/#/--package=}"
for app in "${apps[@]}"; do
    cp "target/debug/$app" "$folder/bin/"
done
# The present ones take their place again; nothing of them is compiled anew.
cargo build --locked "${apps[@]/#/--package=}"
rm -rf "$folder/source"
echo "$rev" > "$folder/revision"
