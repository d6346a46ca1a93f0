#!/usr/bin/env bash
# The C example in README.md compiles and runs, and every file and command the documents name exists.
set -euo pipefail
passed=0 failed=0

fault() {
    echo "FAILED: $*"
    failed=$((failed + 1))
}

awk '/^```c$/ { inside = 1; next } /^```$/ { inside = 0 } inside' "$FAVOR_SOURCE/README.md" >body.c
{
    echo '#include <favor/favor.h>'
    echo '#include <stdio.h>'
    echo '#include <stdlib.h>'
    grep '^#include' body.c || true
    echo 'int main(void)'
    echo '{'
    grep -v '^#include' body.c | sed 's/^/    /'
    echo '    return 0;'
    echo '}'
} >readme.c
read -ra sanitize <<<"${FAVOR_SANITIZE:+-fsanitize=$FAVOR_SANITIZE}"
if ${CC:-cc} -std=c11 -Wall -Wextra -Werror -I "$FAVOR_SOURCE/include" "${sanitize[@]}" readme.c \
    -L "$FAVOR_BUILD" -lfavor -Wl,-rpath,"$FAVOR_BUILD" -o readme && ASAN_OPTIONS=detect_leaks=0 ./readme; then # it ends without tidying up
    passed=$((passed + 1))
else
    fault 'the C example of README.md'
    cat readme.c
fi

# shellcheck disable=SC2016 # the backquotes are Markdown's
path_in_backquotes='`(src|tests|tools|include|docs|examples|cmake)/[A-Za-z0-9_./+-]+`'
for document in "$FAVOR_SOURCE"/*.md "$FAVOR_SOURCE"/docs/*.md; do
    while IFS= read -r target; do
        if [[ -e $(dirname "$document")/$target ]]; then
            passed=$((passed + 1))
        else
            fault "$(basename "$document") links to $target, which is not there"
        fi
    done < <(grep -oE '\]\([^)#]+' "$document" | cut -c 3- | grep -vE '^(https?|mailto):' || true)
    while IFS= read -r target; do
        if [[ -e $FAVOR_SOURCE/$target ]]; then
            passed=$((passed + 1))
        else
            fault "$(basename "$document") names $target, which is not there"
        fi
    done < <(grep -oE "$path_in_backquotes" "$document" | tr -d '`' | grep -v NAME | sort -u)
done
# Every kind of attention stands in README.md's table.
while IFS= read -r kind; do
    if grep -qE "^\|.*\`${kind//+/\\+}\`" "$FAVOR_SOURCE/README.md"; then
        passed=$((passed + 1))
    else
        fault "README.md's table lacks attention $kind"
    fi
done < <("$FAVOR" info | awk '/^attention/ { inside = 1 } /^readers/ { inside = 0 } inside && /^  [^ ]/ { print $1 }')
echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))
