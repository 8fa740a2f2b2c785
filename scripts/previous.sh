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
# Cargo takes both sources for the same packages: what it built of one must look old
# to the other, whatever becomes of this build.
renew() { git ls-files -z proto services tests | xargs -0 touch; }
trap renew EXIT
echo "previous: building $rev"
# In the same target folder and with the same features, so that the dependencies are
# there; from here, so that .cargo/config.toml counts once.
cargo build --workspace --locked --manifest-path "$folder/source/Cargo.toml" --target-dir target
for app in "${apps[@]}"; do
    cp "target/debug/$app" "$folder/bin/"
done
rm -rf "$folder/source"
renew
cargo build --workspace --locked
echo "$rev" > "$folder/revision"
