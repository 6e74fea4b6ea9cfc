#!/bin/sh
# fetch_c4.sh [OPTION...] FOLDER: downloads the published files of C4 (English), 1,024 for training and 8 for validation.
#
#   --files=0-15           which training files: numbers and ranges, such as 0-3,17, or none (default: all, 0-1023)
#   --validation=0-7       which validation files, or none (default: all; one is enough for a loss curve)
#   --jobs=4               how many files are downloaded at the same time
#   --url=ADDRESS          where the files are (default: where the Allen Institute publishes them)
#   --dry-run              prints the space that would be needed, and downloads nothing
#
# It first prints how much space the files take. It can be stopped at any moment and run again: complete files are kept, and
# the download of an incomplete one is continued. Every file is checked: its size must be the server's, and gzip -t must accept
# it. Files that could not be fetched in several attempts are listed, and the exit code is then 1. Needs curl and gzip. Afterwards:
#
#   ./prepare --out=data/c4 --tokenizer=spiece.model FOLDER     (or --vocab=32000)
set -eu
export LC_ALL=C # numbers have a decimal point, whatever the user's language

url=https://huggingface.co/datasets/allenai/c4/resolve/main/en
files=0-1023 validation=0-7 jobs=4 out='' dry_run=no

usage() { sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p;}' "$0"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit "${code:-1}"
}

# ------------------------------------------------------------------------------------------------ one file
# Prints the size that the server states for a file; nothing if it states none.
size_of() {
    curl --silent --fail --location --head --retry 3 --connect-timeout 30 "$1" |
        tr -d '\r' | awk 'tolower($1) == "content-length:" { size = $2 } END { print size }'
}

bytes_in() { if [ -f "$1" ]; then wc -c < "$1" | tr -d ' '; else echo 0; fi; }

# Called by xargs as: fetch_c4.sh --one ADDRESS FILE
fetch_one() {
    address=$1 file=$2 part=$2.part attempt=0
    if [ -f "$file" ]; then return 0; fi # it was checked before it got this name
    while [ $attempt -lt 8 ]; do
        attempt=$((attempt + 1))
        [ $attempt -eq 1 ] || sleep "${C4_PAUSE:-$((attempt * 2))}"
        size=$(size_of "$address") || size=''
        [ -n "$size" ] || continue
        if [ "$(bytes_in "$part")" -gt "$size" ]; then rm -f "$part"; fi
        if [ "$(bytes_in "$part")" -lt "$size" ]; then
            code=0
            curl --silent --fail --location --connect-timeout 30 --speed-limit 1000 --speed-time 60 \
                --continue-at - --output "$part" "$address" || code=$?
            if [ $code -eq 33 ]; then rm -f "$part"; fi # the server cannot continue a download: from the beginning
            [ "$(bytes_in "$part")" -eq "$size" ] || continue
        fi
        if gzip -t "$part" 2> /dev/null; then
            mv "$part" "$file"
            printf 'c4: %s  %s bytes\n' "$(basename "$file")" "$size"
            return 0
        fi
        printf 'c4: %s is damaged and is downloaded again\n' "$(basename "$file")" >&2
        rm -f "$part"
    done
    printf 'error: %s could not be fetched in %d attempts\n' "$address" $attempt >&2
    return 1
}

if [ "${1:-}" = --one ]; then
    shift
    fetch_one "$@"
    exit
fi

# ------------------------------------------------------------------------------------------------ options
for option; do
    case $option in
    --files=*) files=${option#*=} ;;
    --validation=*) validation=${option#*=} ;;
    --jobs=*) jobs=${option#*=} ;;
    --url=*) url=${option#*=} ;;
    --dry-run) dry_run=yes ;;
    --help | -h) usage && exit 0 ;;
    --*) code=2 fail "unknown option $option; expected --files= --validation= --jobs= --url= --dry-run or --help" ;;
    *)
        [ -z "$out" ] || code=2 fail "name only one folder, not both '$out' and '$option'"
        out=$option
        ;;
    esac
done
[ -n "$out" ] || code=2 fail "name the folder for the files: scripts/fetch_c4.sh --files=0-15 data/c4-text"
case $jobs in '' | *[!0-9]* | 0) code=2 fail "--jobs=$jobs: expected a number from 1" ;; esac
command -v curl > /dev/null || fail "curl is missing; install the package 'curl'"

# Expands numbers and ranges to one number a line. Each number is printed once, because two downloads of one file would
# overwrite each other. $2 is the largest number allowed.
numbers() {
    [ "$1" != none ] || return 0
    echo "$1" | tr ',' '\n' | awk -F- -v most="$2" '
        !/^[0-9]+(-[0-9]+)?$/ || $1 > most || $NF > most || $1 + 0 > $NF + 0 { exit 1 }
        { for (i = $1 + 0; i <= $NF + 0; i++) if (!seen[i]++) print i }'
}
train_list=$(numbers "$files" 1023) || code=2 fail "--files=$files: expected numbers from 0 to 1023 such as 0-15 or 0-3,17, or none"
val_list=$(numbers "$validation" 7) || code=2 fail "--validation=$validation: expected numbers from 0 to 7 such as 0-7 or 0, or none"

mkdir -p "$out"
list=$(mktemp)
trap 'rm -f "$list"' EXIT
trap 'exit 130' INT TERM
for n in $val_list; do printf 'c4-validation.%05d-of-00008.json.gz\n' "$n"; done > "$list"
for n in $train_list; do printf 'c4-train.%05d-of-01024.json.gz\n' "$n"; done >> "$list"
[ -s "$list" ] || code=2 fail "--files=none --validation=none: nothing to fetch"

# ------------------------------------------------------------------------------------------------ space
# The files of one kind have nearly the same size, so only the size of the first one is asked for.
need=0 have=0 count=0
for kind in train validation; do
    names=$(grep "^c4-$kind" "$list" || true)
    [ -n "$names" ] || continue
    first=$(echo "$names" | head -n 1)
    size=$(size_of "$url/$first") || size=''
    [ -n "$size" ] || fail "'$url/$first' is not there; check --url and the network"
    for name in $names; do
        need=$((need + size)) count=$((count + 1))
        if [ -f "$out/$name" ]; then
            have=$((have + size))
        else
            have=$((have + $(bytes_in "$out/$name.part")))
        fi
    done
done
free=$(df -Pk "$out" | awk 'NR == 2 { printf "%.0f", $4 * 1024 }')
awk -v count=$count -v need=$need -v have=$have -v free="$free" -v out="$out" 'BEGIN {
    printf "c4: %d files, about %.2f GB, of which %.2f GB are here already; %.2f GB are free in %s\n",
        count, need / 1e9, have / 1e9, free / 1e9, out
    printf "c4: the shards will take about %.2f GB more (2 bytes for each 4.4 bytes of text)\n", need * 2.6 * 2 / 4.4 / 1e9
    exit !(need - have < free) }' || fail "there is not enough space; fetch fewer files with --files=, or name another folder"
[ $dry_run = no ] || exit 0

# ------------------------------------------------------------------------------------------------ all of them
awk -v url="$url" -v out="$out" '{ print url "/" $0; print out "/" $0 }' "$list" | tr '\n' '\0' |
    xargs -0 -n 2 -P "$jobs" "$0" --one ||
    fail "the files named above are missing; run the same command again, it keeps what is here"
printf 'c4: %d files are in %s\n' $count "$out"
