#!/bin/sh
# get_text.sh OUTFOLDER: gets some megabytes of English text from the first of these sources that works:
#
#   1. TEXT=path           your own file or folder: plain text, .jsonl or .gz, anything that ./prepare reads
#   2. Project Gutenberg   six long novels (needs curl or wget and a network)
#   3. system packages     the King James Bible and Jane Austen's novels from Debian packages, unpacked without root
#   4. ./grammar           stories from a grammar of known entropy (needs nothing)
#
# OUTFOLDER gets one or more .txt files (with the first source a folder `mine` with links) and a file SOURCE, a line that says
# where the text comes from. TEXT_SOURCES="2 4" tries only these sources; GUTENBERG=address uses a mirror. POSIX sh. It needs
# no root and installs nothing.
set -eu
export LC_ALL=C # numbers have a decimal point, whatever the user's language

books='2600 135 1184 145 2701 1342' # War and Peace, Les Miserables, Monte Cristo, Middlemarch, Moby-Dick, Pride and P.
gutenberg=${GUTENBERG:-https://www.gutenberg.org}
grammar=${GRAMMAR:-$(dirname "$0")/../grammar}
enough=1000000 # bytes that a source must give; with less it counts as not working

say() { printf 'text: %s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

[ $# -eq 1 ] || fail "name one folder: scripts/get_text.sh data/text"
out=$1
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

bytes_of() { cat "$@" 2> /dev/null | wc -c | tr -d ' '; }

# Joins lines that were broken at column 70 to paragraphs, one on each line, with a blank line between them. Replaces
# typographic quotes and dashes by those of a keyboard, so that they take no tokens of a small vocabulary.
paragraphs() {
    LC_ALL=C sed -e 's/\r$//' -e 's/\xe2\x80[\x9c\x9d]/"/g' -e "s/\\xe2\\x80[\\x98\\x99]/'/g" \
        -e 's/\xe2\x80\x94/--/g' -e 's/^\xef\xbb\xbf//' -e 's/_//g' -e 's/[ \t]*$//' -e 's/^[ \t]*//' |
        awk '/^$/ { if (begun) print "\n"; begun = 0; next }
             { printf "%s%s", begun ? " " : "", $0; begun = 1 }
             END { if (begun) print "" }'
}

# ---------------------------------------------------------------------------------------- 1. the user's own text
from_user() {
    [ -n "${TEXT:-}" ] || return 1
    [ -r "$TEXT" ] || fail "TEXT=$TEXT cannot be read; name a file or a folder of text"
    if [ -d "$TEXT" ]; then # links, so that nothing large is copied
        ln -s "$(cd "$TEXT" && pwd)" "$work/new/mine"
    else
        mkdir "$work/new/mine"
        ln -s "$(cd "$(dirname "$TEXT")" && pwd)/$(basename "$TEXT")" "$work/new/mine/$(basename "$TEXT")"
    fi
    source="your text, $TEXT"
}

# ------------------------------------------------------------------------------------------- 2. Project Gutenberg
download() { # ADDRESS FILE
    if command -v curl > /dev/null; then
        curl -sSfL --connect-timeout 5 --max-time 90 -o "$2" "$1"
    elif command -v wget > /dev/null; then
        wget -q --timeout=5 --tries=1 -O "$2" "$1"
    else
        echo 'neither curl nor wget is installed'
        return 1
    fi 2>&1 | tail -n 1 > "$work/problem"
    [ -s "$2" ]
}

from_gutenberg() {
    say "asking Project Gutenberg for novels ($gutenberg)"
    for book in $books; do
        if ! download "$gutenberg/cache/epub/$book/pg$book.txt" "$work/book"; then
            say "no answer: $(cat "$work/problem")"
            break # probably there is no network: the next source is tried at once
        fi
        # only the book, without the licence before and after it
        awk '/^\*\*\* ?END OF TH/ { exit } inside { print } /^\*\*\* ?START OF TH/ { inside = 1 }' "$work/book" |
            paragraphs > "$work/new/gutenberg-$book.txt"
        rm -f "$work/book"
        sleep "${GUTENBERG_PAUSE:-1}" # so that the server is not burdened
    done
    [ "$(bytes_of "$work"/new/*.txt)" -ge $enough ] || return 1
    source="novels from Project Gutenberg"
}

# --------------------------------------------------------------------------------------------- 3. system packages
# shellcheck source=scripts/packages.sh
. "$(dirname "$0")/packages.sh"

# The Bible's package holds compressed data that its reader (another package) prints.
bible() {
    packages_fetch bible-kjv-text || return 1
    packages_fetch bible-kjv || return 1
    if ! LD_LIBRARY_PATH=libraries root/usr/bin/bible -p root/usr/lib gen1:1 > /dev/null 2>&1; then
        for library in $(dpkg-deb -f bible-kjv_*.deb Depends | grep -o 'libreadline[0-9a-z]*') libtinfo6; do
            packages_fetch "$library" || return 1
        done
        mkdir libraries
        find root -name 'lib*.so*' -exec cp {} libraries/ \;
    fi
    # "Genesis 1", a blank line, then "  1 In the beginning..." broken at 80 columns
    LD_LIBRARY_PATH=libraries root/usr/bin/bible -p root/usr/lib gen1:1-rev22:21 2> /dev/null |
        awk '/^ +[0-9]+ / { sub(/^ +[0-9]+ /, ""); if (verse != "") print verse; verse = $0; next }
             /^$/ { next }
             /^([1-3] )?[A-Z][A-Za-z ]* [0-9]+$/ { if (verse != "") print verse "\n"; verse = ""; print $0 "\n"; next }
             { verse = verse " " $0 }
             END { print verse }' > "$work/new/bible.txt"
    [ "$(bytes_of "$work/new/bible.txt")" -ge $enough ]
}

# The package is for the language R and has all novels in one file. Each is a zlib stream after four bytes with its length; an
# index says where each begins. A zlib stream is a gzip stream with another header. In the unpacked data a line of text
# follows the bytes 0 4 0 9 and four bytes with its length. gzip, tr and awk can read all of this.
austen() {
    packages_fetch r-cran-janeaustenr || return 1
    data=root/usr/lib/R/site-library/janeaustenr/data/Rdata
    # in the index, a pair of integers is 0 0 0 13 (its type), 0 0 0 2 (its length), offset, size
    gzip -dc "$data.rdx" | od -An -v -tu1 | tr -s ' ' '\n' | awk 'NF { b[n++] = $1 } END {
        for (i = 0; i + 16 <= n; i++) {
            type = b[i] b[i+1] b[i+2] b[i+3] b[i+4] b[i+5] b[i+6] b[i+7]
            if (type != "000130002" || b[i+3] != 13) continue
            offset = ((b[i+8] * 256 + b[i+9]) * 256 + b[i+10]) * 256 + b[i+11]
            print offset, ((b[i+12] * 256 + b[i+13]) * 256 + b[i+14]) * 256 + b[i+15]
        } }' > places
    novel=0
    while read -r offset size; do
        novel=$((novel + 1))
        # skips the length (4 bytes) and zlib's header (2); gzip reports that its checksum is missing at the end
        { printf '\037\213\010\000\000\000\000\000\000\003'; tail -c +$((offset + 7)) "$data.rdb" |
            head -c $((size - 6)); } | { gzip -dc 2> /dev/null || :; } | LC_ALL=C tr '\000\n' '\n\001' |
            LC_ALL=C awk 'n > 0 { if (--n == 0) print substr($0, 2); next } length($0) < 3 && /\t$/ { n = 3 }' |
            paragraphs > "$work/new/austen-$novel.txt"
    done < places
    [ "$(bytes_of "$work"/new/austen-*.txt)" -ge $enough ]
}

from_packages() {
    if ! command -v apt-get > /dev/null || ! command -v dpkg-deb > /dev/null; then
        say "this system has no Debian packages"
        return 1
    fi
    say "asking the system's package manager for books (downloaded and unpacked here, not installed)"
    mkdir "$work/packages"
    cd "$work/packages"
    packages_known bible-kjv-text || :
    found=
    bible && found="the King James Bible"
    [ -n "$found" ] || rm -f "$work/new/bible.txt"
    austen && found="${found:+$found and }six novels by Jane Austen"
    [ -f log ] && grep '^E:' log | head -n 1 | sed 's/^E:/text: no answer:/'
    cd "$out"
    [ -n "$found" ] || return 1
    source="$found, from Debian packages"
}

# --------------------------------------------------------------------------------------------- 4. the grammar
from_grammar() {
    [ -x "$grammar" ] || {
        say "the program grammar is not built (make grammar)"
        return 1
    }
    "$grammar" --seed=1 --bytes=8000000 --out="$work/new/stories.txt" > "$work/problem" || return 1
    # ./prepare uses a file of this name for validation; the lowest possible loss on it is known (stories-validation.json)
    "$grammar" --seed=2 --bytes=300000 --out="$work/new/stories-validation.txt" > "$work/problem" || return 1
    source="generated stories (./grammar), because no other source worked"
}

if [ -n "${TEXT:-}" ]; then sources=1; else sources=${TEXT_SOURCES:-2 3 4}; fi
for number in $sources; do
    rm -rf "$work/new"
    mkdir "$work/new"
    case $number in
        1) from_user || continue ;;
        2) from_gutenberg || continue ;;
        3) from_packages || continue ;;
        4) from_grammar || continue ;;
        *) fail "TEXT_SOURCES=$sources: '$number' is not 1, 2, 3 or 4" ;;
    esac
    rm -rf "$out"/*.txt "$out"/*.json "$out/mine" "$out/SOURCE"
    mv "$work"/new/* "$out"/
    printf '%s\n' "$source" > "$out/SOURCE"
    size=$(find -L "$out" -type f ! -name SOURCE ! -name '*.json' -exec cat {} + | wc -c)
    say "$source: $(awk -v n="$size" 'BEGIN { printf "%.1f", n / 1e6 }') MB in $out"
    exit 0
done
fail "no text from sources $sources; name your own with TEXT=file, or build ./grammar"
