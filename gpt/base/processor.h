/* processor.h: what the processor is and what it multiplies fast.

   processor_name(name)       its name as the kernel gives it, such as "AMD EPYC 9575F"
   processor_isa()            the widest instruction set that this program was compiled for
   processor_prefers_bf16()   whether it multiplies bfloat16 matrices faster than float32 ones: what --dtype=auto asks
   HAVE_AMX                   1: this program was compiled for AMX, the tile registers that multiply matrices of
                              bfloat16
   amx_allowed()              whether the kernel lets this process use them; always false without HAVE_AMX
   amx_begin(), amx_end()     before and after their use, in each thread */
#ifndef GPT_BASE_PROCESSOR_H
#define GPT_BASE_PROCESSOR_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif
#if defined(__AVX512BF16__) || defined(__AMX_TILE__) || defined(__AMXTILE__)
#include <immintrin.h>
#endif
#include "system_files.h"

static inline const char *processor_name(char name[128]) {
    if (!system_file_text("/proc/cpuinfo", "model name", name, 128)) snprintf(name, 128, "unknown processor");
    return name;
}

#if ((defined __AMX_TILE__ && defined __AMX_BF16__) || (defined __AMXTILE__ && defined __AMXBF16__)) &&      \
    defined __linux__
#define HAVE_AMX 1
/* Linux allows the tile registers only to a process that asks for them. */
static inline bool amx_allowed(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    static atomic_int answer; /* 0: not asked yet; 1: yes; -1: no */
    if (!answer) answer = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 ? 1 : -1;
    return answer > 0;
}
/* Gives all eight tile registers the shape of 16 rows of 64 bytes: 32 bfloat16 or 16 float32 values each. */
static inline void amx_begin(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.row_bytes[i] = 64, shape.rows[i] = 16;
    __asm__ volatile("" ::"m"(shape)); /* the compiler does not know that the next line reads `shape` */
    _tile_loadconfig(&shape);
}
static inline void amx_end(void) { _tile_release(); }
#else
#define HAVE_AMX 0
static inline bool amx_allowed(void) { return false; }
static inline void amx_begin(void) {}
static inline void amx_end(void) {}
#endif

/* AVX512-BF16 alone is not enough: Intel's processors take four times as long for its dot product as for a
   multiply-add. */
static inline bool processor_prefers_bf16(void) {
#if HAVE_AMX
    return amx_allowed();
#elif defined(__AVX512BF16__)
    return __builtin_cpu_is("amd");
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return true;
#else
    return false;
#endif
}

static inline const char *processor_isa(void) {
#if HAVE_AMX
    return amx_allowed() ? "AVX-512 + AMX" : "AVX-512 (AMX refused by the kernel)";
#elif defined(__AVX512BF16__)
    return "AVX-512 + BF16";
#elif defined(__AVX512F__)
    return "AVX-512";
#elif defined(__AVX2__)
    return "AVX2";
#elif defined(__x86_64__)
    return "SSE2";
#elif defined(__ARM_NEON)
    return "NEON";
#else
    return "scalar";
#endif
}

#endif
