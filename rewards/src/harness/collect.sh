# Runs the command of a check, and hands over the report that it leaves.
#
#   /bin/sh /assay/collect.sh stdout|both|files PATTERN COMMAND...
#
# The first line of stdin is a nonce. Descriptor 3 gets `start NONCE stdout` and what the command
# prints (`both`: on stderr, too), or `start NONCE files`, and when the command has ended, for each
# file that PATTERN names in the work tree, `file NONCE BYTES`, that many bytes and a newline; then
# `end NONCE STATUS`. What lay at PATTERN before is removed; where that fails, nothing is run. A file
# that is no regular file in the work tree is not read: `refused NONCE REASON` stands in its place.
set -u
IFS= read -r nonce
how=$1 pattern=$2
shift 2

case $how in
stdout)
    printf 'start %s stdout\n' "$nonce" >&3
    exec "$@" </dev/null >&3 3>&-
    ;;
both)
    printf 'start %s stdout\n' "$nonce" >&3
    exec "$@" </dev/null >&3 2>&1 3>&-
    ;;
esac

printf 'start %s files\n' "$nonce" >&3
refuse() {
    printf 'refused %s %s\n' "$nonce" "$1" >&3
}
# Names are expanded, and never split.
IFS=
root=$(pwd -P)
if ! rm -rf -- ./$pattern; then
    refuse 'an old one that stays'
    printf 'end %s 1\n' "$nonce" >&3
    exit 1
fi
"$@" </dev/null 3>&-
status=$?

folder=./$pattern
folder=$(cd -P -- "${folder%/*}" 2>/dev/null && pwd -P)
for file in ./$pattern; do
    if [ -L "$file" ]; then
        refuse 'a link'
        continue
    fi
    [ -e "$file" ] || continue
    case $folder/ in
    "$root"/*) ;;
    *)
        refuse 'outside the work tree'
        continue
        ;;
    esac
    if [ ! -f "$file" ] || ! bytes=$(wc -c <"$file"); then
        refuse 'no readable file'
        continue
    fi
    printf 'file %s %d\n' "$nonce" "$bytes" >&3
    cat -- "$file" >&3
    printf '\n' >&3
done
printf 'end %s %d\n' "$nonce" "$status" >&3
exit "$status"
