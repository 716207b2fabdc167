/* Draws targets of a hierarchical softmax by walking down the levels.
 *
 * Each drawn row of a level is the block of the next one. Rows without a target below them are never
 * drawn, even if they keep probability: a draw is conditional on the others. */
#include <math.h>
#include <stdlib.h>

#include "dispatch.h"
#include "draws.h"
#include "levels_visits.h"

/* What the draws of one level need; all arrays are [batch * samples], but for alive and noise. */
typedef struct {
    const kernel_set *kernels;
    const hsoftmax_level *level;
    const float *alive; /* [rows of the level], or null */
    const float *noise; /* the first number of this level */
    int64_t noise_step; /* numbers per sample */
    int64_t *row;       /* the drawn row */
    double *total;      /* log p */
    int32_t no_memory;
} level_draws;

static void draw(void *context, const visit *from, const visit *end, const float *logits,
                 double normaliser) {
    level_draws *draws = context;
    const int64_t first = first_row(draws->level, from->block);
    const int64_t size = size_of(draws->level, from->block);
    double *sums = malloc((size_t)size * sizeof(double));
    if (!sums) {
        __atomic_store_n(&draws->no_memory, 1, __ATOMIC_RELAXED);
        return;
    }
    cumulate(draws->kernels, logits, draws->alive ? draws->alive + first : NULL, size, sums);
    for (const visit *v = from; v < end; v++) {
        const float noise = draws->noise[v->result * draws->noise_step];
        const int64_t position = draw_position(sums, size, noise);
        draws->row[v->result] = first + position;
        draws->total[v->result] += logits[position] - normaliser;
    }
    free(sums);
}

/* Draws a row of each level in turn; rows of level 0 lie in block 0. */
static int walk(const level_query *query, const hsoftmax_levels *model, const float *noise,
                int64_t samples, int64_t count, visit *visits, level_draws *draws) {
    for (int64_t l = 0; l < model->num_levels; l++) {
        draws->level = &model->levels[l];
        draws->alive = model->alive ? model->alive[l] : NULL;
        draws->noise = noise + l;
        for (int64_t i = 0; i < count; i++) {
            if (draws->row[i] < 0 || draws->row[i] >= draws->level->blocks)
                return HSOFTMAX_BAD_MODEL;
            visits[i] = (visit){draws->row[i], i / samples, 0, i};
        }
        const int status = visit_level(query, draws->level, visits, count, draw, draws);
        if (status != HSOFTMAX_OK) return status;
        if (draws->no_memory) return HSOFTMAX_NO_MEMORY;
    }
    return HSOFTMAX_OK;
}

/* Fills in the outputs. Target 0 stands with a NaN that comes from logits without an order. */
static int take_targets(const hsoftmax_levels *model, const level_draws *draws, int64_t count,
                        int64_t *target, float *log_prob) {
    for (int64_t i = 0; i < count; i++) {
        const int64_t row = draws->row[i];
        log_prob[i] = (float)draws->total[i];
        target[i] = 0;
        if (isnan(log_prob[i])) continue;
        if (row < 0 || row >= model->levels[model->num_levels - 1].rows) return HSOFTMAX_BAD_MODEL;
        target[i] = model->row_target ? model->row_target[row] : row;
        if (target[i] < 0 || target[i] >= model->num_targets) return HSOFTMAX_BAD_MODEL;
    }
    return HSOFTMAX_OK;
}

int32_t hsoftmax_levels_sample(const hsoftmax_levels *model, const float *hidden, int64_t batch,
                               const float *noise, int64_t samples, const volatile int32_t *stop,
                               int32_t *free_threads, int64_t *target, float *log_prob) {
    const kernel_set *kernels = chosen_kernels();
    if (!kernels || batch < 0 || samples < 0) return HSOFTMAX_BAD_ARGUMENT;
    if (!levels_are_valid(model)) return HSOFTMAX_BAD_MODEL;
    if (!batch || !samples) return HSOFTMAX_OK;
    if (!hidden || !noise || !target || !log_prob) return HSOFTMAX_BAD_ARGUMENT;
    if (samples > INT64_MAX / 64 / batch / model->num_levels) return HSOFTMAX_NO_MEMORY;
    const int64_t count = batch * samples;
    if (!noise_is_valid(noise, count * model->num_levels)) return HSOFTMAX_BAD_ARGUMENT;
    const level_query query = {kernels, hidden, model->hidden_size, stop, free_threads};
    visit *visits = malloc((size_t)count * sizeof(visit));
    level_draws draws = {.kernels = kernels, .noise_step = model->num_levels};
    draws.row = calloc((size_t)count, sizeof(int64_t));
    draws.total = calloc((size_t)count, sizeof(double));
    int status = visits && draws.row && draws.total ? HSOFTMAX_OK : HSOFTMAX_NO_MEMORY;
    if (status == HSOFTMAX_OK)
        status = walk(&query, model, noise, samples, count, visits, &draws);
    if (status == HSOFTMAX_OK)
        status = take_targets(model, &draws, count, target, log_prob);
    free(visits);
    free(draws.row);
    free(draws.total);
    return status;
}
