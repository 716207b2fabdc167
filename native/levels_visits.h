/* Computes the blocks of one level that hidden rows need, split between threads. */
#ifndef HSOFTMAX_LEVELS_VISITS_H
#define HSOFTMAX_LEVELS_VISITS_H

#include "levels.h"

/* One result of one hidden row needs one block of a level. */
typedef struct {
    int64_t block, row;
    int64_t position; /* of the result in the block, if it is known */
    int64_t result;   /* its number in the outputs */
} visit;

/* Takes the logits of one hidden row for its visits of one block; log p is logit - normaliser.
 * Threads call it at the same time, each for other results. */
typedef void use_logits(void *context, const visit *from, const visit *end, const float *logits,
                        double normaliser);

/* What all levels of one call share. */
typedef struct {
    const kernel_set *kernels;
    const float *hidden; /* [batch, hidden_size] */
    int64_t hidden_size;
    const volatile int32_t *stop; /* or null */
    int32_t *free_threads;        /* or null */
} level_query;

/* Computes the blocks of some visits, which it sorts, and passes the logits to `use`. Returns
 * HSOFTMAX_OK, HSOFTMAX_STOPPED, HSOFTMAX_NO_MEMORY, or HSOFTMAX_BAD_MODEL for a block outside of
 * the level. */
int visit_level(const level_query *query, const hsoftmax_level *level, visit *visits, int64_t count,
                use_logits *use, void *context);

#endif
