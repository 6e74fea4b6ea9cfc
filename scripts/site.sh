#!/usr/bin/env bash
# site.sh: makes the documentation as a folder of HTML pages, which a browser opens from the disk, and which can be copied to any
# web server. `make site` calls it.
#
#   scripts/site.sh [FOLDER]      writes into FOLDER, by default build/site. Earlier contents are removed, but only if site.sh wrote
#                                 them, which it sees by site.css
#
# The pages are the Markdown files of the repository, at the same paths: README.md is index.html, docs/gpu.md is
# docs/gpu.html. cmark-gfm, GitHub's own program, translates them; scripts/site.awk puts the frame around them, and
# scripts/site.css is their style. Pictures are copied. A file of source code that a page names becomes a page as well
# (laser.h is laser.h.html). At the end scripts/site_check.awk checks every link, anchor and picture; the exit code is 1 if one
# leads nowhere, or if a page needs the network to be shown. ROOT=folder takes the pages from that folder.
set -euo pipefail
export LC_ALL=C
scripts=$(cd "$(dirname "$0")" && pwd)
out=${1:-build/site}
case $out in /*) ;; *) out=$PWD/$out ;; esac
cd "${ROOT:-$scripts/..}"

fail() { # MESSAGE
    printf 'error: %s\n' "$1" >&2
    exit 1
}

# GROUP: its pages in their order. A page that the groups leave out is an error.
groups() {
    echo "Introduction: README.md CHANGELOG.md"
    echo "The course: docs/course/README.md $(chapters) docs/course/answers.md"
    echo "Training and measuring: data/README.md docs/using.md docs/experiments.md docs/ablations.md docs/analysis.md docs/scaling.md docs/gpu.md"
    echo "Results: docs/results.md docs/performance.md"
    echo "The code: docs/reading.md docs/add-an-attention.md docs/formats.md CONTRIBUTING.md"
}
chapters() { find docs/course -name '[0-9]*.md' 2> /dev/null | sort -t / -k 3n | tr '\n' ' '; }

# Prints GROUP, PATH and TITLE of each page, with tabs between them. The title is the page's first line.
list_pages() {
    local group paths path
    groups | while IFS=: read -r group paths; do
        for path in $paths; do
            [ ! -e "$path" ] || printf '%s\t%s\t%s\n' "$group" "$path" \
                "$(sed -n '1s/^# *//p' "$path")"
        done
    done
    find ./*.md data/*.md docs -name '*.md' 2> /dev/null | sed 's|^\./||' | sort > "$work/all" || true
}

# Writes one page. site.awk appends the files that the page names to $work/sources and $work/pictures.
write_page() { # PATH KIND OUTPUT INPUT
    local folder=$out/$3
    folder=${folder%/*}
    [ -d "$folder" ] || mkdir -p "$folder"
    awk -v page="$1" -v kind="$2" -v pages="$work/pages" -v sources="$work/sources" -v pictures="$work/pictures" \
        -f "$scripts/site_paths.awk" -f "$scripts/site.awk" "$4" > "$out/$3"
}

command -v cmark-gfm > /dev/null || fail "there is no cmark-gfm, which translates Markdown to HTML; \
'scripts/deps.sh --site' installs it (the package is called cmark-gfm in Debian, Ubuntu and Homebrew)"
is_site() { [ "$(head -n 1 "$1/site.css" 2> /dev/null)" = "$(head -n 1 "$scripts/site.css")" ]; }
[ ! -d "$out" ] || is_site "$out" || [ -z "$(ls -A "$out")" ] ||
    fail "the folder $out has files that site.sh did not write; name a new or an empty folder"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

list_pages > "$work/pages"
missing=$(cut -f 2 "$work/pages" | sort | comm -13 - "$work/all")
[ -z "$missing" ] || fail "no group in scripts/site.sh has the page $(echo "$missing" | head -n 1); add it there"

rm -rf "$out"
mkdir -p "$out"
cp "$scripts/site.css" "$out/"
touch "$work/sources" "$work/pictures"
while IFS=$'\t' read -r _ page _; do
    html=${page%.md}.html
    cmark-gfm --unsafe -e table -e strikethrough -e autolink -e tasklist "$page" |
        write_page "$page" page "${html/README.html/index.html}" -
done < "$work/pages"
sort -u "$work/sources" > "$work/all_sources"
while read -r file; do write_page "$file" source "$file.html" "$file"; done < "$work/all_sources"
sort -u "$work/pictures" | while read -r file; do
    [ ! -e "$file" ] || { mkdir -p "$out/$(dirname "$file")" && cp "$file" "$out/$file"; }
done

cd "$out"
find . -name '*.html' | sed 's|^\./||' | sort | xargs awk -f "$scripts/site_paths.awk" -f "$scripts/site_check.awk" ||
    fail "the pages that these files are made from have links that lead nowhere, or pictures from the network"
echo "$out/index.html: $(wc -l < "$work/pages") pages, $(wc -l < "$work/all_sources") files of source code; all links lead somewhere"
