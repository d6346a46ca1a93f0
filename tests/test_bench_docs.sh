#!/usr/bin/env bash
# make bench-docs writes a page whose sections hold their command, a table, and what it was measured with.
set -euo pipefail
passed=0 failed=0

expect() { # what, wanted, got
    if [[ $2 == "$3" ]]; then
        passed=$((passed + 1))
    else
        echo "FAILED: $1: expected $2, got $3"
        failed=$((failed + 1))
    fi
}

BENCH_QUICK=1 BENCH_DOCS=$PWD/RESULTS.md BENCH_ROWS=$PWD/rows FAVOR=$FAVOR "$FAVOR_SOURCE/tools/bench-docs" 2>log || {
    cat log
    exit 1
}
sections=$(grep -c '^## ' RESULTS.md)
expect 'sections' 11 "$sections"
expect 'commands' "$sections" "$(grep -c '^favor bench' RESULTS.md)"
expect 'tables' "$sections" "$(grep -cE '^(kind|model) +' RESULTS.md)"
expect 'machines' "$sections" "$(grep -c '^favor [0-9].* kernels ' RESULTS.md)"
expect 'rates' "$sections" "$(grep -cE '^(sgemm peak P|memory is read) on .*/s$' RESULTS.md)"
expect 'progress and lines left out' 0 "$(grep -cE '^bench [0-9]|left out' RESULTS.md || true)"
expect 'pages' "$sections" "$(cat rows/*.html | grep -c '^<section>')"
"$FAVOR" bench compare rows/attention.json rows/attention.json --fail-above 0 >same
expect 'rows to compare with' 1 "$(grep -c '^24 rows compared: 0 slower, 0 faster' same)"
echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))
