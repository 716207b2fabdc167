/* Draws positions from a softmax by inverting its cumulative sum. */
#ifndef HSOFTMAX_DRAWS_H
#define HSOFTMAX_DRAWS_H

#include "kernels.h"

/* True if all numbers are in [0, 1). */
int noise_is_valid(const float *noise, int64_t count);

/* sums[k] = the sum of exp(logit - largest) over the rows up to k. Rows of -inf, and those of which
 * `alive`, if it is not null, is not 0, add nothing. A logit of NaN makes all sums NaN. */
void cumulate(const kernel_set *kernels, const float *logits, const float *alive, int64_t size,
              double *sums);

/* The first position whose sum exceeds noise * the last sum; the last one if none does. */
int64_t draw_position(const double *sums, int64_t size, float noise);

#endif
