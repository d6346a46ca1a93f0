#!/usr/bin/env bash
# Golden tests of the program.
#
#     tests/cli/run.sh PROGRAM [--update] [CASE...]
#
# A case is cases/NAME.sh, run in an empty directory; what it prints, with volatile values made
# constant by normalise.sed, must equal cases/NAME.txt. --update writes these files instead. In a transcript
# "$" is a command, ">" its standard output, "!" its standard error, "=" its exit code.
set -u
here=$(cd "$(dirname "$0")" && pwd)
FAVOR=$(realpath "$1")
export FAVOR
shift
update=0
if [ "${1-}" = --update ]; then
    update=1
    shift
fi
cases=("$@")
if [ ${#cases[@]} = 0 ]; then
    for file in "$here"/cases/*.sh; do
        cases+=("$(basename "$file" .sh)")
    done
fi
unset FAVOR_CPU
export LC_ALL=C
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

passed=0 failed=0 skipped=0
for name in "${cases[@]}"; do
    mkdir "$work/$name"
    (cd "$work/$name" && timeout 600 bash -c ". '$here/lib.sh' && . '$here/cases/$name.sh'") \
        >"$work/$name.raw" 2>&1
    sed -E -f "$here/normalise.sed" "$work/$name.raw" >"$work/$name.txt"
    if grep -q '^SKIP ' "$work/$name.txt"; then
        echo "SKIP $name: $(sed -n 's/^SKIP //p' "$work/$name.txt")"
        skipped=$((skipped + 1))
    elif grep '^NOT OK' "$work/$name.txt"; then
        echo "FAIL $name"
        failed=$((failed + 1))
    elif [ $update = 1 ]; then
        cp "$work/$name.txt" "$here/cases/$name.txt"
        passed=$((passed + 1))
    elif diff -u "$here/cases/$name.txt" "$work/$name.txt"; then
        echo "PASS $name"
        passed=$((passed + 1))
    else
        echo "FAIL $name"
        failed=$((failed + 1))
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
[ $failed = 0 ]
