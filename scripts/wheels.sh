# Sourced by the fetch scripts: where the cache is, and how pinned wheels get into it.
# Everything fetched lies under one folder outside the clone, and nothing is fetched twice.

# The cache folder: $ASSAY_CACHE, else $XDG_CACHE_HOME/assay, else ~/.cache/assay.
cache_root() {
    printf '%s\n' "${ASSAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/assay}"
}

fail() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# Prints the command that runs pip: the machine's own, else one in a throw-away venv under $1.
find_pip() {
    if python3 -m pip --version >/dev/null 2>&1; then
        echo python3 -m pip
    elif python3 -m venv "$1/venv" >/dev/null 2>&1; then
        echo "$1/venv/bin/python" -m pip
    else
        fail "needs pip: install python3-pip or python3-venv, then run this again"
    fi
}

# Downloads the wheels of requirements file $1 into folder $2. The file pins version and sha256,
# so pip refuses any other bytes. Works with every Python 3: the wheels are unpacked, not installed.
# They are those for Python $3, or 3.11.
download_wheels() {
    local pip python=${3:-3.11}
    pip=$(find_pip "$2")
    $pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
        --only-binary=:all: --implementation cp --python-version "$python" --abi "cp${python/./}" --abi none \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform any \
        --dest "$2" --requirement "$1" >&2 ||
        fail "cannot download the wheels of $(basename "$1")"
}
