# make            the trainer and its tools, beside this file
# make demo       text -> two models that differ only in --attn -> table, curves, report.html, loss.png, samples
# make test       every test; SAN=1: under the address and undefined-behaviour sanitizers
# make bench      speed against the machine's limits, into bench.json (BLAS libraries beside it where they are installed);
#                 PYTHONS="python3 venv/bin/python": next to the PyTorch of each; docs/performance.md
# make test_gpu   the GPU's kernels on a GPU (make test runs the same tests on the CPU, emulated)
# make bench_gpu  the GPU trainer's speed, as shares of the GPU's measured peak, into bench_gpu.json; BENCH and PYTHONS as above
# make fuzz       the parsers of files against any bytes, ten minutes each
# make lint       formatting, static analysis, shell scripts
# make clean
#
# Found by itself: OpenMP, MPI (mpicc; MPI=no builds without), CUDA (nvcc), NCCL (NCCL=no). Settings: CC=clang, ARCH=x86-64-v3, CFLAGS=...
# Without root: CJSON=DIR is a folder with include/ and lib/ of cJSON (and zlib, xxhash, stb) in it. Where the system has them not, those
# that scripts/deps.sh unpacked into packages/, conda's and Homebrew's are found as well.

CC     ?= cc
ARCH   ?= native
CFLAGS ?= -O3 -g
# Not -ffast-math: infinities and NaNs keep their meaning. These two only let sqrt and comparisons become vector code.
FLOAT  := -fno-math-errno -fno-trapping-math
# Errors in continuous integration; a newer compiler with a new warning stops nobody who only wants to train.
WARN   := -Wall -Wextra -Wpedantic $(if $(CI),-Werror)

# A # inside a call begins a comment in GNU make before 4.3.
H := \#

# try(flags, program): the flags when this compiler accepts them and the program links, else nothing
try = $(shell d=$$(mktemp -d); printf '%b' '$(2)' > $$d/t.c; \
        $(CC) $(CFLAGS) $$d/t.c -o $$d/t $(1) > /dev/null 2>&1 && echo '$(1)'; rm -rf $$d)

# `make demo` and `make test` see to what is missing themselves (scripts/deps.sh says what it installs); the others ask.
GOALS := $(or $(MAKECMDGOALS),all)
ifneq ($(filter test,$(GOALS)),)
$(shell scripts/deps.sh >&2)
endif
# Where headers and libraries are that the compiler does not find by itself.
TRY_LIBRARIES = $(call try,$(1) -lcjson -lz,$(H)include <cjson/cJSON.h>\n$(H)include <zlib.h>\n$(H)include <xxhash.h>\nint main(void){return !cJSON_CreateObject() || !zlibVersion();}\n)
PLACES :=
ifneq ($(filter-out clean lint demo,$(GOALS)),)
ifneq ($(CJSON),)
PLACES := $(shell CJSON='$(CJSON)' scripts/deps.sh --flags)
else ifeq ($(call TRY_LIBRARIES,),)
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
CFLAGS := -O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
endif
COMPILE = $(CC) -std=gnu11 $(CFLAGS) $(FLOAT) $(MARCH) $(OPENMP) $(WARN) $(filter-out -L% -Wl%,$(PLACES))
# Where the linker finds them; every program names it.
CJSON_LIB = $(filter -L% -Wl%,$(PLACES)) -lcjson -lz

# What --version and a run's config.json tell: the commit that a program was built from, and its date (not that of the build:
# the same sources give the same program), or SOURCE_DATE_EPOCH. Another commit alone builds nothing anew.
GIT := GIT_OPTIONAL_LOCKS=0 git
COMMIT_OF = $(shell $(GIT) ls-files --error-unmatch train_gpt.c > /dev/null 2>&1 && $(GIT) rev-parse --short=12 HEAD && \
    { test -z "$$($(GIT) status --porcelain --untracked-files=no)" || echo "with changes"; })
DATE_OF = $(or $(if $(SOURCE_DATE_EPOCH),$(shell date -u -d '@$(SOURCE_DATE_EPOCH)' +%Y-%m-%d 2> /dev/null || date -u -r '$(SOURCE_DATE_EPOCH)' +%Y-%m-%d)),\
    $(if $(COMMIT),$(shell $(GIT) log -1 --date=short --format=%cd)))
VERSION = $(eval COMMIT := $(COMMIT_OF))$(eval VERSION := -DBUILD_COMMIT='"$(or $(COMMIT),unknown)"' -DBUILD_DATE='"$(DATE_OF)"')$(VERSION)

HEADERS  := laser.h $(wildcard gpt/*.h gpt/*/*.h)
PROGRAMS := $(P)train_gpt $(P)prepare $(P)report $(P)generate $(P)grammar

# The GPU's program takes nvcc longer than all others together: without a GPU here only who asks for it waits for it.
all: $(PROGRAMS) $(if $(P),,$(if $(HAVE_GPU),$(if $(NVCC),train_gptcu)))
ifneq ($(if $(HAVE_GPU),,$(NVCC)),)
	@echo "note: nvcc is here, a GPU is not; make train_gptcu builds the trainer for one"
endif
ifeq ($(OPENMP),)
	@echo "note: $(CC) has no OpenMP, so everything runs on one core (Debian: gcc has it; clang needs libomp-dev)"
endif

# What the compiler is told, so that another CC, ARCH or CFLAGS builds everything anew.
$(P)build/flags: FORCE
	@mkdir -p $(dir $@)
	@echo '$(COMPILE) $(MPI_FLAGS) $(OPENBLAS) $(ONEDNN) $(ZSTD)' | cmp -s - $@ || echo '$(COMPILE) $(MPI_FLAGS) $(OPENBLAS) $(ONEDNN) $(ZSTD)' > $@

$(P)train_gpt: train_gpt.c $(HEADERS) $(P)build/flags
	$(COMPILE) $(VERSION) $< -o $@ $(MPI_FLAGS) $(CJSON_LIB) -lm
$(P)generate: tools/generate.c train_gpt.c $(HEADERS) $(P)build/flags
	$(COMPILE) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)prepare: data/prepare.c $(wildcard data/*.h) $(HEADERS) $(P)build/flags
	$(COMPILE) $(VERSION) $< -o $@ $(ZSTD) $(CJSON_LIB) -lm
$(P)report: tools/report.c $(wildcard tools/report_*.h) $(HEADERS) $(P)build/flags
	$(COMPILE) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)grammar: data/grammar.c $(HEADERS) $(P)build/flags
	$(COMPILE) $(VERSION) $< -o $@ $(CJSON_LIB) -lm
$(P)build/bench: tools/bench.c $(wildcard tools/bench_*.h) train_gpt.c $(HEADERS) $(P)build/flags
	$(COMPILE) $(VERSION) $< -o $@ $(OPENBLAS) $(ONEDNN) $(CJSON_LIB) -lm
$(P)test_gpt: test_gpt.c train_gpt.c $(wildcard tests/*.h data/*.h) $(HEADERS) $(P)build/flags
	$(COMPILE) $(VERSION) $< -o $@ $(CJSON_LIB) -lm

$(P)build/fuzz_short: tests/fuzz.c data/prepare.c $(wildcard data/*.h tools/report_*.h) $(HEADERS) $(P)build/flags
	$(COMPILE) $(VERSION) $< -o $@ $(CJSON_LIB) -lm

# The kernels' tests: by nvcc for a GPU, by any C++17 compiler in the emulator. `-x` because nvcc's own files end in .cu.
CUDA_SOURCES := $(wildcard cuda/* tests/test_cuda*) laser.h gpt/dist/device.h gpt/math/ranges.h gpt/math/attention.h
EMULATE = $(CXX) -x c++ -std=c++17 $(CFLAGS) $(FLOAT) $(WARN) -Wno-unknown-pragmas
# scripts/nvcc.sh makes warnings errors with CI=1, spilled registers and serialized wgmma among them.
CUDA = scripts/nvcc.sh $(NVCC) -std=c++17 -O3 -lineinfo $(foreach a,$(CUDA_ARCHS),-gencode=arch=compute_$a,code=sm_$a) \
       -Xptxas --warn-on-spills -Xcompiler -Wall,-Wextra,-Wno-unknown-pragmas
# Where programs find cuBLASLt when they run: nvcc does not say it to them, nor do all installations to the system.
CUDA_LINK = -L$(CUDA_HOME)/lib64 -Xlinker -rpath -Xlinker $(CUDA_HOME)/lib64 -lcublasLt
$(P)build/reference.o: tests/test_cuda_reference.c laser.h $(P)build/flags
	$(CXX) -x c -std=gnu11 $(CFLAGS) $(WARN) -c $< -o $@
$(P)test_cuda: tests/test_cuda.cu $(CUDA_SOURCES) $(P)build/reference.o $(HEADERS) $(P)build/flags
	$(EMULATE) $(if $(MPI_FLAGS),-DTEST_MPI) $< -x none $(P)build/reference.o -o $@ -lm
# train_gpt.c with its section 2 on the GPU; and the same emulated, which only tests want.
build/train_gpt_host.o: train_gpt.c $(HEADERS) build/flags
	$(COMPILE) $(VERSION) -DHAVE_GPU -c $< -o $@ $(filter-out -l% -L% -Wl%,$(MPI_FLAGS))
train_gptcu: train_gpt.cu $(CUDA_SOURCES) build/train_gpt_host.o build/flags
	$(CUDA) $(filter -D%,$(NCCL_FLAGS)) -c $< -o build/train_gpt_cu.o
	$(COMPILE) build/train_gpt_host.o build/train_gpt_cu.o -o $@ $(CUDA_LINK) $(filter -l%,$(NCCL_FLAGS)) -lcudart_static -ldl -lrt -lpthread \
	    $(MPI_FLAGS) $(CJSON_LIB) -lstdc++ -lm
build/bench_gpu: tools/bench_gpu.cu $(CUDA_SOURCES) build/flags
	$(CUDA) $(VERSION) $< -o $@ $(CUDA_LINK)
$(P)build/bench_gpu_emulated: tools/bench_gpu.cu $(CUDA_SOURCES) $(P)build/flags
	$(EMULATE) $(VERSION) $< -o $@ -lm
$(P)build/train_gpt_emulated: train_gpt.c train_gpt.cu $(CUDA_SOURCES) $(HEADERS) $(P)build/flags
	$(EMULATE) -c train_gpt.cu -o $(P)build/train_gpt_emulated.o
	$(COMPILE) $(VERSION) -DHAVE_GPU $< $(P)build/train_gpt_emulated.o -o $@ $(MPI_FLAGS) $(CJSON_LIB) -lstdc++ -lm
# The second one is for compute-sanitizer's racecheck: see HOPPER_ARRIVALS in cuda/attention_hopper.cuh.
build/test_gpu build/test_gpu_racecheck: tests/test_cuda.cu $(CUDA_SOURCES) build/reference.o $(HEADERS) build/flags
	$(CUDA) $(if $(filter %_racecheck,$@),-DEVERY_LANE_ARRIVES) $(if $(MPI_FLAGS),-DTEST_MPI) $(filter -D%,$(NCCL_FLAGS)) $< build/reference.o -o $@ $(CUDA_LINK) $(filter -l%,$(NCCL_FLAGS))

# Every kernel on the GPU against float64. Without a GPU it is built only, and says so. TOOL=compute-sanitizer runs it so.
test_gpu: build/test_gpu train_gptcu train_gpt
	$(if $(HAVE_GPU),TEST_BINARY_DIR=. $(TOOL) ./build/test_gpu,@echo "built for compute capability $(CUDA_ARCHS); not run: no GPU here")

# Attention and whole steps as shares of the GPU's measured peak, PyTorch's beside ours; docs/gpu.md. BENCH="--steps-only
# --preset=c4-301m --batch=32" is less; PyTorch compiles a minute or two for each of its steps.
bench_gpu: build/bench_gpu
	$(if $(HAVE_GPU),./build/bench_gpu --json=bench_gpu.json $(BENCH),@echo "built for compute capability $(CUDA_ARCHS); not run: no GPU here")
	$(if $(and $(HAVE_GPU),$(shell command -v python3)),scripts/bench_gpu_pytorch.py --json=bench_gpu.json $(filter --quick --steps-only --preset=% --batch=%,$(BENCH)) $(PYTHONS))

demo:
	@scripts/demo.sh

# Without a C++ compiler the kernels' tests are not run, and without a GPU nothing runs on one. A FILTER may take none of the
# tests of one program (its exit code is 3), but not of both.
RUN_TESTS = TEST_BINARY_DIR=$(if $(P),$(P),.) CC='$(CC)' $(if $(P),$(P),./)$(1) $(if $(FILTER),--filter='$(FILTER)')
test: $(P)test_gpt $(P)build/fuzz_short $(PROGRAMS) $(if $(HAVE_CXX),$(P)test_cuda $(P)build/train_gpt_emulated $(P)build/bench_gpu_emulated)
	$(if $(HAVE_CXX),,@echo "not run: the emulated tests of the GPU's kernels (there is no C++ compiler '$(CXX)')")
	$(if $(MPI_FLAGS),,@echo "not run: the GPU trainer with two ranks (there is no MPI)")
	@echo "not run: the tests on a GPU$(if $(HAVE_GPU), (make test_gpu runs them), (there is none))"
	@$(if $(HAVE_CXX),$(call RUN_TESTS,test_cuda); cuda=$$?,cuda=3); $(call RUN_TESTS,test_gpt); gpt=$$?; \
	    case $$cuda$$gpt in 00 | 03 | 30) ;; *) exit 1 ;; esac

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

SOURCES = $(wildcard *.c *.h gpt/*.h gpt/*/*.h data/*.c tools/*.c tools/*.h tests/*.c tests/*.h tests/*.cu tools/*.cu cuda/*)
lint:
	clang-format --dry-run --Werror $(SOURCES)
	shellcheck scripts/*.sh .ci/run

clean:
	rm -rf build train_gpt train_gptcu prepare report generate evaluate grammar test_gpt test_cuda

# What an error left half made, or a warning refused, is made again.
.DELETE_ON_ERROR:
.PHONY: all demo test test_gpu bench bench_gpu fuzz lint clean FORCE
FORCE:
