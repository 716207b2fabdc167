/* The products and the log-sum-exp of one block, once for each instruction set. */
#ifndef HSOFTMAX_KERNELS_H
#define HSOFTMAX_KERNELS_H

#include <stdint.h>

#include "hsoftmax.h"

/* Room for `size` floats in whole groups of 16. */
static inline int64_t padded(int64_t size) { return (size + 15) / 16 * 16; }

/* Bytes of one number of a weight. */
static inline int64_t weight_size(int32_t type) {
    return type == HSOFTMAX_F32 ? 4 : type == HSOFTMAX_I8 ? 1 : 2;
}

static inline int weight_type_is_valid(int32_t type, const float *scale) {
    return type >= HSOFTMAX_F32 && type <= HSOFTMAX_BF16 && (type != HSOFTMAX_I8 || scale);
}

#define MAX_ROWS 8 /* hidden rows that share one pass over a block */

/* y[r * stride + k] += sum over h of x[r][h] * weight of column k */
typedef void logits_function(const void *weight, const float *const *x, int rows, int64_t hidden,
                             int64_t columns, int64_t stride, float *y);

/* The same for the first columns of a weight whose rows have `pitch` columns. */
typedef void transposed_function(const void *weight, int64_t pitch, const float *const *x, int rows,
                                 int64_t hidden, int64_t columns, int64_t stride, float *y);

typedef struct {
    const char *instruction_set;
    transposed_function *transposed[4]; /* weight [hidden, pitch], by weight type */
    logits_function *row_major[4];      /* weight [columns, hidden] */
    /* log of the sum of exp(y[k]) over k < size; y has room for a multiple of 16 numbers */
    double (*log_sum_exp)(float *y, int64_t size);
    /* y[i] = exp(y[i] - largest) for i < size, a multiple of 16 */
    void (*exps)(float *y, int64_t size, float largest);
    /* y[i] = y[i] * scale[i] + bias[i] for i < size, where bias may be null; y has room for a
     * multiple of 16 numbers */
    void (*scale)(float *y, const float *scale, const float *bias, int64_t size);
    /* y[i] = the product of x and rows[i], for i < count, by weight type */
    void (*dots[4])(const float *x, const void *const *rows, int count, int64_t size, float *y);
    /* z[i] = log sigmoid(z[i]) for i < size, a multiple of 16 */
    void (*log_sigmoids)(float *z, int64_t size);
    /* log sigmoid(-z) and log sigmoid(z) */
    void (*log_branches)(float z, float *negative, float *positive);
} kernel_set;

extern const kernel_set kernels_avx512, kernels_avx2, kernels_neon;

#endif
