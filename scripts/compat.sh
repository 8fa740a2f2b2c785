#!/usr/bin/env bash
# `make compat`: do callers of the last release still understand the contract?
# Compares proto/ with the last release tag (v1.2.3) and fails on what breaks
# them. Before the first tag it compares with the commit before and only reports.
# Needs Node with npm, which fetch `buf` as pinned in compat/package-lock.json.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'compat: %s\n' "$*"; }
skip() { printf 'SKIPPED: compat: %s\n' "$*" >&2; exit 0; }

command -v node >/dev/null 2>&1 && command -v npm >/dev/null 2>&1 || skip "no Node with npm here"
digest=$(sha256sum scripts/compat/package-lock.json | cut -c1-12)
tools=target/compat-$digest
buf=$tools/node_modules/@bufbuild/buf-linux-x64/bin/buf
if [ ! -e "$tools/installed" ]; then
    rm -rf "$tools"
    mkdir -p "$tools"
    cp scripts/compat/{package.json,package-lock.json,.npmrc} "$tools"
    (cd "$tools" && npm ci --silent --no-audit --no-fund --ignore-scripts) || skip "npm cannot fetch buf"
    "$buf" --version >/dev/null 2>&1 || skip "there is no buf for this platform"
    touch "$tools/installed"
fi

tag=$(git describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null || true)
before=${tag:-$(git rev-parse --verify --quiet HEAD^ || true)}
[ -n "$before" ] || skip "there is neither a release tag nor an earlier commit to compare with"

# Both sides as plain folders: a worktree has no .git that buf could read.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
git archive "$before" proto | tar -x -C "$work"
findings=$("$buf" breaking proto --against "$work/proto" 2>&1) && code=0 || code=$?
case $code in
    0) say "nothing that callers of ${tag:-the commit before} rely on has changed"; exit 0 ;;
    100) ;; # what buf has found
    *) printf '%s\n' "$findings" >&2; say "buf failed (exit code $code)" >&2; exit 1 ;;
esac
printf '%s\n' "$findings"
[ -n "$tag" ] || { say "reported only: there is no release tag (v1.2.3) yet"; exit 0; }
say "this breaks callers of $tag: reserve what goes, add instead of changing" >&2
exit 1
