#!/bin/sh
# deps.sh: finds out what the build needs and does not find, and installs it with the system's package manager.
#
# What is needed is tried, not looked up: a tiny program is compiled against each library. The command that will be
# run is printed before it runs; DEPS=skip (or --dry-run) prints it and runs nothing. sudo is used only by those who
# are not root. Who may install nothing gets Debian's packages unpacked into packages/ here, or told what conda calls them.
# Exit code 1 when something needed is still missing at the end. POSIX sh.
#
#   scripts/deps.sh --checks  also sees to the tools of `make check`: clang-format, clang-tidy and shellcheck
#   scripts/deps.sh --flags   installs nothing: prints the compiler's flags for the folders, beside the system's, in which some
#                             of what is needed is: CJSON=DIR, packages/, conda's environment, Homebrew's
set -eu
export LC_ALL=C # what compilers say is in English, whatever the user's language

here=$(cd "$(dirname "$0")/.." && pwd)
say() { printf 'deps: %s\n' "$*"; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compiler() {
    for candidate in ${CC:-} cc gcc clang; do
        if command -v "$candidate" > /dev/null; then
            echo "$candidate"
            return
        fi
    done
}

# The folders that may have an include/ and a lib/ of their own, one a line, after the flag for the former: CJSON counts before
# the system's, the others after them.
roots() {
    if [ -n "${CJSON:-}" ]; then
        if given=$(cd "$CJSON" 2> /dev/null && pwd); then
            printf '%s\n' "-I $given" "-I $given/usr"
        else
            say "CJSON=$CJSON is no folder" >&2
        fi
    fi
    echo "-idirafter $here/packages/usr"
    if [ -n "${CONDA_PREFIX:-}" ]; then echo "-idirafter $CONDA_PREFIX"; fi
    brew=
    if command -v brew > /dev/null; then brew=$(brew --prefix 2> /dev/null) || brew=; fi
    if [ -z "$brew" ] && [ "$(uname -s)" = Darwin ]; then # not in the path: where it is on Apple Silicon
        brew=/opt/homebrew
    fi
    if [ -n "$brew" ]; then printf '%s\n' "-idirafter $brew" "-idirafter $brew/opt/libomp"; fi # libomp is kept apart
}

has() { # FILE...: whether one of them is there
    for file; do if [ -e "$file" ]; then return 0; fi; done
    return 1
}

flags() {
    roots | while read -r flag root; do
        if has "$root"/include/cjson/cJSON.h "$root"/include/zlib.h "$root"/include/xxhash.h "$root"/include/stb "$root"/include/omp.h; then
            echo "$flag$root/include"
        fi
        for lib in "$root"/lib "$root"/lib64 "$root"/lib/*-linux-gnu*; do
            if has "$lib"/libcjson.* "$lib"/libz.* "$lib"/libomp.*; then printf '%s\n' "-L$lib" "-Wl,-rpath,$lib"; fi
        done
    done | tr '\n' ' '
}
places=$(flags)
if [ "${1:-}" = --flags ]; then
    echo "$places"
    exit 0
fi

compiles() { # FLAGS HEADER: whether a program that includes HEADER compiles and links with FLAGS
    [ -n "$(compiler)" ] || return 1
    printf '#include <stddef.h>\n#include <stdio.h>\n#include <%s>\nint main(void) { return 0; }\n' "$2" > "$work/try.c"
    # shellcheck disable=SC2086 # flags are words
    "$(compiler)" -I/usr/local/include -L/usr/local/lib $places "$work/try.c" -o "$work/try" $1 2> /dev/null
}

tools=
if [ "${1:-}" = --checks ]; then tools="clang-format clang-tidy shellcheck"; fi

# What is missing, one word each; the names are those of the table below.
missing() {
    compiles '' stdlib.h || echo compiler
    command -v make > /dev/null || echo make
    compiles -lcjson cjson/cJSON.h || echo cjson
    compiles -lz zlib.h || echo zlib
    compiles '' xxhash.h || echo xxhash
    if ! compiles '' stb/stb_image_write.h || ! compiles '' stb/stb_truetype.h || ! compiles -lm stb/stb_easy_font.h; then
        echo stb
    fi
    for tool in $tools; do command -v "$tool" > /dev/null || echo "$tool"; done
}

# The package of each thing, by manager; unpacked ones need their libraries named as well.
packages() { # MANAGER THING...
    manager=$1
    shift
    for thing in "$@"; do
        case $manager:$thing in
            unpacked:cjson) echo libcjson-dev libcjson1 ;;
            unpacked:zlib) echo zlib1g-dev zlib1g ;;
            unpacked:xxhash) echo libxxhash-dev ;;
            unpacked:stb) echo libstb-dev ;;
            conda:compiler) echo c-compiler ;;
            conda:stb) ;; # pictures only
            apt-get:compiler) echo gcc libc6-dev ;;
            dnf:compiler) echo gcc glibc-devel ;;
            apk:compiler) echo gcc musl-dev ;;
            pacman:compiler) echo gcc ;;
            brew:compiler) echo gcc libomp ;;
            unpacked:* | conda:clang-* | conda:shellcheck) ;;
            dnf:clang-* | apk:clang-*) echo clang-tools-extra ;;
            pacman:clang-*) echo clang ;;
            brew:clang-tidy) echo llvm ;;
            *:clang-format | *:clang-tidy | *:shellcheck) echo "$thing" ;;
            *:make) echo make ;;
            apt-get:cjson) echo libcjson-dev ;;
            dnf:cjson) echo cjson-devel ;;
            apk:cjson) echo cjson-dev ;;
            *:cjson) echo cjson ;;
            apt-get:zlib) echo zlib1g-dev ;;
            dnf:zlib) echo zlib-devel ;;
            apk:zlib) echo zlib-dev ;;
            *:zlib) echo zlib ;;
            apt-get:xxhash) echo libxxhash-dev ;;
            dnf:xxhash) echo xxhash-devel ;;
            apk:xxhash) echo xxhash-dev ;;
            *:xxhash) echo xxhash ;;
            apt-get:stb) echo libstb-dev ;;
            dnf:stb) echo stb-devel ;;
            *:stb) echo stb ;;
        esac
    done | tr '\n' ' '
}

# The command that installs packages, as it will be run.
install_command() { # MANAGER PACKAGE...
    manager=$1
    shift
    case $manager in
        apt-get) echo "apt-get install -y --no-install-recommends $*" ;;
        dnf) echo "dnf install -y $*" ;;
        apk) echo "apk add $*" ;;
        pacman) echo "pacman -S --noconfirm --needed $*" ;;
        brew) echo "brew install $*" ;;
    esac
}

refresh_command() { # lists of packages, when the first attempt found none
    case $1 in
        apt-get) echo "apt-get update" ;;
        apk) echo "apk update" ;;
        pacman) echo "pacman -Sy" ;;
    esac
}

run() {
    say "running: $*"
    # shellcheck disable=SC2048,SC2086 # words on purpose
    DEBIAN_FRONTEND=noninteractive $* < /dev/null > "$work/log" 2>&1
}

# Debian's packages, unpacked into packages/; true when there were some and all could be had.
unpack() { # PACKAGE...
    if [ $# -eq 0 ] || ! command -v apt-get > /dev/null || ! command -v dpkg-deb > /dev/null; then return 1; fi
    say "unpacking into packages/, without installing: $*"
    mkdir "$work/packages"
    (
        cd "$work/packages"
        # shellcheck source=scripts/packages.sh
        . "$here/scripts/packages.sh"
        packages_known "$1" && packages_fetch "$@"
    ) || {
        tail -n 3 "$work/packages/log" >&2
        return 1
    }
    mkdir -p "$here/packages/usr"
    cp -R "$work/packages/root/usr/." "$here/packages/usr/"
    if [ -d "$work/packages/root/lib" ]; then cp -R "$work/packages/root/lib/." "$here/packages/usr/lib/"; fi
    # a link that names the place of the library in the system: here it lies beside it
    find "$here/packages" -name 'lib*.so' -type l | while read -r link; do
        case $(readlink "$link") in /*) ln -sf "$(basename "$(readlink "$link")")" "$link" ;; esac
    done
    places=$(flags)
}

tell_conda() { # PACKAGE...
    say "conda has them as well: conda install -c conda-forge $*; make finds them in an environment that is active" >&2
}

lacking=$(missing | tr '\n' ' ')
if [ -z "$lacking" ]; then
    say "all there: $(compiler), make, cJSON, zlib, xxhash, stb"
else
    manager=
    for candidate in apt-get dnf apk pacman brew; do
        [ -n "$manager" ] || ! command -v $candidate > /dev/null || manager=$candidate
    done
    # shellcheck disable=SC2086,SC2046 # words
    if [ -z "$manager" ]; then
        say "missing: ${lacking}and no package manager known here (apt-get, dnf, apk, pacman, brew); please install them," >&2
        say "or name with make CJSON=DIR a folder whose include/ and lib/ have them" >&2
        tell_conda $(packages conda $lacking)
        exit 1
    fi
    # shellcheck disable=SC2086,SC2046 # words
    command=$(install_command $manager $(packages $manager $lacking))
    refresh=$(refresh_command $manager)
    as_root=
    if [ $manager != brew ] && [ "$(id -u)" != 0 ]; then as_root="sudo "; fi
    say "missing: $lacking"
    if [ "${DEPS:-}" = skip ] || [ "${1:-}" = --dry-run ]; then
        say "not installed; this would do it: $as_root$command"
    elif [ -n "$as_root" ] && ! command -v sudo > /dev/null; then
        say "not root, and there is no sudo; as root run: $command" >&2
        # shellcheck disable=SC2086,SC2046 # words
        unpack $(packages unpacked $lacking) || tell_conda $(packages conda $lacking)
    elif ! run "$as_root$command"; then
        if [ -z "$refresh" ] || ! run "$as_root$refresh" || ! run "$as_root$command"; then
            tail -n 3 "$work/log" >&2
            say "that failed; when it is repaired run: $as_root$command" >&2
            # shellcheck disable=SC2086,SC2046 # words
            [ -z "$as_root" ] || unpack $(packages unpacked $lacking) || tell_conda $(packages conda $lacking)
        fi
    fi
    lacking=$(missing | tr '\n' ' ')
    # pictures are not needed to train: ./report says what to do when it is asked for one
    case "$lacking" in
        '') say "all there now" ;;
        'stb ') say "stb is missing: everything works but loss.png" ;;
        *)
            say "still missing: $lacking" >&2
            exit 1
            ;;
    esac
fi

if ! compiles -fopenmp omp.h && ! compiles '-Xpreprocessor -fopenmp -lomp' omp.h; then
    say "note: $(compiler) has no OpenMP, so everything would run on one core (Debian: gcc has it, clang needs libomp-dev, on a Mac: brew install libomp)"
fi
command -v mpicc > /dev/null ||
    say "optional: an MPI, to train on several machines (Debian: libopenmpi-dev openmpi-bin)"
