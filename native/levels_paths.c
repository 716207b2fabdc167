/* Log-probabilities of targets of a hierarchical softmax: the sum of the local log-softmaxes along
 * each target's path.
 *
 *     log p(target | hidden) = sum over levels of log_softmax(block(path))[position(path)]
 *
 * On each level, pairs are sorted by block, so that a block is read once for all hidden rows that
 * need it, at most 8 at a time. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "dispatch.h"
#include "levels.h"

/* One pair on one level. */
typedef struct {
    int64_t block, row, position, pair;
} visit;

static int compare_visits(const void *left, const void *right) {
    const visit *a = left, *b = right;
    if (a->block != b->block) return a->block < b->block ? -1 : 1;
    if (a->row != b->row) return a->row < b->row ? -1 : 1;
    return (a->pair > b->pair) - (a->pair < b->pair);
}

/* Adds the local log-softmaxes of visits of one block, which are sorted by row. */
static void visit_block(const kernel_set *kernels, const hsoftmax_level *level, const visit *from,
                        const visit *end, const float *hidden, int64_t hidden_size, float *y,
                        double *total) {
    const int64_t size = size_of(level, from->block), stride = padded(size);
    while (from < end) {
        const float *x[MAX_ROWS];
        const visit *of_row[MAX_ROWS + 1];
        int rows = 0;
        for (; from < end; from++) {
            if (rows && from->row == of_row[rows - 1]->row) continue;
            if (rows == MAX_ROWS) break;
            of_row[rows] = from;
            x[rows++] = hidden + from->row * hidden_size;
        }
        of_row[rows] = from;
        block_logits(kernels, level, of_row[0]->block, x, rows, hidden_size, stride, y);
        for (int r = 0; r < rows; r++) {
            const double normaliser = kernels->log_sum_exp(y + r * stride, size);
            for (const visit *v = of_row[r]; v < of_row[r + 1]; v++)
                total[v->pair] += y[r * stride + v->position] - normaliser;
        }
    }
}

static int visit_level(const kernel_set *kernels, const hsoftmax_level *level, visit *visits,
                       int64_t pairs, const float *hidden, int64_t hidden_size,
                       const volatile int32_t *stop, float *y, double *total) {
    int sorted = 1;
    for (int64_t i = 1; i < pairs && sorted; i++)
        sorted = compare_visits(&visits[i - 1], &visits[i]) <= 0;
    if (!sorted) qsort(visits, (size_t)pairs, sizeof(visit), compare_visits);
    for (int64_t start = 0, end; start < pairs; start = end) {
        if (stop && *stop) return HSOFTMAX_STOPPED;
        for (end = start + 1; end < pairs && visits[end].block == visits[start].block; end++) {
        }
        visit_block(kernels, level, visits + start, visits + end, hidden, hidden_size, y, total);
    }
    return HSOFTMAX_OK;
}

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

/* Fills in each pair's visit of a level; `largest` is the size of the largest block. */
static int locate(const hsoftmax_level *level, const int64_t *at, const int64_t *row, int64_t pairs,
                  visit *visits, int64_t *largest) {
    *largest = 0;
    for (int64_t i = 0; i < pairs; i++) {
        const int64_t block = block_of(level, at[i]);
        if (block < 0 || !block_is_valid(level, block)) return HSOFTMAX_BAD_MODEL;
        visits[i] = (visit){block, row[i], at[i] - first_row(level, block), i};
        if (size_of(level, block) > *largest) *largest = size_of(level, block);
    }
    return HSOFTMAX_OK;
}

/* Visits the levels from the first to the last, so that terms are added in the order of `top_k`. */
static int walk(const kernel_set *kernels, const hsoftmax_levels *model, const float *hidden,
                const int64_t *row, const int64_t *path, visit *visits, int64_t pairs,
                const volatile int32_t *stop, double *total) {
    int status = HSOFTMAX_OK;
    for (int64_t l = 0; l < model->num_levels && status == HSOFTMAX_OK; l++) {
        int64_t largest;
        status = locate(&model->levels[l], path + l * pairs, row, pairs, visits, &largest);
        if (status != HSOFTMAX_OK) break;
        float *y = malloc((size_t)(MAX_ROWS * padded(largest)) * sizeof(float));
        if (!y) return HSOFTMAX_NO_MEMORY;
        status = visit_level(kernels, &model->levels[l], visits, pairs, hidden, model->hidden_size,
                             stop, y, total);
        free(y);
    }
    return status;
}

int32_t hsoftmax_target_log_prob(const hsoftmax_levels *model, const float *hidden, int64_t batch,
                                 const int64_t *row, const int64_t *target, int64_t pairs,
                                 const volatile int32_t *stop, float *log_prob) {
    const kernel_set *kernels = chosen_kernels();
    if (!kernels || batch < 0 || pairs < 0) return HSOFTMAX_BAD_ARGUMENT;
    if (!levels_are_valid(model)) return HSOFTMAX_BAD_MODEL;
    if (!pairs) return HSOFTMAX_OK;
    if (!hidden || !row || !target || !log_prob) return HSOFTMAX_BAD_ARGUMENT;
    for (int64_t i = 0; i < pairs; i++)
        if (row[i] < 0 || row[i] >= batch) return HSOFTMAX_BAD_ROW;
    if (pairs > INT64_MAX / 64 / model->num_levels) return HSOFTMAX_NO_MEMORY;
    visit *visits = malloc((size_t)pairs * sizeof(visit));
    int64_t *path = malloc((size_t)(pairs * model->num_levels) * sizeof(int64_t));
    double *total = calloc((size_t)pairs, sizeof(double));
    int status = visits && path && total ? HSOFTMAX_OK : HSOFTMAX_NO_MEMORY;
    if (status == HSOFTMAX_OK) status = find_paths(model, target, pairs, path);
    if (status == HSOFTMAX_OK)
        status = walk(kernels, model, hidden, row, path, visits, pairs, stop, total);
    for (int64_t i = 0; status == HSOFTMAX_OK && i < pairs; i++) log_prob[i] = (float)total[i];
    free(visits);
    free(path);
    free(total);
    return status;
}
