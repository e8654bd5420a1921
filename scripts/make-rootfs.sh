#!/usr/bin/env bash
# Makes the root filesystem that Python tasks run in, and prints the path of its rootfs.toml.
# A no-op when it is there. Debian 12 by mmdebstrap where it is (or where apt may install it), else
# a copy of the host's own Python; pytest from pinned wheels in both. See `rootfs.toml` for which.
#
#   scripts/make-rootfs.sh            make it once
#   ASSAY_ROOTFS_FROM=host ...        copy the host's Python even where mmdebstrap is
set -euo pipefail
here=$(dirname "$0")
. "$here/wheels.sh"

root=$(cache_root)/rootfs
dest=$root/python
if [ -e "$dest/rootfs.toml" ]; then
    echo "$dest/rootfs.toml"
    exit
fi

umask 022
mkdir -p "$root"
tmp=$(mktemp -d "$root/python.XXXXXX")
trap 'chmod -R u+w "$tmp" 2>/dev/null || true; rm -rf "$tmp"' EXIT
chmod 755 "$tmp"
tree=$tmp/tree
mkdir "$tree" "$tmp/wheels"

cat >"$tmp/pytest.txt" <<'REQUIREMENTS'
pytest==8.4.2 --hash=sha256:872f880de3fc3a5bdc88a11b39c9710c3497a547cfa9320bc3c5e62fbf272e79
iniconfig==2.3.1 --hash=sha256:9121e2c1fdb355232495be3194c8dfe87ccc2d5dee45947b78e68f499790d7a7
packaging==26.3 --hash=sha256:d7193f7c8e4e93f444fde0262bf90af30e16fa0ad0ad44cb553c87339b23cd1c
pluggy==1.7.0 --hash=sha256:7dd7b0d8832ba3cb632c306926ded123429211b83641b35dc5c41ad2d34f9bec
pygments==2.21.0 --hash=sha256:2363c69b61c4a97c838da3b130dcd6468f4848992b21a82f2a63ec34377137d9
REQUIREMENTS

# Unpacks a minimal Debian 12 with Python into $tree; no maintainer script runs.
from_debian() {
    local mode=root packages keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    packages=python3,bash,dash,coreutils,sed,grep,findutils,diffutils,libc-bin,base-files,netbase,tzdata
    if ! command -v mmdebstrap >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "rootfs: installing mmdebstrap" >&2
        { apt-get update -qq && apt-get install -qq -y --no-install-recommends mmdebstrap debian-archive-keyring; } \
            >/dev/null 2>&1 || true
    fi
    command -v mmdebstrap >/dev/null || return 1
    [ -e "$keyring" ] || return 1
    [ "$(id -u)" = 0 ] || mode=unshare
    echo "rootfs: unpacking Debian 12 with Python 3.11 (60 MB, once)" >&2
    mmdebstrap --quiet --mode="$mode" --variant=extract --include="$packages" --keyring="$keyring" \
        --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
        bookworm "$tmp/debian.tar" "${ASSAY_DEBIAN_MIRROR:-http://deb.debian.org/debian}" >"$tmp/log" 2>&1 ||
        { tail -n 5 "$tmp/log" >&2; return 1; }
    tar --extract --file="$tmp/debian.tar" --directory="$tree" --no-same-owner --delay-directory-restore \
        --exclude='./dev/*' --exclude='./usr/share/doc/*' --exclude='./usr/share/man/*' \
        --exclude='./usr/share/locale/*' --exclude='./usr/share/info/*' --exclude='./usr/share/bug' \
        --exclude='./usr/share/lintian' --exclude='./usr/share/pixmaps' --exclude='./usr/share/applications' \
        --exclude='./var/cache/*' --exclude='./var/lib/apt/*' --exclude='./var/lib/dpkg/*' --exclude='./var/log/*' \
        --exclude='./usr/lib/python3.11/test' --exclude='./usr/lib/python3.11/idlelib' \
        --exclude='./usr/lib/x86_64-linux-gnu/gconv' --exclude='./usr/lib/x86_64-linux-gnu/perl*'
    rm "$tmp/debian.tar"
    source_name="Debian 12 by mmdebstrap"
    site=usr/lib/python3/dist-packages
}

# Copies the host's Python, a shell, the coreutils and the libraries they need into $tree.
from_host() {
    echo "rootfs: copying the host's Python (no mmdebstrap for Debian 12 here)" >&2
    site=$(python3 -I "$here/copy-host-python.py" "$tree") || fail "cannot copy the host's Python"
    source_name="the host's $(python3 -V)"
}

if [ "${ASSAY_ROOTFS_FROM:-}" = host ] || ! from_debian; then
    chmod -R u+w "$tree" && rm -rf "$tree" && mkdir "$tree"
    from_host
fi

download_wheels "$tmp/pytest.txt" "$tmp/wheels"
mkdir -p "$tree/$site" "$tree"/{proc,dev,tmp,sys,run,work,etc,home,root,var/tmp}
python3 -I - "$tmp/wheels" "$tree/$site" <<'PYTHON'
import pathlib, sys, zipfile

for wheel in sorted(pathlib.Path(sys.argv[1]).glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(sys.argv[2])
PYTHON

printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'assay:x:1000:1000:assay:/tmp:/bin/sh' \
    'nobody:x:65534:65534:nobody:/nonexistent:/bin/false' >"$tree/etc/passwd"
printf '%s\n' 'root:x:0:' 'assay:x:1000:' 'nogroup:x:65534:' >"$tree/etc/group"
printf '%s\n' 'passwd: files' 'group: files' 'hosts: files' >"$tree/etc/nsswitch.conf"
printf '%s\n' '127.0.0.1 localhost' '::1 localhost' >"$tree/etc/hosts"
echo assay >"$tree/etc/hostname"
rm -f "$tree"/etc/{resolv.conf,machine-id,shadow,gshadow,mtab}
# Nothing inside may gain privileges by its mode bits, and every user may read everything.
chmod -R u+rwX,go+rX,go-w,a-st "$tree"

inside() {
    if [ "$(id -u)" = 0 ]; then chroot "$tree" "$@"; else unshare --user --map-root-user chroot "$tree" "$@"; fi
}
# Without its cache the dynamic linker looks for each library in twenty places.
if inside /sbin/ldconfig 2>/dev/null; then rm -rf "$tree/var/cache/ldconfig"; fi
# The image is read-only, so its bytecode is made now; unchecked, so no source file is looked at.
find "$tree" -name __pycache__ -prune -exec rm -rf {} +
PYTHONHASHSEED=0 LC_ALL=C inside /usr/bin/python3 -I -W ignore - <<'PYTHON' >&2 || fail "the new root filesystem's Python doesn't start"
import compileall, py_compile, sys, sysconfig

mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
folders = {sysconfig.get_path("stdlib"), *(p for p in sys.path if p.endswith(("-packages", "lib-dynload")))}
for folder in sorted(folders):
    compileall.compile_dir(folder, quiet=2, invalidation_mode=mode)
PYTHON

version=$(inside /usr/bin/python3 -I -c 'import platform; print(platform.python_version())')
pytest=$(inside /usr/bin/python3 -I -c 'import pytest; print(pytest.__version__)')
digest=$(python3 -I "$here/tree-digest.py" "$tree")
cat >"$tmp/rootfs.toml" <<TOML
# Written by scripts/make-rootfs.sh. The digest covers paths, modes and contents, but nothing that is
# made from them (bytecode, ld.so.cache).
path = "$dest/tree"
digest = "$digest"
python = "$version"
pytest = "$pytest"
source = "$source_name"
TOML
rm -rf "$tmp/wheels" "$tmp/pytest.txt" "$tmp/log"
# Whoever comes second finds it in place: the rename fails, and that is fine.
mv -T "$tmp" "$dest" 2>/dev/null || [ -e "$dest/rootfs.toml" ] || fail "cannot write $dest"
echo "$dest/rootfs.toml"
