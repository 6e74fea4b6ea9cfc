#!/bin/sh
# test_portable.sh: runs the tests as each compiler builds them for each instruction set, since a kernel that is right with
# one of them may be wrong with another. Warnings are errors. It takes about twenty minutes on two cores.
#
#   scripts/test_portable.sh                     gcc and clang x x86-64-v2, v3, v4, native; aarch64 under qemu
#   FILTER=laser,matmul scripts/test_portable.sh   only tests whose names contain one of these
#   AARCH64_ROOT=folder                          a folder with cJSON, zlib and xxhash for aarch64, if they are not installed:
#                                                unpack there (dpkg -x) the packages libcjson-dev:arm64 libcjson1:arm64
#                                                zlib1g-dev:arm64 zlib1g:arm64 libxxhash-dev:arm64
#
# It prints a line for each build; the output is in build/portable/NAME/log. The last line is `N passed, N failed`. POSIX sh.
set -eu
cd "$(dirname "$0")/.."
passed=0 failed=0

# Adds the numbers of passed and failed tests at the end of a log. A log without them, or another exit code than 0, is a failure.
count() { # NAME EXIT-CODE LOG
    line=$(grep -E '^[0-9]+ passed, [0-9]+ failed$' "$3" | tail -n 1) || line=
    if [ -z "$line" ]; then line='0 passed, 1 failed'; fi
    passed=$((passed + ${line%% passed*}))
    failures=${line#*, }
    failures=${failures% failed}
    if [ "$2" -ne 0 ] && [ "$failures" -eq 0 ]; then failures=1 line="$line, but exit code $2"; fi
    failed=$((failed + failures))
    printf '%-28s %s\n' "$1" "$line"
    if [ "$failures" -ne 0 ]; then grep -E 'error|FAIL|expected' "$3" | head -n 5 | sed 's/^/    /'; fi
}

not_run() { printf '%-28s not run: %s\n' "$1" "$2"; }

x86() { # COMPILER ARCH
    name=$1-$2 folder=build/portable/$1-$2/
    case $2 in
        x86-64-v3) needs=avx2 ;;
        x86-64-v4) needs=avx512vl ;;
        *) needs= ;;
    esac
    if ! command -v "$1" > /dev/null; then
        not_run "$name" "there is no $1"
    elif ! grep -qw "$needs" /proc/cpuinfo; then
        not_run "$name" "this processor has no $needs"
    else
        mkdir -p "$folder"
        code=0
        CI=1 make test CC="$1" ARCH="$2" P="$folder" HAVE_CXX= FILTER="${FILTER:-}" > "$folder/log" 2>&1 || code=$?
        count "$name" $code "$folder/log"
    fi
}

# qemu runs one program, so tests that start other programs are left out.
aarch64() { # ARCH
    name=aarch64-$1 folder=build/portable/aarch64-$1 root=${AARCH64_ROOT:-/}
    compiler=aarch64-linux-gnu-gcc libraries=$root/usr/lib/aarch64-linux-gnu
    if ! command -v $compiler > /dev/null || ! command -v qemu-aarch64 > /dev/null; then
        not_run "$name" "there is no $compiler, or no qemu-aarch64"
    elif ! ls "$libraries"/libcjson.so > /dev/null 2>&1; then
        not_run "$name" "no cJSON for it in $libraries; see AARCH64_ROOT"
    else
        mkdir -p "$folder"
        code=0
        {
            $compiler -std=gnu11 -O3 -march="$1" -fno-math-errno -fno-trapping-math -fopenmp -Wall -Wextra -Wpedantic \
                -Werror -isystem "$root/usr/include" test_gpt.c -o "$folder/test_gpt" -L"$libraries" -lcjson -lz -lm &&
                qemu-aarch64 -cpu max -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH="$libraries:$root/lib/aarch64-linux-gnu" \
                    "$folder/test_gpt" --filter="${FILTER:-laser_,matmul_,model_matches,model_is,model_gradient,rmsnorm,rope,adamw,recompute_gives}"
        } > "$folder/log" 2>&1 || code=$?
        count "$name" $code "$folder/log"
    fi
}

for compiler in gcc clang; do
    for arch in x86-64-v2 x86-64-v3 x86-64-v4 native; do x86 $compiler $arch; done
done
aarch64 armv8-a
aarch64 armv8.6-a+bf16
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
