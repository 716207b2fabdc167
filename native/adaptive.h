/* What the functions of an adaptive softmax share. */
#ifndef HSOFTMAX_ADAPTIVE_H
#define HSOFTMAX_ADAPTIVE_H

#include "hsoftmax.h"
#include "kernels.h"

#define MAX_CHUNK_ROWS 128 /* hidden rows that share one pass over a layer */

/* Memory for the logits of one layer for several hidden rows. */
typedef struct {
    int64_t width;    /* the widest projection */
    float *logits;    /* [chunk_rows of the layer, padded(rows of the layer)] */
    float *projected; /* [MAX_CHUNK_ROWS, width] */
} layer_memory;

/* What all layers of one call share. */
typedef struct {
    const kernel_set *kernels;
    const hsoftmax_adaptive *model;
    const volatile int32_t *stop; /* or null */
    int32_t *free_threads;        /* or null */
    layer_memory memory;
} layer_query;

int adaptive_is_valid(const hsoftmax_adaptive *model);

/* Number of targets that are rows of the head. */
int64_t shortlist_of(const hsoftmax_adaptive *model);

int64_t adaptive_targets(const hsoftmax_adaptive *model);

/* The number of hidden rows that share one pass over a layer, 1..MAX_CHUNK_ROWS. */
int64_t chunk_rows(const hsoftmax_layer *layer);

/* Allocates memory for any layer and at most `rows` hidden rows. `free_memory` frees it, also when
 * this returns 0, because there is not enough. */
int allocate_memory(const hsoftmax_adaptive *model, int64_t rows, layer_memory *memory);
void free_memory(layer_memory *memory);

/* Logits of a layer for at most `chunk_rows` hidden rows, [rows, padded(layer->rows)], into
 * query->memory.logits. Returns HSOFTMAX_OK or HSOFTMAX_STOPPED. */
int layer_logits(const layer_query *query, const hsoftmax_layer *layer, const float *const *x,
                 int64_t rows);

#endif
