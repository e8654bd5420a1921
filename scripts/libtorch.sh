#!/usr/bin/env bash
# Sets up the CPU libtorch that `tch` 0.24 needs, from three pinned wheels, and prints its folder.
# A no-op when it is there. Usage: LIBTORCH=$(scripts/libtorch.sh) cargo build -p assay-trainer
#
# libtorch_cpu.so of the stock wheel needs just two CUDA libraries (cudart and cupti), also where
# there is no GPU. Without libtorch_cuda.so in the folder nothing else of CUDA is linked.
set -euo pipefail
. "$(dirname "$0")/wheels.sh"

root=$(cache_root)
dest=$root/libtorch-2.11.0
if [ -e "$dest/build-version" ]; then
    echo "$dest"
    exit
fi
[ "$(uname -sm)" = "Linux x86_64" ] || fail "knows Linux on x86_64 alone, not $(uname -sm); set LIBTORCH to a libtorch 2.11.0 of your own"

mkdir -p "$root"
tmp=$(mktemp -d "$root/libtorch.XXXXXX")
trap 'rm -rf "$tmp"' EXIT

cat >"$tmp/libtorch.txt" <<'REQUIREMENTS'
torch==2.11.0 --hash=sha256:7aa2f9bbc6d4595ba72138026b2074be1233186150e9292865e04b7a63b8c67a
nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548
nvidia-cuda-cupti==13.0.85 --hash=sha256:4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8
REQUIREMENTS
echo "libtorch: downloading torch 2.11.0 (550 MB, once)" >&2
download_wheels "$tmp/libtorch.txt" "$tmp"

python3 - "$tmp" <<'PYTHON'
import pathlib, shutil, sys, zipfile

root = pathlib.Path(sys.argv[1])
libraries = {
    "torch/lib/libc10.so",
    "torch/lib/libtorch_cpu.so",
    "torch/lib/libgomp.so.1",
    "nvidia/cu13/lib/libcudart.so.13",
    "nvidia/cu13/lib/libcupti.so.13",
}
missing = set(libraries)
for wheel in root.glob("*.whl"):
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            if name in libraries:
                target = root / "unpacked/lib" / name.rsplit("/", 1)[1]
                missing.discard(name)
            elif name.startswith("torch/include/") and not name.endswith("/"):
                target = root / "unpacked" / name.removeprefix("torch/")
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(name) as source, open(target, "wb") as out:
                shutil.copyfileobj(source, out)
if missing:
    sys.exit(f"libtorch.sh: not in the wheels: {', '.join(sorted(missing))}")
PYTHON
ln -s libtorch_cpu.so "$tmp/unpacked/lib/libtorch.so"
ln -s libgomp.so.1 "$tmp/unpacked/lib/libgomp.so"
echo 2.11.0 >"$tmp/unpacked/build-version"
# Whoever comes second finds the folder in place: the rename fails, and that is fine.
mv -T "$tmp/unpacked" "$dest" 2>/dev/null || [ -e "$dest/build-version" ] || fail "cannot write $dest"
echo "$dest"
