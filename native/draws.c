/* Draws positions from a softmax by inverting its cumulative sum.
 *
 *     position = first with cumsum(softmax)[position] > noise * sum(softmax)
 *
 * Sums are in float64, because the rounding of a float32 sum of many terms would bias the draws. */
#include "draws.h"

#include <math.h>

#define CHUNK 64 /* a multiple of 16 */

int noise_is_valid(const float *noise, int64_t count) {
    int is_valid = 1;
    for (int64_t i = 0; i < count; i++) is_valid &= noise[i] >= 0 && noise[i] < 1;
    return is_valid;
}

static int may_be_drawn(const float *logits, const float *alive, int64_t k) {
    return logits[k] > -INFINITY && (!alive || alive[k] == 0);
}

void cumulate(const kernel_set *kernels, const float *logits, const float *alive, int64_t size,
              double *sums) {
    float largest = -INFINITY, p[CHUNK];
    double sum = 0;
    for (int64_t k = 0; k < size; k++) {
        if (may_be_drawn(logits, alive, k) && logits[k] > largest) largest = logits[k];
        if (isnan(logits[k])) sum = NAN;
    }
    for (int64_t k = 0; k < size; k += CHUNK) {
        const int64_t count = size - k < CHUNK ? size - k : CHUNK;
        for (int64_t i = 0; i < CHUNK; i++) p[i] = i < count ? logits[k + i] : largest;
        kernels->exps(p, CHUNK, largest);
        for (int64_t i = 0; i < count; i++)
            sums[k + i] = sum += may_be_drawn(logits, alive, k + i) ? p[i] : 0;
    }
}

/* Halves the range, because the sums ascend. */
int64_t draw_position(const double *sums, int64_t size, float noise) {
    const double threshold = noise * sums[size - 1];
    int64_t low = 0, high = size - 1;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (sums[middle] > threshold)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}
