/* Draws targets of an adaptive softmax: a row of the head, then, if it stands for a tail, a target
 * of that tail.
 *
 * Each layer is computed once for the hidden rows that need it, up to 128 at a time, and the log p of
 * a draw has the terms of target_log_prob in the same order. */
#include <math.h>
#include <stdlib.h>

#include "adaptive.h"
#include "dispatch.h"
#include "draws.h"

#define NOISE_PER_DRAW 2

/* All arrays but `sums` are [batch * samples]. */
typedef struct {
    layer_query layers;
    const float *hidden, *noise;
    int64_t batch, samples;
    double *sums;     /* [rows of the largest layer] */
    double *total;    /* log p */
    int64_t *head_row; /* drawn from the head */
    int64_t *target;  /* an output */
} draws;

/* True if the layer, 0 for the head, is to be drawn from for this draw. */
static int needs_layer(const draws *draws, int64_t layer, int64_t draw) {
    return !layer || draws->head_row[draw] == shortlist_of(draws->layers.model) + layer - 1;
}

static int row_needs_layer(const draws *draws, int64_t layer, int64_t row) {
    for (int64_t i = row * draws->samples; i < (row + 1) * draws->samples; i++)
        if (needs_layer(draws, layer, i)) return 1;
    return 0;
}

/* Draws from a layer for one hidden row, whose logits are `y`. */
static void draw_row(const draws *draws, int64_t layer, int64_t first_target, int64_t row,
                     float *y) {
    const kernel_set *kernels = draws->layers.kernels;
    const int64_t size = draws->layers.model->layers[layer].rows;
    const double normaliser = kernels->log_sum_exp(y, size);
    cumulate(kernels, y, NULL, size, draws->sums);
    for (int64_t i = row * draws->samples; i < (row + 1) * draws->samples; i++) {
        if (!needs_layer(draws, layer, i)) continue;
        const float noise = draws->noise[i * NOISE_PER_DRAW + (layer > 0)];
        const int64_t position = draw_position(draws->sums, size, noise);
        draws->total[i] += y[position] - normaliser;
        if (!layer) draws->head_row[i] = position;
        draws->target[i] = first_target + position;
    }
}

/* Draws from a layer for all hidden rows that need it. */
static int draw_layer(const draws *draws, int64_t layer, int64_t first_target) {
    const hsoftmax_layer *weights = &draws->layers.model->layers[layer];
    const int64_t chunk = chunk_rows(weights);
    for (int64_t next = 0; next < draws->batch;) {
        const float *x[MAX_CHUNK_ROWS];
        int64_t row[MAX_CHUNK_ROWS], rows = 0;
        for (; next < draws->batch && rows < chunk; next++) {
            if (!row_needs_layer(draws, layer, next)) continue;
            x[rows] = draws->hidden + next * draws->layers.model->hidden_size;
            row[rows++] = next;
        }
        if (!rows) break;
        const int status = layer_logits(&draws->layers, weights, x, rows);
        if (status != HSOFTMAX_OK) return status;
        for (int64_t r = 0; r < rows; r++)
            draw_row(draws, layer, first_target, row[r],
                     draws->layers.memory.logits + r * padded(weights->rows));
    }
    return HSOFTMAX_OK;
}

static int draw_all(const draws *draws) {
    const hsoftmax_adaptive *model = draws->layers.model;
    int64_t first_target = 0;
    int status = HSOFTMAX_OK;
    for (int64_t i = 0; i < model->num_layers && status == HSOFTMAX_OK; i++) {
        status = draw_layer(draws, i, first_target);
        first_target += i ? model->layers[i].rows : shortlist_of(model);
    }
    return status;
}

static int64_t largest_layer(const hsoftmax_adaptive *model) {
    int64_t largest = 0;
    for (int64_t i = 0; i < model->num_layers; i++)
        if (model->layers[i].rows > largest) largest = model->layers[i].rows;
    return largest;
}

static int prepare(draws *draws, int64_t count) {
    draws->sums = malloc((size_t)largest_layer(draws->layers.model) * sizeof(double));
    draws->total = calloc((size_t)count, sizeof(double));
    draws->head_row = malloc((size_t)count * sizeof(int64_t));
    return allocate_memory(draws->layers.model, draws->batch, &draws->layers.memory) &&
                   draws->sums && draws->total && draws->head_row
               ? HSOFTMAX_OK
               : HSOFTMAX_NO_MEMORY;
}

static void release(draws *draws) {
    free_memory(&draws->layers.memory);
    free(draws->sums);
    free(draws->total);
    free(draws->head_row);
}

int32_t hsoftmax_adaptive_sample(const hsoftmax_adaptive *model, const float *hidden, int64_t batch,
                                 const float *noise, int64_t samples, const volatile int32_t *stop,
                                 int32_t *free_threads, int64_t *target, float *log_prob) {
    draws draws = {.layers = {chosen_kernels(), model, stop, free_threads, {0}}, .hidden = hidden,
                   .noise = noise, .batch = batch, .samples = samples, .target = target};
    if (!draws.layers.kernels || batch < 0 || samples < 0) return HSOFTMAX_BAD_ARGUMENT;
    if (!adaptive_is_valid(model)) return HSOFTMAX_BAD_MODEL;
    if (!batch || !samples) return HSOFTMAX_OK;
    if (!hidden || !noise || !target || !log_prob) return HSOFTMAX_BAD_ARGUMENT;
    if (samples > INT64_MAX / 64 / batch) return HSOFTMAX_NO_MEMORY;
    const int64_t count = batch * samples;
    if (!noise_is_valid(noise, count * NOISE_PER_DRAW)) return HSOFTMAX_BAD_ARGUMENT;
    int status = prepare(&draws, count);
    if (status == HSOFTMAX_OK) status = draw_all(&draws);
    for (int64_t i = 0; i < count && status == HSOFTMAX_OK; i++) {
        log_prob[i] = (float)draws.total[i];
        if (isnan(log_prob[i])) target[i] = 0;
    }
    release(&draws);
    return status;
}
