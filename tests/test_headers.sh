#!/usr/bin/env bash
# Every public header compiles alone: as C99, as C11 and as C++11, with all warnings as errors; twice in one file too.
set -euo pipefail
CC=${CC:-cc} CXX=${CXX:-c++}
passed=0 failed=0 skipped=0

compile() { # name, command...
    if "${@:2}"; then
        passed=$((passed + 1))
    else
        echo "FAILED: $1"
        failed=$((failed + 1))
    fi
}

if ! command -v "$CXX" >/dev/null; then
    echo "skipped: headers as C++: no C++ compiler ($CXX)"
fi
for header in "$FAVOR_SOURCE"/include/favor/*.h; do
    name=favor/$(basename "$header")
    printf '#include <%s>\n#include <%s>\nint favor_header_alone;\n' "$name" "$name" >alone.c
    cp alone.c alone.cpp
    flags=(-fsyntax-only -I "$FAVOR_SOURCE/include" -Wall -Wextra -Wpedantic -Werror)
    compile "$name as C99" "$CC" -std=c99 "${flags[@]}" -Wstrict-prototypes alone.c
    compile "$name as C11" "$CC" -std=c11 "${flags[@]}" -Wstrict-prototypes alone.c
    if command -v "$CXX" >/dev/null; then
        compile "$name as C++11" "$CXX" -std=c++11 "${flags[@]}" alone.cpp
    else
        skipped=$((skipped + 1))
    fi
done
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
