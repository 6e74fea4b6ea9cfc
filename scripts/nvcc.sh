#!/bin/sh
# Runs nvcc with the given arguments. It turns two notes of the assembler into warnings, because they mean that a kernel is
# slow: setmaxnreg is ignored (C7508), and wgmma instructions wait for each other (C7510 to C7514, C7520). With CI set these are
# errors, and so are all warnings, also those about registers that are spilled to memory. Spills of at most SPILLED bytes a thread are not
# reported, since their cost cannot be measured and they vary with the version of nvcc. C7519, a fence that was added where wgmma
# needs one, is harmless and not counted.
#
#   scripts/nvcc.sh NVCC -Xptxas --warn-on-spills [arguments]
export LC_ALL=C # messages of nvcc are in English, and numbers have a decimal point, whatever the user's language
SPILLED=16
said=$(mktemp) || exit 1
trap 'rm -f "$said"' EXIT
"$@" 2> "$said"
code=$?
awk -v ci="${CI:-}" -v spilled="$SPILLED" '
    / bytes spill stores/ { bytes = $0; sub(/ bytes spill stores.*/, "", bytes); sub(/.* /, "", bytes); if (bytes + 0 <= spilled) next }
    { print }
    /\(C75(08|1[0-4]|20)\)/ { slow++ }
    /warning|\(C75(08|1[0-4]|20)\)/ { warnings++ }
    END {
        if (slow) print (ci ? "error" : "warning") ": setmaxnreg is ignored, or wgmma serialized, in " slow " of the lines above"
        else if (ci && warnings) print "error: warnings are errors with CI set"
        exit ci && warnings
    }' "$said" >&2
slow=$?
[ "$code" != 0 ] && exit "$code"
exit "$slow"
