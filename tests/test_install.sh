#!/usr/bin/env bash
# What `cmake --install` leaves is enough for others: the examples are built against the installed tree through
# pkg-config (shared and static) and through the CMake package (both targets), and run.
set -euo pipefail
passed=0 failed=0

if [[ -n ${FAVOR_SANITIZE-} ]]; then
    echo 'a sanitized library is not for installing'
    exit 77
fi

step() { # name, command...
    if "${@:2}" >step.log 2>&1; then
        passed=$((passed + 1))
    else
        echo "FAILED: $1"
        cat step.log
        failed=$((failed + 1))
    fi
}

with_pkg_config() { # example, extra pkg-config options...
    local flags
    flags=$(pkg-config --cflags --libs "${@:2}" favor)
    # shellcheck disable=SC2086 # the flags are words
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror "$FAVOR_SOURCE/examples/$1.c" $flags -lm -o "$1-$#"
    "./$1-$#"
}

static_only() { # example: the static library, without the shared one in sight
    local flags
    flags=$(pkg-config --cflags --libs --static favor)
    flags=${flags//-lfavor/$libdir/libfavor.a}
    # shellcheck disable=SC2086
    ${CC:-cc} -std=c11 -Wall -Wextra -Werror "$FAVOR_SOURCE/examples/$1.c" $flags -lm -o "$1-static"
    if ldd "./$1-static" | grep libfavor; then return 1; fi
    "./$1-static"
}

with_cmake() {
    rm -rf user user-build
    mkdir user
    cat >user/CMakeLists.txt <<'TEXT'
cmake_minimum_required(VERSION 3.22)
project(user C)
find_package(favor 0.1 REQUIRED)
foreach(example attention stream)
  foreach(kind shared static)
    add_executable(${example}_${kind} ${EXAMPLES}/${example}.c)
    target_link_libraries(${example}_${kind} favor::${kind} m)
  endforeach()
endforeach()
TEXT
    cmake -S user -B user-build -G Ninja -DCMAKE_PREFIX_PATH="$prefix" -DEXAMPLES="$FAVOR_SOURCE/examples"
    cmake --build user-build
    local program
    for program in attention_shared attention_static stream_shared stream_static; do
        "user-build/$program"
    done
}

moved() { # the tree works where it is moved to
    mv "$prefix" "$prefix-moved"
    PKG_CONFIG_PATH=${PKG_CONFIG_PATH/$prefix/$prefix-moved} LD_LIBRARY_PATH=${LD_LIBRARY_PATH/$prefix/$prefix-moved} \
        with_pkg_config attention
}

rm -rf prefix prefix-moved
prefix=$PWD/prefix
step 'cmake --install' cmake --install "$FAVOR_BUILD" --prefix "$prefix"
libdir=$(dirname "$(find "$prefix" -name libfavor.a)")
export PKG_CONFIG_PATH=$libdir/pkgconfig LD_LIBRARY_PATH=$libdir
version=$(sed -n 's/.*FV_VERSION_STRING "\(.*\)"/\1/p' "$prefix/include/favor/base.h")

step 'the program runs' "$prefix/bin/favor" --version
step 'versions agree' test "$(pkg-config --modversion favor)" = "$version"
for example in attention stream; do
    step "$example.c through pkg-config" with_pkg_config "$example"
    step "$example.c through pkg-config, static" static_only "$example"
done
step 'examples through the CMake package' with_cmake
step 'manual page of the program' test -s "$prefix/share/man/man1/favor.1"
step 'manual page of a command' test -s "$prefix/share/man/man1/favor-train.1"
step 'completion is bash' bash -n "$prefix/share/bash-completion/completions/favor"
step 'licence' test -s "$prefix/share/doc/favor/LICENSE"
step 'a moved tree' moved

echo "$passed passed, $failed failed, 0 skipped"
((failed == 0))
