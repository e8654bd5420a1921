# Tells in TAP whether `slug.sh` is right. Each title has a process of its own, whose output is
# compared here.
failed=0 number=0

# holds NAME [TITLE SLUG]...
holds() {
    number=$((number + 1)) name=$1 wrong=
    shift
    while [ $# -gt 0 ]; do
        slug=$(sh slug.sh "$1" </dev/null 2>/dev/null)
        [ "$slug" = "$2" ] || wrong="$wrong $1"
        shift 2
    done
    if [ -z "$wrong" ]; then
        echo "ok $number - $name"
    else
        failed=1
        printf 'not ok %d - %s\n  ---\n  wrong: %s\n  ...\n' $number "$name" "$wrong"
    fi
}

echo 1..4
holds 'letters become small' Rome rome ABC abc
holds 'digits stay' '42' 42 'A1' a1
holds 'runs of other characters become one dash' 'a - b' a-b 'What?! Why' what-why 'a_&_b' a-b
holds 'no dash at either end' 'Why?' why '  a' a '--a b--' a-b
exit $failed
