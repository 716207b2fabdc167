/* Chooses the kernels by what this CPU can run, once, when the library is loaded. */
#include "dispatch.h"

#include <stddef.h>
#include <string.h>

#include "hsoftmax.h"

static const kernel_set *chosen = NULL;

#if defined(__x86_64__)
static const kernel_set *find(const char *name) {
    __builtin_cpu_init();
    if ((!name || !strcmp(name, "avx512")) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &kernels_avx512;
    if ((!name || !strcmp(name, "avx2")) && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        return &kernels_avx2;
    return NULL;
}
#elif defined(__aarch64__)
static const kernel_set *find(const char *name) {
    return !name || !strcmp(name, "neon") ? &kernels_neon : NULL;
}
#else
static const kernel_set *find(const char *name) {
    (void)name;
    return NULL;
}
#endif

__attribute__((constructor)) static void choose(void) { chosen = find(NULL); }

const kernel_set *chosen_kernels(void) { return chosen; }

int32_t hsoftmax_abi(void) { return HSOFTMAX_ABI; }

const char *hsoftmax_instruction_set(void) { return chosen ? chosen->instruction_set : NULL; }

int32_t hsoftmax_use(const char *instruction_set) {
    const kernel_set *found = find(instruction_set);
    if (found) chosen = found;
    return found != NULL;
}
