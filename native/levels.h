/* What the functions of a hierarchical softmax share. */
#ifndef HSOFTMAX_LEVELS_H
#define HSOFTMAX_LEVELS_H

#include "hsoftmax.h"
#include "kernels.h"

int levels_are_valid(const hsoftmax_levels *model);

/* The block of a row; offsets ascend. -1 if they do not hold the row. */
int64_t block_of(const hsoftmax_level *level, int64_t row);

int64_t first_row(const hsoftmax_level *level, int64_t block);
int64_t size_of(const hsoftmax_level *level, int64_t block);

/* True if the rows of a block are rows of its level, whatever the offsets are now. */
int block_is_valid(const hsoftmax_level *level, int64_t block);

/* Logits of the columns from..from + count - 1 of a block for some hidden rows, at the same columns of
 * y [rows, stride]. `from` is a multiple of 16; columns up to the next multiple of 16 may change. */
void block_columns(const kernel_set *kernels, const hsoftmax_level *level, int64_t block,
                   int64_t from, int64_t count, const float *const *x, int rows,
                   int64_t hidden_size, int64_t stride, float *y);

/* Logits of a block for some hidden rows, [rows, stride]. */
void block_logits(const kernel_set *kernels, const hsoftmax_level *level, int64_t block,
                  const float *const *x, int rows, int64_t hidden_size, int64_t stride, float *y);

#endif
