#!/usr/bin/env bash
# test_docs.sh: runs the commands of README.md, CHANGELOG.md, CONTRIBUTING.md, data/README.md and docs/*.md in a fresh clone, as
# a reader would.
#
#   scripts/test_docs.sh            runs them with the options on the pages, but with tiny models. It takes less than a minute if
#                                   the programs are built; else they are built in the clone. Ends with `N passed, N failed`
#   scripts/test_docs.sh --check    runs no command. Checks that every command is in the table below, and that every option, path,
#                                   file and function() that the pages name exists (`make test` does this)
#   scripts/test_docs.sh --list     prints the commands with their page and line, and what is done with each
#   scripts/test_docs.sh PAGE...    the same for some pages only, also after --check and --list. `make test` runs the commands of
#                                   the course with docs/course/*.md as the pages; CI runs those of the other pages
#
# The commands are read from the pages, so a command that changes on a page is run as it is there. They are the lines of ```sh
# blocks, each text between `backquotes` that begins with a program's name and a space, and each ```python block as a whole. With
# PAGES=folder the pages are taken from that folder.
# shellcheck disable=SC2016,SC2046,SC2086,SC2254 # backquotes are text here; a page is a word; patterns are patterns
set -u
export LC_ALL=C # numbers have a decimal point, whatever the user's language
cd "$(dirname "$0")/.." || exit 1
tree=$PWD mode=run passed=0 failed=0 skipped=0
case ${1:-} in --*) mode=$1 && shift ;; esac
chosen=$* # the pages that are named, or none

# Options that make a model and a run tiny. They are put at the end of a command, because of an option given twice the last counts.
model="--layers=1 --heads=2 --head-dim=16 --embd=32 --mlp-hidden=64 --seq-len=64 --batch=2 --val-tokens=1024 --threads=2"
tiny="$model --total-batch=512 --steps=3 --warmup=1"
demo="DEMO_STEPS=2 DEMO_TOKENS=40 DEMO_HOME=demo TEXT_SOURCES=4 DEPS=skip DEMO_OPTIONS='$model'"

# PATTERN => what is done with a command; the first row whose pattern matches it counts.
#   run                  it is run as it is on the page
#   run + OPTIONS        it is run with these options at its end
#   run ... OPTIONS      it is run with these options instead of the `...` of the page
#   run with VARIABLES   it is run with these variables set
#   no: REASON           it is not run
table='
make demo                               => run with $demo
make demo TEXT_SOURCES=4                => run with $demo
make test                               => no: it calls this script, and CI runs it
make test SAN=1                         => no: CI runs it
make train_gpt                          => run
make build/train_gpt_emulated           => no: CI builds it
make test FILTER=laser                  => no: CI runs all tests
make check                              => no: CI runs it
scripts/test_docs.sh *                  => no: it is this script
make help                               => run
make install PREFIX=*                   => run + PREFIX=$clone/installed
make uninstall PREFIX=*                 => run + PREFIX=$clone/installed
make install                            => no: it writes into /usr/local; with PREFIX it is run
make dist                               => no: needs git, which this clone lacks; a test runs it
make -j2                                => run
scripts/deps.sh --checks                => no: it may install packages
scripts/deps.sh --site                  => no: it may install packages
make site                               => run
make CJSON=DIR                          => no: needs a folder of libraries; a test makes one
make test_gpu                           => no: needs a GPU
make test_gpu TOOL=*                    => no: needs a GPU
make test_gpu && *                      => no: needs a GPU
make bench_gpu                          => no: needs a GPU
make test_huggingface                   => no: it installs some gigabytes; CI does both
make test_huggingface *                 => no: CI runs it
python3 -m venv venv                    => no: it is for the downloads after it
venv/bin/pip install *                  => no: a download
venv/bin/python <<< *wandb*             => no: it sends a run to the network
venv/bin/python <<< *                   => run
venv/bin/python -m lm_eval *            => run
venv/bin/python scripts/to_gguf.py *    => run
make train_gptcu                        => no: needs nvcc; CI runs it where nvcc is
scripts/check_gpu.sh                    => no: needs a GPU
scripts/bench_gpu_pytorch.py --help     => run
mpirun -n 8 ./train_gptcu ...           => no: needs GPUs
./train_gptcu --data=DIR *              => run + $tiny --dtype=fp32 --seq-len=16 --total-batch=32 --steps=2 --val-tokens=64
make bench                              => run with BENCH="--quick --filter=memory" PYTHONS=no-python
make bench PYTHONS=*                    => no: needs PyTorch, a download
build/bench --help                      => run
build/bench *                           => run + --quick --filter=memory --json=bench.json
./test_gpt --filter=laser               => no: CI runs all tests
make build/course                       => run
make grammar                            => run
make course                             => run
make exercise-*                         => no: it fails until its reader has completed it; a test does both
build/course *                          => run
cc * docs/course/*                      => run
./tiny_gpt *                            => run + --layers=1 --batch=1 --steps=2
./grammar *                             => run
cc -O1 -fopenmp tests/check_attention.c * => run
cc -O3 *                                => run + -O0 -o by-hand
./prepare --threads=1                   => no: a part of a command
./prepare --out=data/gpt2 *             => no: needs GPT-2, a download
./prepare *                             => run
zcat dump.jsonl.gz | ./prepare *        => run
scripts/fetch_c4.sh *                   => run + --url=file://$clone/published
./train_gpt --help                      => run
./train_gpt --init-from=gpt2 *          => no: needs GPT-2, a download; a test has a small one
./train_gpt * --resume-schedule=changed => no: needs the checkpoints of long runs; a test has short ones
./train_gpt * --attn=sigmoid            => no: a page adds this kind, and a test does what it says
./train_gpt *                           => run + $tiny
./generate *                            => run + --tokens=8
./analyze *                             => run
./explain *                             => run
./evaluate *                            => run
./report runs/sigmoid *                 => no: a page adds this kind, and a test does what it says
./report --fit *                        => no: needs runs of several sizes whose losses follow a power law; a test has some
./report --expect=docs/*                => no: these are the losses of the whole demo
./report *                              => run
scripts/ab.sh *                         => run + $tiny
scripts/ablations.sh *                  => run + --seeds=2 --steps=8 --only=laser --out=runs/ablations-$RANDOM -- $model --threads=1
scripts/reproduce_c4_301m.sh *          => run + --scale=1/1000000 --on=cpu --text=crawl.jsonl.gz --yes --out=runs/reproduced-$RANDOM
scripts/run_resilient.sh COMMAND...     => run ... ./train_gpt --data=data/mine --out=runs/resilient $tiny
scripts/scaling_model.sh gpus           => run
mpirun --hostfile *                     => no: needs a cluster
mpirun -np 2 ./train_gpt ...            => run ... --data=data/mine $tiny
mpirun -np 2 *                          => run + $tiny
sbatch *                                => no: needs a cluster
'

pages() { # the pages that are named, else all
    if [ -n "$chosen" ]; then
        printf '%s\n' $chosen
    else
        (cd "${PAGES:-$tree}" && ls README.md CHANGELOG.md CONTRIBUTING.md data/README.md docs/*.md docs/*/*.md 2> /dev/null)
    fi
}

# Prints PAGE:LINE^COMMAND for each command of a page, and PAGE:LINE^^COMMAND for one in an indented block, which is an error,
# because readers and tests look for commands in ```sh blocks. (^ is the character 037.)
commands_of() { # PAGE
    awk -v page="$1" '
        function out(line, text) {
            sub(/[ \t]+# .*$/, "", text); gsub(/^[ \t]+|[ \t]+$/, "", text)
            if (text != "") printf "%s:%d\037%s\n", page, line, text
        }
        function is_command(text) {
            return text ~ /^(\.\/[a-z_]+|make|cc|mpirun|sbatch|zcat|build\/[a-z_]+|scripts\/[a-z_0-9]+\.(sh|py)) /
        }
        function quoted(text) { gsub(/\\/, "\\\\", text); gsub(/\047/, "\\\047", text); return text "\\n" }
        function spans(  n, parts, i) { # the commands between the backquotes of a paragraph
            n = split(paragraph, parts, "`")
            for (i = 2; i < n; i += 2) if (is_command(parts[i])) out(begun, parts[i])
            paragraph = ""
        }
        /^```/ {
            spans()
            if (fence == "python") printf "%s:%d\037venv/bin/python <<< $\047%s\047\n", page, first, block
            fence = fence ? "" : $0 == "```sh" ? "sh" : $0 == "```python" ? "python" : "other"
            block = ""; first = NR
            next
        }
        fence == "python" { block = block quoted($0); next }
        fence == "sh" {
            if (held == "") first = NR
            held = held $0
            if (sub(/\\$/, "", held)) next
            out(first, held); held = ""; next
        }
        fence == "other" { next }
        /^    / {
            spans(); text = $0; sub(/^ +/, "", text)
            if (is_command(text " ")) printf "%s:%d\037\037%s\n", page, NR, text
            next
        }
        /^[ \t]*$/ { spans(); next }
        { if (paragraph == "") begun = NR; paragraph = paragraph " " $0 }
        END { spans() }' "${PAGES:-$tree}/$1"
}

patterns=() hows=()
while IFS= read -r row; do
    [ -n "$row" ] || continue
    pattern=${row%%=>*}
    patterns+=("${pattern%"${pattern##*[! ]}"}") hows+=("${row#*=> }")
done <<< "$table"

problem() { failed=$((failed + 1)) && printf 'FAIL %s\n' "$*"; }

# Looks up every command of the pages in the table. Each gets a line in $list: PLACE^COMMAND^WHAT IS DONE. Counts problems.
list='' known=0
check() {
    local place command text row used=' '
    while IFS=$'\037' read -r place command text; do
        if [ -z "$command" ]; then
            problem "$place: a command outside of a \`\`\`sh block: $text"
            continue
        fi
        for row in "${!patterns[@]}" none; do # stops at the first row that matches
            if [ "$row" != none ]; then case $command in ${patterns[row]}) break ;; esac fi
        done
        if [ "$row" = none ]; then
            problem "$place: no row of the table in scripts/test_docs.sh is for: $command"
            continue
        fi
        used+="$row " known=$((known + 1))
        list+=$place$'\037'$command$'\037'${hows[row]}$'\n'
    done < <(for page in $(pages); do commands_of "$page"; done)
    [ -n "$chosen" ] || for row in "${!patterns[@]}"; do
        case $used in *" $row "*) ;; *) problem "no page has a command for the row: ${patterns[row]}" ;; esac
    done
}

# ---- names: the options, files and functions of the pages, and the options in the comments of scripts, exist ----

# Options of other programs that the pages and scripts call: mpirun, srun, make and so on.
foreign=' model tasks device outtype logdir mca hostfile map-by bind-to kill-on-bad-exit nodes warn-on-spills ntasks-per-node '

# Files that programs make, that belong to other projects, or that docs/add-an-attention.md tells its reader to write.
made='bench.json bench_gpu.json nccl.h vocab.json merges.txt spiece.model tokenizer.json config.json model.safetensors shards.json
attention_sigmoid.h attention_sigmoid.cuh
report.html loss.png log.jsonl summary.json trainer_state.json optimizer_state.json runs/ data/ build/ include/ lib/ packages/'

# Prints every option of our programs: those in their tables, --help and --version, and those that scripts and programs without
# such a table compare their arguments with.
our_options() {
    {
        printf '%s\n' help version
        cat train_gpt.c gpt/*/*.h data/*.[ch] tools/*.[ch] |
            grep -oE '(^|[^a-z_])(ROW[A-Z_]*\(|\{)("[^"]*", *)?"[a-z0-9][a-z0-9-]*", *OPTION_' | grep -oE '"[a-z0-9-]+", *OPTION_' | cut -d'"' -f2
        cat test_gpt.c tests/test_cuda.cu tests/fuzz.c tools/*.cu scripts/*.sh scripts/*.py | sed 's/^[ \t]*#.*//' |
            grep -oE -e '--[a-z][a-z0-9-]*' | cut -c3-
    } | sort -u
}

# Prints FILE:LINE^WORD for each text in the files that matches a pattern.
words_of() { # PATTERN FILE...
    local pattern=$1
    shift
    grep -noE -e "$pattern" /dev/null "$@" | sed "s/:\\([0-9]*\\):/:\\1$(printf '\037')/"
}

check_names() {
    local place word name options
    options=$(our_options)
    while IFS=$'\037' read -r place word; do
        name=${word##*--}
        case $foreign in *" $name "*) continue ;; esac
        grep -qx -e "$name" <<< "$options" || problem "$place: no program has the option --$name"
    done < <(cd "${PAGES:-$tree}" && words_of '(^|[^A-Za-z0-9-])--[a-z][a-z0-9-]*' $(pages))
    [ -n "${PAGES:-}$chosen" ] || while IFS=$'\037' read -r place word; do
        name=${word##*--}
        case $foreign in *" $name "*) continue ;; esac
        grep -qx -e "$name" <<< "$options" || problem "$place: no program has the option --$name"
    done < <(words_of '^[ \t]*#( |.*[^A-Za-z0-9-])--[a-z][a-z0-9-]*' scripts/*.sh | grep -v '#SBATCH')
    while IFS=$'\037' read -r place word; do
        name=${word//\`/}
        case " $(tr '\n' ' ' <<< "$made") " in *" $name "*) continue ;; esac
        case $name in
            build/*) ;; # made by make
            */*) [ -e "$tree/$name" ] || problem "$place: there is no file $name" ;;
            *) [ -n "$(cd "$tree" && find ./* -name "$name" -print -quit)" ] || problem "$place: there is no file called $name" ;;
        esac
    done < <(cd "${PAGES:-$tree}" && words_of '`[A-Za-z0-9_./-]*(\.(c|h|cu|cuh|sh|py|md)|[a-z]/)`' $(pages))
    while IFS=$'\037' read -r place word; do
        name=${word//[\`()]/}
        (cd "$tree" && grep -rqE --include='*.[ch]' --include='*.cu*' --include='*.py' --exclude=test_docs.h -e "(^|[^A-Za-z0-9_])$name *\(" ./*) || problem "$place: there is no function $name()"
    done < <(cd "${PAGES:-$tree}" && words_of '`[A-Za-z_][A-Za-z0-9_]*\(\)`' $(pages))
}

# ---- the fresh clone, and small files in place of those that the pages name ----

has() { # PATTERN: whether a command of the pages matches it
    local place command how
    while IFS=$'\037' read -r place command how; do
        case $command in $1) return 0 ;; esac
    done <<< "$list"
    return 1
}

programs='train_gpt prepare report generate analyze explain evaluate grammar'

make_clone() {
    clone=$(mktemp -d) || exit 1
    trap 'rm -rf "$clone"' EXIT
    trap 'exit 130' INT TERM
    git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$clone" || exit 1
    local program
    mkdir -p "$clone/build"
    for program in $programs build/course build/bench build/flags build/*.d; do
        [ ! -e "$program" ] || cp -p "$program" "$clone/$program" # make builds the others, and also these if they are out of date
    done
    if has 'venv/bin/python*' && python=$(scripts/test_huggingface.sh --python); then
        mkdir -p "$clone/venv/bin"
        printf '#!/bin/sh\nexec "%s" "$@"\n' "$(realpath -s "$(command -v "$python")")" > "$clone/venv/bin/python"
        chmod +x "$clone/venv/bin/python"
        ln -s "${LLAMA_CPP:-$("$python" -c 'import sys; print(sys.prefix)')/llama.cpp}" "$clone/llama.cpp"
    fi
    [ ! -x build/train_gpt_emulated ] || cp -p build/train_gpt_emulated "$clone/train_gptcu"
    cd "$clone" || exit 1
    make -s $programs > make.log 2>&1 || { cat make.log >&2 && exit 1; }
}

stories() { ./grammar --bytes="$1" --seed="$2" --out=stories.txt > /dev/null && grep -v endoftext stories.txt; } # BYTES SEED
as_json() { sed 's/[\\"]/\\&/g' | awk 'NF { printf "{\"text\":\"%s\",\"url\":\"-\"}\n", $0 }'; }

make_files() {
    mkdir notes my-books gpt2 published
    stories 300000 1 > book.txt
    grep -v '^$' book.txt | cut -c1-20 | head -n 20 > prompts.txt
    stories 100000 2 | as_json | gzip > crawl.jsonl.gz
    stories 100000 3 | as_json | gzip > dump.jsonl.gz
    stories 100000 4 | as_json > corpus.jsonl
    stories 60000 5 > notes/a.txt && stories 60000 6 > notes/b.md
    stories 60000 7 | as_json > notes/c.jsonl && stories 60000 8 | as_json | gzip > notes/d.json.gz
    stories 100000 9 > my-books/one.txt && stories 100000 10 > my-books/two.txt
    # files of GPT-2's format, made from a small learned vocabulary
    ./prepare --quiet --out=learned --vocab=400 book.txt > /dev/null 2>&1 || problem "stand-ins: ./prepare"
    awk '/"vocab": \{/ { inside = 1; print "{"; next } inside && /^ *\}/ { print "}"; exit } inside' \
        learned/tokenizer.json > gpt2/vocab.json
    { echo '#version: 0.2' && awk '/"merges": \[/ { inside = 1; next } inside && /^ *\]/ { exit } inside' \
        learned/tokenizer.json | sed 's/^ *"//; s/",\{0,1\}$//; s/\\\([\\"]\)/\1/g'; } > gpt2/merges.txt
    # files with the names and the format of C4: 24 of 1,032
    stories 400000 11 | as_json | awk '{
        n = (NR - 1) % 24
        file = n < 16 ? sprintf("c4-train.%05d-of-01024.json", n) : sprintf("c4-validation.%05d-of-00008.json", n - 16)
        print > "published/" file }'
    gzip published/*.json
    for n in 1 2 3; do
        printf '{"support": "The key is %s.", "question": "What is it?", "distractor1": "a", "distractor2": "b", ' "$n"
        printf '"distractor3": "c", "correct_answer": "a key"}\n'
    done > questions.jsonl
    awk '/^```/ { inside = $0 == "```yaml"; next } inside' docs/using.md > keys.yaml
    ln -s data/mine DIR
}

# Makes a spiece.model with 32,000 pieces, as T5's has; all but 400 of them occur in no text. Without the package
# sentencepiece a small model of the tests is used.
make_spiece() { # unigram | bpe
    if ! command -v spm_train > /dev/null; then
        cp "tests/fixtures/sentencepiece/$1.model" spiece.model
        return
    fi
    seq -f '<nothing_%.0f>' 1 31600 > nothing.txt
    spm_train --input=book.txt --model_prefix=spiece --vocab_size=32000 --control_symbols_file=nothing.txt \
        --model_type="$1" > spiece.log 2>&1 || problem "spm_train: $(tail -n 1 spiece.log)"
}

# ---- running ----

lacks() { # COMMAND: prints what is missing on this machine to run it
    case $1 in
        mpirun*) command -v mpirun > /dev/null && ldd ./train_gpt | grep -q libmpi || echo "there is no MPI" ;;
        ./train_gptcu*) [ -x train_gptcu ] || echo "the emulated GPU trainer is not built (make test builds it)" ;;
        venv/bin/python*)
            local needs=transformers
            case $1 in *lm_eval*) needs=lm_eval ;; *llama*) needs=llama_cpp ;; esac
            if [ ! -x venv/bin/python ]; then
                echo "$python"
            elif ! venv/bin/python -c "import $needs" 2> /dev/null; then
                echo "$python has no $needs"
            elif [ $needs = llama_cpp ] && [ ! -e llama.cpp ]; then
                echo "there is no source of llama.cpp; LLAMA_CPP=DIR names one"
            fi
            ;;
        make\ site) command -v cmark-gfm > /dev/null || echo "there is no cmark-gfm" ;;
        *.py*) command -v python3 > /dev/null || echo "there is no python3" ;;
    esac
}

# Prints the command of the page with the changes that its row makes.
command_as_run() { # COMMAND HOW
    local command=$1 how=$2
    command=${command//step-00001000/step-00000003} # the last checkpoint of a tiny run
    how=${how//'$tiny'/$tiny} how=${how//'$model'/$model} how=${how//'$demo'/$demo} how=${how//'$clone'/$clone}
    case $how in
        'run + '*) command="$command ${how#run + }" ;;
        'run with '*) command="${how#run with } $command" ;;
        'run ... '*)
            command=${command/COMMAND.../...}
            command=${command/.../${how#run ... }}
            ;;
    esac
    printf '%s' "$command"
}

try() { # PLACE COMMAND HOW
    local reason began=$SECONDS command out shown=${2%%\\n*}
    case $done in *$'\n'"$2"$'\n'*) return ;; esac
    done+=$2$'\n'
    case $3 in no:*) reason=${3#no: } ;; *) reason=$(lacks "$2") ;; esac
    if [ -n "$reason" ]; then
        skipped=$((skipped + 1))
        printf '%-4s %-22s %s  (%s)\n' -- "$1" "$shown" "$reason"
        return
    fi
    command=$(command_as_run "$2" "$3")
    case $2 in # several commands of the pages write the same folder, so it is removed before each of them
        *--verify*) ;;
        *./prepare*--out=*) out=${2#*--out=} && rm -rf "${out%% *}" ;;
    esac
    if bash -c "$command" > output.log 2>&1 < /dev/null; then
        passed=$((passed + 1))
        printf '%-4s %-22s %s  (%d s)\n' ok "$1" "$shown" $((SECONDS - began))
    else
        problem "$(printf '%-22s %s\n     as run: %s\n' "$1" "$2" "$command")"
        tail -n 3 output.log | sed 's/^/     /'
    fi
}

try_all() { # PATTERN: runs the commands whose PLACE^COMMAND matches it
    local place command how done=$'\n' # a command that is there twice is run once
    while IFS=$'\037' read -r place command how; do
        case $place^$command in ^) ;; $1) try "$place" "$command" "$how" ;; esac
    done <<< "$list"
}

case $mode in run | --check | --list) ;; *) echo "error: '$mode': expected --check, --list or pages" >&2 && exit 2 ;; esac
for page in $chosen; do
    [ -f "${PAGES:-$tree}/$page" ] || { echo "error: there is no page $page; expected a path such as docs/course/README.md" >&2 && exit 2; }
done
check
check_names
if [ "$mode" = --list ]; then printf '%s' "$list" | tr '\037' '\t'; fi
if [ "$mode" != run ]; then
    printf '%d commands are known, %d problems\n' "$known" "$failed"
    [ "$failed" -eq 0 ]
    exit
fi
export HF_HUB_OFFLINE=1 # nothing is downloaded
unset MAKELEVEL && export MAKEFLAGS=NVCC= # flags of a make that called this script are not for the clone; no GPU program is compiled there
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_rmaps_base_oversubscribe=1 RESILIENT_PAUSE=0 C4_PAUSE=0
make_clone
make_files
if has '*spiece.model*'; then make_spiece unigram; fi
try_all '?*'
if has '*spiece.model*'; then
    make_spiece bpe
    rm -rf data/c4
    echo "once more with a SentencePiece model of the other kind, bpe:"
    try_all 'data/README.md*data/c4 *'
fi
printf '%d passed, %d failed, %d not run\n' $passed $failed $skipped
[ $failed -eq 0 ]
