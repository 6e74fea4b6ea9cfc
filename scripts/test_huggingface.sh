#!/usr/bin/env bash
# test_huggingface.sh: loads checkpoints with transformers, lm-evaluation-harness and llama.cpp, and the events of a run with
# TensorBoard (tests/test_huggingface.py).
# `make test_huggingface` builds the programs that it needs and calls it.
#
#   scripts/test_huggingface.sh [WORD,...]
#       installs the Python packages, unless they are there, and runs the tests, those of transformers also with the oldest
#       version that is supported. WORDs choose tests by how their names begin
#   HUGGINGFACE_PYTHON=PYTHON scripts/test_huggingface.sh [WORD,...]
#       installs nothing, and runs the tests with this Python; what it lacks is said and not run
#   scripts/test_huggingface.sh --install     only installs
#   scripts/test_huggingface.sh --installed   fails unless that has been done
#   scripts/test_huggingface.sh --python      prints the Python that the tests use, or fails and says why there is none
#
# The packages (some gigabytes, with pip) and the source of llama.cpp are installed into a folder of ~/.cache/laser.c that has the
# versions in its name, so that other clones find them. PYTHON names the Python (3.10 or later) to begin with; default: python3.
set -eu
cd "$(dirname "$0")/.."
torch=2.15.0 newest=5.24.0 lm_eval=0.4.13 tensorboard=2.21.0 llama=0.3.36
oldest=4.57.1 # docs/using.md and hf/modeling_laser_gpt.py name it
packages="torch==$torch transformers==$newest lm_eval==$lm_eval tensorboard==$tensorboard safetensors numpy accelerate sentencepiece"
place=${XDG_CACHE_HOME:-~/.cache}/laser.c/torch-$torch-transformers-$newest-$oldest-lm_eval-$lm_eval-tensorboard-$tensorboard-llama-$llama

# Installs everything into a folder, which gets its name when it is complete. uv is a pip that is several times faster.
install() {
    new=$place.$$ # not local: the trap reads it when the script ends
    trap 'rm -rf "$new"' EXIT
    echo "installs into $place, with pip: $packages, transformers $oldest, llama-cpp-python $llama"
    mkdir -p "${place%/*}"
    "${PYTHON:-python3}" -m venv "$new"
    "$new/bin/python" -m pip install --quiet --retries=1 uv
    # shellcheck disable=SC2086 # one package a word
    "$new/bin/uv" pip install --quiet --no-cache --python "$new/bin/python" $packages
    "$new/bin/uv" pip install --quiet --no-cache --python "$new/bin/python" --target "$new/oldest" "transformers==$oldest"
    install_llama_cpp "$new" || echo "not installed: llama-cpp-python, which has to be compiled; to try again, remove $place"
    mv -T "$new" "$place"
    trap - EXIT
}

# llama-cpp-python is compiled from its source package, which also has llama.cpp's converter. Libraries that no test needs are left
# out, and there are few optimisations, as the models of the tests are tiny: this takes a quarter of the time.
install_llama_cpp() { # FOLDER
    local source=$1/llama_cpp_python-$llama
    local quick="-DCMAKE_C_FLAGS_RELEASE=-O1 -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF"
    "$1/bin/python" -m pip download --quiet --no-deps --no-binary :all: --dest "$1" "llama-cpp-python==$llama" &&
        tar -xzf "$source.tar.gz" -C "$1" &&
        sed -i 's/set(LLAMA_BUILD_COMMON ON/set(LLAMA_BUILD_COMMON OFF/' "$source/CMakeLists.txt" &&
        CMAKE_ARGS=$quick "$1/bin/uv" pip install --quiet --no-cache --python "$1/bin/python" "$source" &&
        mkdir "$1/llama.cpp" &&
        mv "$source/vendor/llama.cpp/"{convert_hf_to_gguf.py,conversion,gguf-py} "$1/llama.cpp"
    local code=$?
    rm -rf "$source" "$source.tar.gz"
    return $code
}

# Prints the Python that the tests use. Whether a package that is there can be loaded, the tests find out.
python_of_tests() {
    local python=${HUGGINGFACE_PYTHON:-$place/bin/python}
    [ -n "${HUGGINGFACE_PYTHON:-}" ] || [ -x "$python" ] || python=python3
    if ! "$python" -c 'from importlib.util import find_spec
exit(not all(map(find_spec, ("torch", "transformers", "safetensors", "numpy"))))' 2> /dev/null; then
        echo "$python has no torch and transformers; make test_huggingface installs them"
        return 1
    fi
    echo "$python"
}

case ${1:-} in
    --install) [ -d "$place" ] || install ;;
    --installed) [ -d "$place" ] ;;
    --python) python_of_tests ;;
    *)
        if [ -n "${HUGGINGFACE_PYTHON:-}" ]; then exec "$HUGGINGFACE_PYTHON" tests/test_huggingface.py . "$@"; fi
        [ -d "$place" ] || install
        code=0
        "$place/bin/python" tests/test_huggingface.py . "$@" || code=1
        # the others need what the newest brings
        words=$(tr , '\n' <<< "${1:-transformers}" | { grep '^transformers' || true; } | paste -sd , -)
        [ -z "$words" ] || PYTHONPATH=$place/oldest "$place/bin/python" tests/test_huggingface.py . "$words" || code=1
        exit $code
        ;;
esac
