#!/bin/sh
# deps.sh: finds out what the build needs and does not find, and installs it with the system's package manager.
#
# What is needed is tried, not looked up: a tiny program is compiled against each library. The command that will be
# run is printed before it runs; DEPS=skip (or --dry-run) prints it and runs nothing. sudo is used only by those who
# are not root. Exit code 1 when something needed is still missing at the end. POSIX sh.
set -eu

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

compiles() { # FLAGS HEADER: whether a program that includes HEADER compiles and links with FLAGS
    [ -n "$(compiler)" ] || return 1
    printf '#include <stddef.h>\n#include <stdio.h>\n#include <%s>\nint main(void) { return 0; }\n' "$2" > "$work/try.c"
    # shellcheck disable=SC2086 # flags are words
    "$(compiler)" -I/usr/local/include -L/usr/local/lib "$work/try.c" -o "$work/try" $1 2> /dev/null
}

# What is missing, one word each; the names are those of the table below.
missing() {
    compiles '' stdlib.h || echo compiler
    command -v make > /dev/null || echo make
    compiles -lcjson cjson/cJSON.h || echo cjson
    compiles -lz zlib.h || echo zlib
    if ! compiles '' stb/stb_image_write.h || ! compiles '' stb/stb_truetype.h || ! compiles -lm stb/stb_easy_font.h; then
        echo stb
    fi
}

# The package of each thing:    apt                   dnf             apk              pacman  brew
packages() { # MANAGER THING...
    manager=$1
    shift
    for thing in "$@"; do
        case $manager:$thing in
            apt-get:compiler) echo gcc libc6-dev ;;
            dnf:compiler) echo gcc glibc-devel ;;
            apk:compiler) echo gcc musl-dev ;;
            pacman:compiler) echo gcc ;;
            brew:compiler) echo gcc libomp ;;
            *:make) echo make ;;
            apt-get:cjson) echo libcjson-dev ;;
            dnf:cjson) echo cjson-devel ;;
            apk:cjson) echo cjson-dev ;;
            *:cjson) echo cjson ;;
            apt-get:zlib) echo zlib1g-dev ;;
            dnf:zlib) echo zlib-devel ;;
            apk:zlib) echo zlib-dev ;;
            *:zlib) echo zlib ;;
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

lacking=$(missing | tr '\n' ' ')
if [ -z "$lacking" ]; then
    say "all there: $(compiler), make, cJSON, zlib, stb"
else
    manager=
    for candidate in apt-get dnf apk pacman brew; do
        [ -n "$manager" ] || ! command -v $candidate > /dev/null || manager=$candidate
    done
    if [ -z "$manager" ]; then
        say "missing: ${lacking}and no package manager known here (apt-get, dnf, apk, pacman, brew); please install them" >&2
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
    elif ! run "$as_root$command"; then
        if [ -z "$refresh" ] || ! run "$as_root$refresh" || ! run "$as_root$command"; then
            tail -n 3 "$work/log" >&2
            say "that failed; when it is repaired run: $as_root$command" >&2
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

if ! compiles -fopenmp omp.h; then
    say "note: $(compiler) has no OpenMP, so everything would run on one core (Debian: gcc has it, clang needs libomp-dev)"
fi
command -v mpicc > /dev/null ||
    say "optional: an MPI, to train on several machines (Debian: libopenmpi-dev openmpi-bin)"
