#!/bin/sh
# version.sh: prints what the sources here are, as the compiler's options that --version, config.json and manual pages take it from:
# the tag of the release if this commit has one, the commit, and its date.
#
# In a clone git is asked. `make dist` and the archives of code hosts have no git: `git archive` fills in the lines below then
# (.gitattributes says so). With SOURCE_DATE_EPOCH set, that is the date. POSIX sh.
#
#   scripts/version.sh          -DBUILD_TAG='"v0.1"' -DBUILD_COMMIT='"0123456789ab"' -DBUILD_DATE='"2026-01-31"'
#   scripts/version.sh --name   the name of a release: 0.1, or the commit if it has no tag
set -eu
export LC_ALL=C GIT_OPTIONAL_LOCKS=0

cd "$(dirname "$0")/.."
# shellcheck disable=SC2016 # git archive fills these in: the commit, its date, and what points to it
commit='$Format:%H$' date='$Format:%cs$' names='$Format:%D$'

if git ls-files --error-unmatch train_gpt.c > /dev/null 2>&1; then
    tag=$(git describe --exact-match --tags --match 'v[0-9]*' 2> /dev/null) || tag=
    commit=$(git rev-parse --short=12 HEAD)
    date=$(git log -1 --date=short --format=%cd)
    # changes that are not committed are named, and are no release
    if [ -n "$(git status --porcelain --untracked-files=no)" ]; then commit="$commit with changes" tag=; fi
elif [ "${#commit}" = 40 ]; then
    tag=$(printf '%s\n' "$names" | tr ',' '\n' | sed -n 's/^ *tag: \(v[0-9].*\)$/\1/p' | head -n 1)
    commit=$(printf '%.12s' "$commit")
else # the files were copied by other means
    commit=unknown date='' tag=''
fi
if [ -n "${SOURCE_DATE_EPOCH:-}" ]; then # GNU's date, then BSD's
    date=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%d 2> /dev/null || date -u -r "$SOURCE_DATE_EPOCH" +%Y-%m-%d)
fi
case ${1:-} in
    '') printf "%s\n" "-DBUILD_TAG='\"$tag\"' -DBUILD_COMMIT='\"$commit\"' -DBUILD_DATE='\"$date\"'" ;;
    --name) name=${tag#v} && printf '%s\n' "${name:-${commit%% *}}" ;;
    *) echo "error: '$1': expected nothing or --name" >&2 && exit 2 ;;
esac
