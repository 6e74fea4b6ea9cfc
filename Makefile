# make                the trainer and its tools, beside this file: train_gpt, prepare, report, generate, analyze, explain,
#                     evaluate, grammar
# make help           this text
#
# Try it
#   make demo         text -> two models that differ only in --attn -> table, curves, report.html, loss.png, samples
#   make bench        speed against the machine's limits, into bench.json; docs/performance.md
#   make train_gptcu  the trainer on a GPU (needs nvcc); docs/gpu.md
#   make bench_gpu    the GPU trainer's speed, as shares of the GPU's measured peak, into bench_gpu.json
#
# Change it (CONTRIBUTING.md)
#   make test         every test; the GPU's kernels are emulated on the CPU. FILTER=laser,rope builds and runs only the tests
#                     with one of these words in their names; SAN=1 builds with the address and undefined-behaviour sanitizers
#   make check        what needs no run: formatting, shell scripts, static analysis, every header alone, one-way dependencies
#   make lint         the first two of these, in seconds
#   make test_huggingface   loads checkpoints with transformers, lm-eval and llama.cpp, and events with TensorBoard; it installs
#                           them in ~/.cache, and says so
#   make test_gpu     the tests of the GPU's kernels on a GPU; TOOL=compute-sanitizer runs them under NVIDIA's checks
#   make fuzz         the parsers of files against any bytes, FUZZ_SECONDS=600 each (needs clang)
#   make clean        removes everything that was built
#   make exercise-4   compiles and checks exercise 4 of docs/course, docs/course/exercises/exercise_4.c
#   make course       draws the pictures of docs/course again
#   make site         README.md, docs/ and the other pages as HTML in build/site, for a browser or any web server (needs cmark-gfm)
#   make dist         the release as laser.c-VERSION.tar.gz: what is committed, which builds without git
#
# Install it
#   make install      the programs, their manual pages, laser.h and laser.pc (for pkg-config) into bin/, share/man/man1/, include/
#                     and share/pkgconfig/ of the folder PREFIX
#   make uninstall    removes these files
#
# Settings: make NAME=VALUE ...
#   CC=clang CXX=clang++         the compilers of C and, for the emulated GPU, C++
#   ARCH=x86-64-v3               the processor to compile for; default: native, this one
#   CFLAGS=-O2                   optimisation; default: -O3 -g1
#   CI=1                         warnings are errors, and a tool that `make check` lacks is one too
#   MPI=no NCCL=no               builds without MPI or NCCL where they are installed
#   CUDA_ARCHS="80 90a"          the GPUs to compile for; default: those of this machine, else "80 90a 100"
#   CJSON=DIR                    a folder with include/ and lib/ of cJSON (and zlib, xxhash, stb), for those who may not install them
#   DEPS=skip                    `make demo` and `make test` install nothing, and print the command that would do it
#   BENCH=--quick                options of `make bench` and `make bench_gpu`
#   PYTHONS="python3 venv/bin/python"   interpreters whose PyTorch `make bench` and `make bench_gpu` time at the same steps
#   HUGGINGFACE_PYTHON=PYTHON    a Python that has torch and transformers, for `make test_huggingface` and `make test`
#   GPT2=DIR TEXT=FILE           `make bench` also times the tokenizer: GPT-2's vocab.json and merges.txt, and a text
#   SOURCE_DATE_EPOCH=N          the date that --version tells, in place of the commit's
#   PREFIX=DIR                   where `make install` installs; default: /usr/local
#   DESTDIR=DIR                  a folder in which `make install` makes PREFIX, for packages of a distribution
#   DIST=DIR                     where `make dist` writes the archive; default: this folder
#
# Found without being named: OpenMP, MPI (mpicc), CUDA (nvcc), NCCL, OpenBLAS and oneDNN (for `make bench`), zstd; and libraries
# that scripts/deps.sh unpacked into packages/, conda's and Homebrew's.

# As many compilers at a time as there are cores; -jN is another number. A make that another one started takes that one's.
# Several goals, such as `make clean all`, are made one after the other.
ifeq ($(MAKELEVEL)$(word 2,$(MAKECMDGOALS)),0)
MAKEFLAGS += -j$(or $(shell getconf _NPROCESSORS_ONLN 2> /dev/null),1)
endif

CC     ?= cc
ARCH   ?= native
# -g1: functions and lines for a debugger's backtrace. -g adds the variables, and a fourth to the time of compiling.
CFLAGS ?= -O3 -g1
# Not -ffast-math: infinities and NaNs keep their meaning. These two only let sqrt and comparisons become vector code.
FLOAT  := -fno-math-errno -fno-trapping-math
# Errors in continuous integration; a newer compiler with a new warning stops nobody who only wants to train.
WARN   := -Wall -Wextra -Wpedantic $(if $(CI),-Werror)

# A # inside a call begins a comment in GNU make before 4.3.
H := \#
COMMA := ,

# try(flags, program): the flags when this compiler accepts them and the program links, else nothing
try = $(shell d=$$(mktemp -d); printf '%b' '$(2)' > $$d/t.c; \
        $(CC) $(CFLAGS) $$d/t.c -o $$d/t $(1) > /dev/null 2>&1 && echo '$(1)'; rm -rf $$d)

GOALS := $(or $(MAKECMDGOALS),all)
# The single letters among make's flags: a dry run (-n) installs nothing.
DRY_RUN := $(findstring n,$(filter-out --%,$(firstword -$(MAKEFLAGS))))
# Where headers and libraries are that the compiler does not find by itself.
TRY_LIBRARIES = $(call try,$(1) -lcjson -lz,$(H)include <cjson/cJSON.h>\n$(H)include <zlib.h>\n$(H)include <xxhash.h>\nint main(void){return !cJSON_CreateObject() || !zlibVersion();}\n)
PLACES :=
ifneq ($(filter-out help clean lint check demo dist uninstall course exercise-%,$(GOALS)),)
FOUND := $(call TRY_LIBRARIES,)
# On a fresh machine `make test` calls scripts/deps.sh, which says what is missing and what it is going to run before it installs
# anything. So does `make demo`; every other target stops below and names scripts/deps.sh.
ifneq ($(filter test,$(GOALS)),)
ifeq ($(DRY_RUN),)
ifeq ($(and $(FOUND),$(call try,-fsyntax-only,$(H)include <stb/stb_image_write.h>\nint main(void){return 0;}\n)),)
$(shell scripts/deps.sh >&2)
FOUND := $(call TRY_LIBRARIES,)
endif
endif
endif
ifneq ($(CJSON),)
PLACES := $(shell CJSON='$(CJSON)' scripts/deps.sh --flags)
else ifeq ($(FOUND),)
PLACES := $(shell scripts/deps.sh --flags)
endif
ifeq ($(call TRY_LIBRARIES,$(PLACES)),)
$(error a C compiler called '$(CC)', cJSON, zlib or xxhash is missing$(if $(CJSON), (also in CJSON=$(CJSON))); scripts/deps.sh tells which and what to do)
endif
endif

MARCH  := $(call try,-march=$(ARCH),int main(void){return 0;}\n)
# Apple's clang has the option behind another one, and Homebrew the library.
OMP_TEST := $(H)include <omp.h>\nint main(void){return omp_get_max_threads() < 1;}\n
OPENMP := $(or $(call try,-fopenmp,$(OMP_TEST)),$(call try,$(shell scripts/deps.sh --flags) -Xpreprocessor -fopenmp -lomp,$(OMP_TEST)))
ifneq ($(MPI),no)
MPI_FLAGS := $(shell command -v mpicc > /dev/null && { mpicc --showme:compile && mpicc --showme:link || mpicc -show | cut -d' ' -f2-; } 2> /dev/null)
MPI_FLAGS := $(if $(MPI_FLAGS),$(call try,-DHAVE_MPI $(filter-out -pthread,$(MPI_FLAGS)),$(H)include <mpi.h>\nint main(int c,char**v){return MPI_Init(&c,&v);}\n))
endif
OPENBLAS := $(call try,-DHAVE_CBLAS -I/usr/include/x86_64-linux-gnu -lopenblas,$(H)include <cblas.h>\nint main(void){return 0;}\n)
ONEDNN   := $(call try,-DHAVE_DNNL -ldnnl,$(H)include <oneapi/dnnl/dnnl.h>\nint main(void){return 0;}\n)

# Each of these programs is one file with all that it includes, so what its main does not call can be left out. (clang has no such
# option.) It is a third of the compiler's time for those that have the trainer's model, and do not train it.
WHOLE    := $(filter-out -Werror,$(call try,-fwhole-program -Werror,int main(void){return 0;}\n))

# For ./prepare, so that it reads .zst files too.
ZSTD     := $(call try,-DHAVE_ZSTD -lzstd,$(H)include <zstd.h>\nint main(void){return !ZSTD_createDCtx();}\n)

# The GPU: nvcc where it is; and a C++ compiler, which tests the kernels on the CPU (cuda/emulate.h).
CXX    ?= c++
HAVE_CXX := $(shell command -v $(CXX))
NVCC   := $(shell command -v nvcc || ls /usr/local/cuda/bin/nvcc 2> /dev/null)
CUDA_HOME := $(patsubst %/bin/nvcc,%,$(NVCC))
# NCCL beside it, for several GPUs; NCCL=no builds without. Tried only where it is used.
NCCL_FLAGS = $(if $(and $(MPI_FLAGS),$(filter-out no,$(or $(NCCL),yes))),$(call try,-DHAVE_NCCL -I$(CUDA_HOME)/include -L$(CUDA_HOME)/lib64 -lnccl,$(H)include <nccl.h>\nint main(void){int v;return ncclGetVersion(&v);}\n))
HAVE_GPU := $(shell nvidia-smi -L 2> /dev/null | grep GPU)
# Compute capabilities: those of the GPUs here, else the ones of data centers. Hopper's wgmma exists only in its 90a.
GPU_CAPS = $(sort $(subst .,,$(shell nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null | grep -xE '[0-9]+\.[0-9]+')))
CUDA_ARCHS ?= $(or $(if $(HAVE_GPU),$(GPU_CAPS)),80 90a 100)
override CUDA_ARCHS := $(patsubst 90,90a,$(CUDA_ARCHS))

# Programs land beside this file, those of `make SAN=1` in build/san/.
P :=
ifdef SAN
P      := build/san/
CFLAGS := -O1 -g1 -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
# Which headers a program was made from is what its compiler says: it writes them to a .d file, which the last lines here read.
DEPENDENCIES = -MMD -MP -MT $@ -MF $(P)build/$(@F).d
COMPILE = $(CC) -std=gnu11 $(CFLAGS) $(FLOAT) $(MARCH) $(OPENMP) $(WARN) $(filter-out -L% -Wl%,$(PLACES))
# Where the linker finds them; every program names it.
CJSON_LIB = $(filter -L% -Wl%,$(PLACES)) -lcjson -lz

# What --version and a run's config.json tell: the commit that a program was built from, its tag if it is a release, and its date
# (not that of the build: the same sources give the same program), or SOURCE_DATE_EPOCH. Another commit alone builds nothing anew.
VERSION = $(eval VERSION := $(shell SOURCE_DATE_EPOCH='$(SOURCE_DATE_EPOCH)' scripts/version.sh))$(VERSION)

PROGRAMS := $(P)train_gpt $(P)prepare $(P)report $(P)generate $(P)analyze $(P)explain $(P)evaluate $(P)grammar

# The GPU's program takes nvcc longer than all others together: without a GPU here only who asks for it waits for it.
all: $(PROGRAMS) $(if $(P),,$(if $(HAVE_GPU),$(if $(NVCC),train_gptcu)))
ifneq ($(if $(HAVE_GPU),,$(NVCC)),)
	@echo "note: nvcc is here, a GPU is not; make train_gptcu builds the trainer for one"
endif
ifeq ($(OPENMP),)
	@echo "note: $(CC) has no OpenMP, so everything runs on one core (Debian: gcc has it; clang needs libomp-dev)"
endif

# The text of modeling_laser_gpt.py as lines of C: the trainer writes it into checkpoints. It is committed, so that the trainer is
# compiled by one command also without make.
hf/modeling_laser_gpt.h: hf/modeling_laser_gpt.py
	@{ echo '/* Made from modeling_laser_gpt.py by make: its lines. */'; echo 'static const char *const modeling_laser_gpt[] = {'; \
	sed 's/[\\"]/\\&/g; s/.*/    "&\\n",/' $<; echo '};'; } > $@

# What the compiler is told, so that another CC, ARCH or CFLAGS builds everything anew.
TOLD = $(COMPILE) $(WHOLE) -MMD $(MPI_FLAGS) $(OPENBLAS) $(ONEDNN) $(ZSTD)
$(P)build/flags: FORCE
	@mkdir -p $(dir $@)
	@echo '$(TOLD)' | cmp -s - $@ || echo '$(TOLD)' > $@

$(P)train_gpt: train_gpt.c $(P)build/flags
	$(COMPILE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(MPI_FLAGS) $(CJSON_LIB) -lm
$(P)generate: tools/generate.c $(P)build/flags
	$(COMPILE) $(WHOLE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)analyze: tools/analyze.c $(P)build/flags
	$(COMPILE) $(WHOLE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)explain: tools/explain.c $(P)build/flags
	$(COMPILE) $(WHOLE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)evaluate: tools/evaluate.c $(P)build/flags
	$(COMPILE) $(WHOLE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)prepare: data/prepare.c $(P)build/flags
	$(COMPILE) $(WHOLE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(ZSTD) $(CJSON_LIB) -lm
$(P)report: tools/report.c $(P)build/flags
	$(COMPILE) $(WHOLE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)grammar: data/grammar.c $(P)build/flags
	$(COMPILE) $(WHOLE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)build/bench: tools/bench.c $(P)build/flags
	$(COMPILE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(OPENBLAS) $(ONEDNN) $(CJSON_LIB) -lm
$(P)test_gpt: test_gpt.c $(P)build/flags
	$(COMPILE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)build/dump_logits: tests/dump_logits.c $(P)build/flags
	$(COMPILE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)build/fuzz_short: tests/fuzz.c $(P)build/flags
	$(COMPILE) $(DEPENDENCIES) $(VERSION) $< -o $@ $(CJSON_LIB) -lm

# The course. Its numbers are to be the same on every machine, so its program is not compiled for this one.
$(P)build/course: tools/course.c $(P)build/flags
	$(CC) -std=gnu11 $(CFLAGS) -ffp-contract=off $(WARN) $(DEPENDENCIES) $< -o $@ -lm
course: $(P)build/course
	@for picture in docs/course/pictures/*.svg; do $< $$(basename $$picture .svg) $$picture > /dev/null || exit 1; done
site:
	@scripts/site.sh
exercise-%: docs/course/exercises/exercise_%.c docs/course/exercises/check_%.c FORCE
	@mkdir -p $(P)build
	@$(CC) -std=gnu11 -O1 -g $(WARN) $(wordlist 1,2,$^) -o $(P)build/exercise_$* -lm
	@$(P)build/exercise_$*

# The kernels' tests: by nvcc for a GPU, by any C++17 compiler in the emulator. `-x` because nvcc's own files end in .cu.
EMULATE = $(CXX) -x c++ -std=c++17 $(CFLAGS) $(FLOAT) $(WARN) -Wno-unknown-pragmas
# scripts/nvcc.sh makes warnings errors with CI=1, spilled registers and serialized wgmma among them. Several GPUs to compile for
# are compiled for side by side.
CUDA = scripts/nvcc.sh $(NVCC) -std=c++17 -O3 -lineinfo $(foreach a,$(CUDA_ARCHS),-gencode=arch=compute_$a,code=sm_$a) \
       $(if $(word 2,$(CUDA_ARCHS)),--threads 0) -Xptxas --warn-on-spills -Xcompiler -Wall,-Wextra,-Wno-unknown-pragmas
# Where programs find cuBLASLt when they run: nvcc does not say it to them, nor do all installations to the system.
CUDA_LINK = -L$(CUDA_HOME)/lib64 -Xlinker -rpath -Xlinker $(CUDA_HOME)/lib64 -lcublasLt
$(P)build/reference.o: tests/test_cuda_reference.c $(P)build/flags
	$(CXX) -x c -std=gnu11 $(CFLAGS) $(WARN) $(DEPENDENCIES) -c $< -o $@
$(P)test_cuda: tests/test_cuda.cu $(P)build/reference.o $(P)build/flags
	$(EMULATE) $(DEPENDENCIES) $(if $(MPI_FLAGS),-DTEST_MPI) $< -x none $(P)build/reference.o -o $@ -lm
# train_gpt.c with its section 3 on the GPU; and the same emulated, which only tests want.
build/train_gpt_host.o: train_gpt.c build/flags
	$(COMPILE) $(DEPENDENCIES) $(VERSION) -DHAVE_GPU -c $< -o $@ $(filter-out -l% -L% -Wl%,$(MPI_FLAGS))
$(P)build/train_gpt_emulated_host.o: train_gpt.c $(P)build/flags
	$(COMPILE) $(DEPENDENCIES) $(VERSION) -DHAVE_GPU -c $< -o $@ $(filter-out -l% -L% -Wl%,$(MPI_FLAGS))
build/train_gpt_cu.o: train_gpt.cu build/flags
	$(CUDA) $(DEPENDENCIES) $(filter -D%,$(NCCL_FLAGS)) -c $< -o $@
train_gptcu: build/train_gpt_host.o build/train_gpt_cu.o
	$(COMPILE) $^ -o $@ $(CUDA_LINK) $(filter -l%,$(NCCL_FLAGS)) -lcudart_static -ldl -lrt -lpthread $(MPI_FLAGS) $(CJSON_LIB) \
	    -lstdc++ -lm
build/bench_gpu: tools/bench_gpu.cu build/flags
	$(CUDA) $(DEPENDENCIES) $(VERSION) $< -o $@ $(CUDA_LINK)
$(P)build/bench_gpu_emulated: tools/bench_gpu.cu $(P)build/flags
	$(EMULATE) $(DEPENDENCIES) $(VERSION) $< -o $@ -lm
$(P)build/train_gpt_emulated.o: train_gpt.cu $(P)build/flags
	$(EMULATE) $(DEPENDENCIES) -c $< -o $@
$(P)build/train_gpt_emulated: $(P)build/train_gpt_emulated_host.o $(P)build/train_gpt_emulated.o
	$(COMPILE) $^ -o $@ $(MPI_FLAGS) $(CJSON_LIB) -lstdc++ -lm
# The second one is for compute-sanitizer's racecheck: see HOPPER_ARRIVALS in cuda/attention_hopper_work.cuh.
build/test_gpu build/test_gpu_racecheck: tests/test_cuda.cu build/reference.o build/flags
	$(CUDA) $(DEPENDENCIES) $(if $(filter %_racecheck,$@),-DEVERY_LANE_ARRIVES) $(if $(MPI_FLAGS),-DTEST_MPI) $(filter -D%,$(NCCL_FLAGS)) $< build/reference.o -o $@ $(CUDA_LINK) $(filter -l%,$(NCCL_FLAGS))

# Every kernel on the GPU against float64. Without a GPU it is built only, and says so. TOOL=compute-sanitizer runs it so.
test_gpu: build/test_gpu train_gptcu train_gpt
	$(if $(HAVE_GPU),TEST_BINARY_DIR=. $(TOOL) ./build/test_gpu,@echo "built for compute capability $(CUDA_ARCHS); not run: no GPU here")

# Attention and whole steps as shares of the GPU's measured peak, PyTorch's beside ours; docs/gpu.md. BENCH="--steps-only
# --preset=c4-301m --batch=32" is less; PyTorch compiles a minute or two for each of its steps.
bench_gpu: build/bench_gpu
	$(if $(HAVE_GPU),./build/bench_gpu --json=bench_gpu.json $(BENCH),@echo "built for compute capability $(CUDA_ARCHS); not run: no GPU here")
	$(if $(and $(HAVE_GPU),$(shell command -v python3)),scripts/bench_gpu_pytorch.py --json=bench_gpu.json $(filter --quick --steps-only --preset=% --batch=%,$(BENCH)) $(PYTHONS))

# Loads checkpoints with other programs.
test_huggingface: train_gpt grammar prepare evaluate report build/dump_logits
	@scripts/test_huggingface.sh

demo:
	@scripts/demo.sh

# Without a C++ compiler the kernels' tests are not run, and without a GPU nothing runs on one.
PROGRAMS_OF_CUDA := $(P)train_gpt $(P)build/train_gpt_emulated $(P)build/bench_gpu_emulated
PROGRAMS_OF_TESTS := $(PROGRAMS) $(P)build/fuzz_short $(P)build/course $(if $(P),,build/dump_logits)
# All that `make test` runs, built and not run.
test_programs: $(P)test_gpt $(PROGRAMS_OF_TESTS) $(if $(HAVE_CXX),$(P)test_cuda $(PROGRAMS_OF_CUDA))
RUN_TESTS = TEST_BINARY_DIR=$(or $(P),.) CC='$(CC)' $(if $(P),,./)$(1) $(if $(FILTER),--filter='$(FILTER)')
ifeq ($(FILTER),)
test: test_programs
	$(if $(HAVE_CXX),,@echo "not run: the emulated tests of the GPU's kernels (there is no C++ compiler '$(CXX)')")
	$(if $(MPI_FLAGS),,@echo "not run: the GPU trainer with two ranks (there is no MPI)")
	@echo "not run: the tests on a GPU$(if $(HAVE_GPU), (make test_gpu runs them), (there is none))"
	@$(if $(HAVE_CXX),$(call RUN_TESTS,$(P)test_cuda); cuda=$$?,cuda=0); $(call RUN_TESTS,$(P)test_gpt) && exit $$cuda
else
# With FILTER only what its tests need is built: test_gpt and test_cuda, or one of them, with those parts (tests/test_PART.h)
# that have a test whose name holds one of the words; and the other programs when a test asks for them (tests/harness.h).
PARTS_TAKEN := $(shell grep -lE 'TEST\([a-z0-9_]*($(subst $(COMMA),|,$(FILTER)))[a-z0-9_]*\)' tests/test_*.h)
ROWS = $(foreach part,$(1),$(shell echo $(part) | tr a-z A-Z)_TESTS(ROW))
CUDA_ROWS := $(call ROWS,$(patsubst tests/test_%.h,%,$(filter tests/test_cuda%,$(PARTS_TAKEN))))
GPT_ROWS  := $(call ROWS,$(patsubst tests/test_%.h,%,$(filter-out tests/test_cuda%,$(PARTS_TAKEN))))
F := $(P)build/filtered
NOT_ALL = -Wno-unused-function -Wno-unused-variable -Wno-unused-const-variable
$(F)/gpt_rows $(F)/cuda_rows: FORCE
	@mkdir -p $(@D)
	@echo '$(if $(filter %/gpt_rows,$@),$(GPT_ROWS),$(CUDA_ROWS))' | cmp -s - $@ || echo '$(if $(filter %/gpt_rows,$@),$(GPT_ROWS),$(CUDA_ROWS))' > $@
$(F)/test_gpt: test_gpt.c $(F)/gpt_rows $(P)build/flags
	$(COMPILE) $(NOT_ALL) '-DTEST_ROWS=$(GPT_ROWS)' -MMD -MP -MT $@ -MF $@.d $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(F)/test_cuda: tests/test_cuda.cu $(F)/cuda_rows $(P)build/reference.o $(P)build/flags
	$(EMULATE) $(NOT_ALL) '-DTEST_ROWS=$(CUDA_ROWS)' -MMD -MP -MT $@ -MF $@.d $(if $(MPI_FLAGS),-DTEST_MPI) $< -x none $(P)build/reference.o -o $@ -lm
test: $(if $(and $(HAVE_CXX),$(CUDA_ROWS)),$(F)/test_cuda) $(if $(GPT_ROWS),$(F)/test_gpt)
	$(if $(PARTS_TAKEN),,@echo "error: no test's name contains '$(FILTER)'" >&2; exit 1)
	@code=0; export TEST_BUILD='$(MAKE_COMMAND) -s -j4'; for program in $^; do \
	    $(call RUN_TESTS,$$program) || { [ $$? = 3 ] || code=1; }; done; exit $$code
endif
# What a filtered test has built before it runs a program.
programs_of_test_gpt: $(PROGRAMS_OF_TESTS)
programs_of_test_cuda: $(PROGRAMS_OF_CUDA)

# A quarter of an hour; BENCH=--quick is less. PYTHONS: interpreters whose PyTorch is timed at the same steps.
# The tokenizer's part needs GPT2=folder with vocab.json and merges.txt, TEXT=file, and tiktoken and tokenizers (pip).
PYTHONS ?= python3
bench: $(P)build/bench
	./$(P)build/bench --json=bench.json $(BENCH)
	$(if $(shell command -v python3),python3 scripts/bench_pytorch.py --json=bench.json $(filter --quick --batch=% --threads=% --filter=%,$(BENCH)) $(PYTHONS),@echo "no python3: PyTorch is left out")
	$(if $(and $(GPT2),$(TEXT)),scripts/bench_tokenizer.py $(GPT2) $(TEXT))

# Ten minutes (FUZZ_SECONDS) of each target on its committed seeds; findings land in build/fuzz. Needs clang.
FUZZ_TARGETS := tokenizer shards lines safetensors sentencepiece config state prepare_state report
FUZZ_SECONDS ?= 600
fuzz: $(FUZZ_TARGETS:%=fuzz-%)
fuzz-%:
	@mkdir -p build/fuzz/$*
	clang -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -DFUZZ_TARGET=$* tests/fuzz.c -o build/fuzz/fuzz_$* $(CJSON_LIB) -lm
	cd build/fuzz && ./fuzz_$* -close_fd_mask=2 -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 $* ../../tests/fuzz_seeds/$*

# scripts/check.sh says how each is done, and how one of them is done alone.
check:
	@CC='$(CC)' CXX='$(CXX)' CI='$(CI)' scripts/check.sh
lint:
	@CI='$(CI)' scripts/check.sh format shell

# A program prints its manual page itself, from its table of options.
PREFIX  ?= /usr/local
DESTDIR ?=
INSTALLED = $(DESTDIR)$(PREFIX)
install: all
	@case '$(PREFIX)' in /*) ;; *) echo "error: PREFIX=$(PREFIX): expected a path that begins with /" >&2; exit 2 ;; esac
	@mkdir -p '$(INSTALLED)/bin' '$(INSTALLED)/share/man/man1' '$(INSTALLED)/include' '$(INSTALLED)/share/pkgconfig'
	@set -e; for program in $(PROGRAMS) $$(ls train_gptcu 2> /dev/null || true); do \
	    name=$$(basename $$program); install -m 755 $$program '$(INSTALLED)/bin/'; \
	    ./$$program --help=man > '$(INSTALLED)/share/man/man1/'$$name.1; done
	@install -m 644 laser.h '$(INSTALLED)/include/'
	@printf '%s\n' 'prefix=$(PREFIX)' 'Name: laser' 'Description: attention, standard and LASER, forward and backward, in one header' \
	    "Version: $$(scripts/version.sh --name)" 'Cflags: -I$${prefix}/include' 'Libs: -lm' > '$(INSTALLED)/share/pkgconfig/laser.pc'
	@echo "installed in $(INSTALLED): $(strip $(PROGRAMS:$(P)%=bin/%)), their manual pages, laser.h"
uninstall:
	cd '$(INSTALLED)' && rm -f $(foreach p,$(PROGRAMS:$(P)%=%) train_gptcu,bin/$p share/man/man1/$p.1) include/laser.h share/pkgconfig/laser.pc

# git archive fills in scripts/version.sh, so that what is unpacked knows its version without git.
DIST ?= .
dist:
	@git ls-files --error-unmatch train_gpt.c > /dev/null 2>&1 || { echo "error: make dist needs a clone with git; this folder has none" >&2; exit 1; }
	@git diff --quiet HEAD || echo "note: what is not committed is not in the archive"
	@name=laser.c-$$(scripts/version.sh --name) && git archive --prefix=$$name/ -o '$(DIST)'/$$name.tar.gz HEAD && echo '$(DIST)'/$$name.tar.gz

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

clean:
	rm -rf build train_gptcu test_gpt test_cuda tiny_gpt $(PROGRAMS:$(P)%=%)

# What an error left half made, or a warning refused, is made again.
.DELETE_ON_ERROR:
.PHONY: all help demo test test_huggingface test_gpu bench bench_gpu fuzz check lint clean course site install uninstall dist test_programs programs_of_test_gpt programs_of_test_cuda FORCE
FORCE:

-include $(wildcard $(P)build/*.d $(P)build/filtered/*.d)
