/* Log-probabilities of targets of a hierarchical softmax: the sum of the local log-softmaxes along
 * each target's path.
 *
 *     log p(target | hidden) = sum over levels of log_softmax(block(path))[position(path)] */
#include <stdlib.h>

#include "dispatch.h"
#include "levels_visits.h"

/* Fills in the row of each level on each pair's path, [levels, pairs]. */
static int find_paths(const hsoftmax_levels *model, const int64_t *target, int64_t pairs,
                      int64_t *path) {
    int64_t *last = path + (model->num_levels - 1) * pairs;
    for (int64_t i = 0; i < pairs; i++) {
        if (target[i] < 0 || target[i] >= model->num_targets) return HSOFTMAX_BAD_TARGET;
        last[i] = model->target_rows ? model->target_rows[target[i]] : target[i];
        if (last[i] < 0 || last[i] >= model->levels[model->num_levels - 1].rows)
            return HSOFTMAX_BAD_MODEL;
    }
    for (int64_t l = model->num_levels - 1; l > 0; l--)
        for (int64_t i = 0; i < pairs; i++) {
            const int64_t block = block_of(&model->levels[l], path[l * pairs + i]);
            if (block < 0) return HSOFTMAX_BAD_MODEL;
            path[(l - 1) * pairs + i] = block;
        }
    return HSOFTMAX_OK;
}

/* Fills in each pair's visit of a level. */
static int locate(const hsoftmax_level *level, const int64_t *at, const int64_t *row, int64_t pairs,
                  visit *visits) {
    for (int64_t i = 0; i < pairs; i++) {
        const int64_t block = block_of(level, at[i]);
        if (block < 0 || !block_is_valid(level, block)) return HSOFTMAX_BAD_MODEL;
        const int64_t position = at[i] - first_row(level, block);
        if (position < 0 || position >= size_of(level, block)) return HSOFTMAX_BAD_MODEL;
        visits[i] = (visit){block, row[i], position, i};
    }
    return HSOFTMAX_OK;
}

static void add_log_prob(void *context, const visit *from, const visit *end, const float *logits,
                         double normaliser) {
    double *total = context;
    for (const visit *v = from; v < end; v++) total[v->result] += logits[v->position] - normaliser;
}

/* Visits the levels from the first to the last, so that terms are added in the order of `top_k`. */
static int walk(const level_query *query, const hsoftmax_levels *model, const int64_t *row,
                const int64_t *path, visit *visits, int64_t pairs, double *total) {
    int status = HSOFTMAX_OK;
    for (int64_t l = 0; l < model->num_levels && status == HSOFTMAX_OK; l++) {
        const hsoftmax_level *level = &model->levels[l];
        status = locate(level, path + l * pairs, row, pairs, visits);
        if (status == HSOFTMAX_OK)
            status = visit_level(query, level, visits, pairs, add_log_prob, total);
    }
    return status;
}

int32_t hsoftmax_levels_target_log_prob(const hsoftmax_levels *model, const float *hidden,
                                        int64_t batch, const int64_t *row, const int64_t *target,
                                        int64_t pairs, const volatile int32_t *stop,
                                        int32_t *free_threads, float *log_prob) {
    const kernel_set *kernels = chosen_kernels();
    if (!kernels || batch < 0 || pairs < 0) return HSOFTMAX_BAD_ARGUMENT;
    if (!levels_are_valid(model)) return HSOFTMAX_BAD_MODEL;
    if (!pairs) return HSOFTMAX_OK;
    if (!hidden || !row || !target || !log_prob) return HSOFTMAX_BAD_ARGUMENT;
    for (int64_t i = 0; i < pairs; i++)
        if (row[i] < 0 || row[i] >= batch) return HSOFTMAX_BAD_ROW;
    if (pairs > INT64_MAX / 64 / model->num_levels) return HSOFTMAX_NO_MEMORY;
    const level_query query = {kernels, hidden, model->hidden_size, stop, free_threads};
    visit *visits = malloc((size_t)pairs * sizeof(visit));
    int64_t *path = malloc((size_t)(pairs * model->num_levels) * sizeof(int64_t));
    double *total = calloc((size_t)pairs, sizeof(double));
    int status = visits && path && total ? HSOFTMAX_OK : HSOFTMAX_NO_MEMORY;
    if (status == HSOFTMAX_OK) status = find_paths(model, target, pairs, path);
    if (status == HSOFTMAX_OK) status = walk(&query, model, row, path, visits, pairs, total);
    for (int64_t i = 0; status == HSOFTMAX_OK && i < pairs; i++) log_prob[i] = (float)total[i];
    free(visits);
    free(path);
    free(total);
    return status;
}
