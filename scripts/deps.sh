#!/bin/sh
# deps.sh: finds out which of the things that the build needs are missing, and installs them with the system's package
# manager.
#
# To find out what is missing, a tiny program is compiled with each library. The command that will be run is printed before it
# runs; with DEPS=skip (or --dry-run) it is printed and nothing is run. sudo is used if the user is not root. For users who
# may not install packages, Debian's packages are unpacked into packages/ here, or the names of conda's packages are printed.
# The exit code is 1 if something is still missing at the end. POSIX sh.
#
#   scripts/deps.sh --checks  also installs the tools of `make check`: clang-format, clang-tidy and shellcheck
#   scripts/deps.sh --site    also installs the tool of `make site`: cmark-gfm
#   scripts/deps.sh --flags   installs nothing. Some libraries may be in folders that the compiler does not search: CJSON=DIR,
#                             packages/, conda's environment, Homebrew's. Prints the flags that tell it of these folders
set -eu
export LC_ALL=C # messages of compilers are in English, whatever the user's language

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

# The folders that may have an include/ and a lib/, one on each line, after the compiler's flag for include/. With -I a folder is
# searched before those of the system, with -idirafter after them.
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
    if [ -z "$brew" ] && [ "$(uname -s)" = Darwin ]; then # brew is not in PATH: this is its folder on Apple Silicon
        brew=/opt/homebrew
    fi
    if [ -n "$brew" ]; then printf '%s\n' "-idirafter $brew" "-idirafter $brew/opt/libomp"; fi # libomp has a folder of its own
}

has() { # FILE...: whether one of the files exists
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

case ${1:-} in
    --checks) tools="clang-format clang-tidy shellcheck" ;;
    --site) tools=cmark-gfm ;;
    *) tools= ;;
esac

# Prints the names of the things that are missing; packages() below has the packages for each name.
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

# Prints the packages of each thing for a package manager. "unpacked" is for packages that are unpacked without installing them;
# they do not bring the packages they depend on, so these are named too.
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
            conda:stb) ;; # only pictures need it
            apt-get:compiler) echo gcc libc6-dev ;;
            dnf:compiler) echo gcc glibc-devel ;;
            apk:compiler) echo gcc musl-dev ;;
            pacman:compiler) echo gcc ;;
            brew:compiler) echo gcc libomp ;;
            unpacked:* | conda:clang-* | conda:shellcheck | conda:cmark-gfm) ;;
            dnf:clang-* | apk:clang-*) echo clang-tools-extra ;;
            pacman:clang-*) echo clang ;;
            brew:clang-tidy) echo llvm ;;
            *:clang-format | *:clang-tidy | *:shellcheck | *:cmark-gfm) echo "$thing" ;;
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

# Prints the command that installs packages.
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

refresh_command() { # MANAGER: prints the command that updates the lists of packages, for when installing failed
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

# Downloads Debian's packages and unpacks them into packages/. True if there were some and all of them were unpacked.
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
    # a link to the place that the library would have in the system is changed to one to the file beside it
    find "$here/packages" -name 'lib*.so' -type l | while read -r link; do
        case $(readlink "$link") in /*) ln -sf "$(basename "$(readlink "$link")")" "$link" ;; esac
    done
    places=$(flags)
}

tell_conda() { # PACKAGE...
    say "conda has them too: conda install -c conda-forge $*; make finds them when the environment is active" >&2
}

lacking=$(missing | tr '\n' ' ')
if [ -z "$lacking" ]; then
    say "nothing is missing: $(compiler), make, cJSON, zlib, xxhash, stb"
else
    manager=
    for candidate in apt-get dnf apk pacman brew; do
        [ -n "$manager" ] || ! command -v $candidate > /dev/null || manager=$candidate
    done
    # shellcheck disable=SC2086,SC2046 # words
    if [ -z "$manager" ]; then
        say "missing: ${lacking}and there is no known package manager (apt-get, dnf, apk, pacman, brew); please install them," >&2
        say "or run make CJSON=DIR with a folder that has them in include/ and lib/" >&2
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
        say "not installed; this command would install it: $as_root$command"
    elif [ -n "$as_root" ] && ! command -v sudo > /dev/null; then
        say "not root, and there is no sudo; as root run: $command" >&2
        # shellcheck disable=SC2086,SC2046 # words
        unpack $(packages unpacked $lacking) || tell_conda $(packages conda $lacking)
    elif ! run "$as_root$command"; then
        if [ -z "$refresh" ] || ! run "$as_root$refresh" || ! run "$as_root$command"; then
            tail -n 3 "$work/log" >&2
            say "that failed; when the cause is removed, run: $as_root$command" >&2
            # shellcheck disable=SC2086,SC2046 # words
            [ -z "$as_root" ] || unpack $(packages unpacked $lacking) || tell_conda $(packages conda $lacking)
        fi
    fi
    lacking=$(missing | tr '\n' ' ')
    # training needs no pictures; when ./report is asked for one, it says what to install
    case "$lacking" in
        '') say "all there now" ;;
        'stb ') say "stb is missing: everything works except pictures (loss.png)" ;;
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
