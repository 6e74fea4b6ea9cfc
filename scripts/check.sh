#!/usr/bin/env bash
# check.sh: checks the sources without running the programs. `make check` calls it, and continuous integration does.
#
#   scripts/check.sh              all checks below; the last line is `N checks passed, N failed, N not made`
#   scripts/check.sh NAME...      only these:
#       format     clang-format 14 would change no file of C, C++ or CUDA
#       shell      shellcheck finds nothing in a script
#       analysis   clang-tidy finds nothing with the checks of .clang-tidy (a minute on two cores)
#       headers    every header compiles alone, laser.h also as C++: it includes everything it uses, so it can be read alone
#       includes   files include only what the table `below` allows, and no file includes itself through others
#
# A check whose tool is not installed is not made, and a line says so; with CI=1 that is a failure. CC and CXX name the
# compilers. ROOT=folder checks the sources in that folder.
set -u
export LC_ALL=C
cd "${ROOT:-$(dirname "$0")/..}" || exit 1
passed=0 failed=0 skipped=0
jobs=$(getconf _NPROCESSORS_ONLN)
CC=${CC:-cc} CXX=${CXX:-c++}

# Headers that are exempt from the check `headers`. There should be none.
not_alone=''

# FOLDER => the folders whose files its own files may include, besides those of FOLDER.
below='
laser.h      =>
gpt/base     =>
gpt/math     => gpt/base laser.h
gpt/io       => gpt/base gpt/math laser.h
gpt/dist     => gpt/base gpt/math gpt/io laser.h
hf           =>
gpt/run      => gpt/base gpt/math gpt/io gpt/dist laser.h hf
train_gpt.c  => gpt/base gpt/math gpt/io gpt/dist gpt/run laser.h
cuda         => gpt/base gpt/math gpt/dist laser.h
train_gpt.cu => cuda gpt/base gpt/math gpt/dist laser.h
data         => gpt/base gpt/math gpt/io gpt/run
docs/course  =>
docs/course/exercises => laser.h
tools        => train_gpt.c laser.h gpt/base gpt/math gpt/io gpt/dist gpt/run cuda data docs/course
tests        => train_gpt.c laser.h gpt/base gpt/math gpt/io gpt/dist gpt/run cuda data tools
tests/course =>
test_gpt.c   => train_gpt.c laser.h gpt/base gpt/math gpt/io gpt/dist gpt/run cuda data tools tests
'

shopt -s nullglob
sources() { printf '%s\n' *.c *.h *.cu gpt/*/*.h cuda/*.h cuda/*.cuh data/*.[ch] {tools,tests}/*.{c,h,cu} \
    docs/course/*.c docs/course/exercises/*.[ch] tests/course/*.c; }

# Calls FUNCTION with each WORD, as many calls at a time as there are processors. Returns 1 if one of them failed.
parallel_each() { # FUNCTION WORD...
    local function=$1 running=0 code=0
    shift
    for word; do
        if [ $running = "$jobs" ]; then wait -n || code=1 && running=$((running - 1)); fi
        "$function" "$word" &
        running=$((running + 1))
    done
    while [ $running != 0 ]; do wait -n || code=1 && running=$((running - 1)); done
    return $code
}

check_format() { sources | xargs "$formatter" --dry-run --Werror; }

check_shell() { shellcheck scripts/*.sh .ci/run; }

analyse() { # FILE
    local language=(-std=gnu11 -fopenmp)
    case $1 in *.cu) language=(-x c++ -std=c++17) ;; esac
    clang-tidy --quiet "$1" -- "${language[@]}" 2> /dev/null || { echo "clang-tidy does not accept $1" && return 1; }
}

check_analysis() {
    # shellcheck disable=SC2046 # one file a word
    parallel_each analyse $(sources | grep -E '\.(c|cu)$')
}

# Compiles one header alone. Headers of tests and tools that use the model are written for programs that include
# train_gpt.c first, so it is included before them.
compile_header() { # HEADER
    local languages=c before=() said=$folder/${1//\//_} language command
    case $1 in
        laser.h) languages='c c++' ;;
        cuda/* | tests/test_cuda*) languages="c++" ;;
        tests/test_*.h | tools/bench_*.h | tools/load_model.h | tools/validation_data.h | \
            tools/evaluate_score.h | tools/evaluate_windows.h | tools/explain_*.h) before=(-include "$folder/trainer.h") ;;
    esac
    for language in $languages; do
        if [ "$language" = c ]; then command=("${c[@]}"); else command=("$CXX" -std=c++17); fi
        # the header is included by another file: as the main file its unused functions would be warnings
        echo "#include \"$1\"" | "${command[@]}" -x "$language" -I. -fsyntax-only -Wall -Wextra -Wpedantic -Werror \
            -Wno-unused-function -Wno-unused-variable -Wno-unused-const-variable -Wno-unknown-pragmas "${before[@]}" - \
            > "$said" 2>&1 || { echo "$1 does not compile alone as $language:" && grep -m 3 error "$said" && return 1; }
    done
}

check_headers() {
    local listed=" $not_alone " code
    folder=$(mktemp -d) c=("$CC" -std=gnu11 -fopenmp -DTRAIN_GPT_NO_MAIN)
    # train_gpt.c is compiled once, to a precompiled header; if that fails, it is compiled for each header that needs it
    printf '#include "%s/train_gpt.c"\n' "$PWD" > "$folder/trainer.h"
    [ ! -e train_gpt.c ] || "${c[@]}" -x c-header "$folder/trainer.h" -o "$folder/trainer.h.gch" 2> /dev/null || true
    sources | grep -E '\.(h|cuh)$' | while read -r header; do
        case $listed in *" $header "*) ;; *) echo "$header" ;; esac
    done > "$folder/headers"
    # shellcheck disable=SC2046 # one header a word
    parallel_each compile_header $(cat "$folder/headers")
    code=$?
    rm -rf "$folder"
    return $code
}

# Prints FILE:LINE INCLUDED for each #include with quotation marks. Paths begin at the root of the repository.
included() {
    # shellcheck disable=SC2016 # for awk
    sources | xargs awk '
        FNR == 1 { comment = 0 }
        /^[ \t]*#[ \t]*include[ \t]*"/ {
            split($0, part, "\""); path = FILENAME; folder = sub("/[^/]*$", "", path) ? path "/" : ""
            path = folder part[2]
            while (sub("[^/.][^/]*/\\.\\./", "", path)) {}
            print FILENAME ":" FNR, path
        }'
}

check_includes() {
    local cycle
    included | awk -v below="$below" '
        # the row of the table for a file: that of the file itself, or of its folder
        function place(file) { if (file in known) return file; if (sub("/[^/]*$", "", file)) return file; return "" }
        BEGIN {
            n = split(below, row, "\n")
            for (i = 1; i <= n; i++) {
                count = split(row[i], word, " ")
                if (count) known[word[1]] = 1
                for (j = 3; j <= count; j++) may[word[1], word[j]] = 1
            }
        }
        {
            file = $1; sub(":.*", "", file); from = place(file); to = place($2)
            if (!(from in known)) { print $1 ": the table in scripts/check.sh has no row for " file; bad = 1 }
            else if (from != to && !((from, to) in may)) {
                print $1 ": " file " includes " $2 ", which is not below it (see the table in scripts/check.sh)"; bad = 1
            }
        }
        END { exit bad }' || return 1
    cycle=$(included | sed 's/:[0-9]*//' | tsort 2>&1 > /dev/null | sed 's/^tsort: -: *//; s/^tsort: */  /') || true
    [ -z "$cycle" ] || { printf 'files that include each other in a circle:\n%s\n' "$cycle" && return 1; }
}

# Prints why a check cannot be made, if the tool that it needs is not installed.
formatter=clang-format
command -v clang-format-14 > /dev/null && formatter=clang-format-14
lacks() { # CHECK
    case $1 in
        format) "$formatter" --version 2> /dev/null | grep -q 'version 14\.' || echo "there is no clang-format 14" ;;
        shell) command -v shellcheck > /dev/null || echo "there is no shellcheck" ;;
        analysis) clang-tidy --version 2> /dev/null | grep -q 'version 14\.' || echo "there is no clang-tidy 14" ;;
        headers) command -v "$CC" > /dev/null && command -v "$CXX" > /dev/null || echo "there is no '$CC' or no '$CXX'" ;;
    esac
}

[ $# != 0 ] || set -- format shell analysis headers includes
for check; do
    case $check in
        format | shell | analysis | headers | includes) ;;
        *)
            echo "error: '$check' is no check; expected format, shell, analysis, headers or includes" >&2
            exit 2
            ;;
    esac
    reason=$(lacks "$check") began=$SECONDS
    if [ -n "$reason" ]; then
        echo "  -- $check not checked: $reason"
        skipped=$((skipped + 1))
    elif "check_$check"; then
        echo "  ok $check ($((SECONDS - began)) s)"
        passed=$((passed + 1))
    else
        echo "FAIL $check"
        failed=$((failed + 1))
    fi
done
echo "$passed checks passed, $failed failed, $skipped not made"
[ $failed = 0 ] && { [ $skipped = 0 ] || [ -z "${CI:-}" ]; }
