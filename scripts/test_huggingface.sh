#!/usr/bin/env bash
# test_huggingface.sh: loads checkpoints with Hugging Face's transformers (tests/test_huggingface.py). `make test_huggingface` builds
# the programs that it needs and calls it.
#
#   scripts/test_huggingface.sh [WORD,...]
#       installs torch and the newest transformers into build/huggingface, a virtual environment, and the oldest supported
#       transformers beside it, unless they are there; runs the tests with both. WORDs choose some of them by name
#   HUGGINGFACE_PYTHON=PYTHON scripts/test_huggingface.sh [WORD,...]
#       installs nothing, and runs the tests with this Python, which has torch, transformers, safetensors and numpy
#
# PYTHON names the Python (3.10 or later) from which the virtual environment is made; default: python3.
set -eu
cd "$(dirname "$0")/.."
oldest=4.57.1 # docs/using.md and hf/modeling_laser_gpt.py name it
place=build/huggingface
packages='torch transformers safetensors numpy'

# Says what is going to be installed, and installs it. A folder gets its name when it is complete.
install() {
    echo "installs $packages, and transformers $oldest, into $place (some gigabytes, with pip):"
    rm -rf $place.tmp && mkdir -p build
    set -x
    "${PYTHON:-python3}" -m venv $place.tmp
    # shellcheck disable=SC2086 # one package a word
    $place.tmp/bin/python -m pip install --quiet $packages
    $place.tmp/bin/python -m pip install --quiet --no-warn-conflicts --target $place.tmp/oldest "transformers==$oldest"
    set +x
    mv $place.tmp $place
}

[ -n "${HUGGINGFACE_PYTHON:-}" ] && exec "$HUGGINGFACE_PYTHON" tests/test_huggingface.py . "$@"
[ -d $place ] || install
code=0
$place/bin/python tests/test_huggingface.py . "$@" || code=1
PYTHONPATH=$place/oldest $place/bin/python tests/test_huggingface.py . "$@" || code=1
exit $code
