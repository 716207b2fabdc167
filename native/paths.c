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
#include "hsoftmax.h"

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

static int level_is_valid(const hsoftmax_level *level, int64_t blocks, int64_t hidden_size) {
    return level->weight && level->bias && level->offsets && level->blocks == blocks &&
           level->rows >= blocks && level->rows <= INT64_MAX / hidden_size / 4 &&
           level->weight_type >= HSOFTMAX_F32 && level->weight_type <= HSOFTMAX_I8 &&
           (level->weight_type != HSOFTMAX_I8 || level->scale) && level->block_size >= 0 &&
           (!level->block_size || level->block_size * blocks == level->rows);
}

static int model_is_valid(const hsoftmax_levels *model) {
    if (!model || !model->levels || model->num_levels < 1 || model->hidden_size < 1) return 0;
    int64_t blocks = 1;
    for (int64_t i = 0; i < model->num_levels; i++) {
        if (!level_is_valid(&model->levels[i], blocks, model->hidden_size)) return 0;
        blocks = model->levels[i].rows;
    }
    return model->num_targets >= 1 && model->num_targets <= blocks;
}

/* The block of a row; offsets ascend. -1 if they do not hold the row. */
static int64_t block_of(const hsoftmax_level *level, int64_t row) {
    if (level->block_size) return row / level->block_size;
    int64_t low = 0, high = level->blocks;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (level->offsets[middle] <= row)
            low = middle;
        else
            high = middle;
    }
    return level->offsets[low] <= row && row < level->offsets[low + 1] ? low : -1;
}

static int64_t first_row(const hsoftmax_level *level, int64_t block) {
    return level->block_size ? block * level->block_size : level->offsets[block];
}

static int64_t size_of(const hsoftmax_level *level, int64_t block) {
    return level->block_size ? level->block_size
                             : level->offsets[block + 1] - level->offsets[block];
}

/* Logits of a block for some hidden rows, [rows, stride]. */
static void block_logits(const kernel_set *kernels, const hsoftmax_level *level, int64_t block,
                         const float *const *x, int rows, int64_t hidden_size, int64_t stride,
                         float *y) {
    static const int64_t SIZES[] = {4, 2, 1};
    const int type = level->weight_type;
    const int64_t first = first_row(level, block), size = size_of(level, block);
    const char *weight = (const char *)level->weight + first * hidden_size * SIZES[type];
    for (int r = 0; r < rows; r++) {
        if (type == HSOFTMAX_I8)
            memset(y + r * stride, 0, (size_t)stride * sizeof(float));
        else
            memcpy(y + r * stride, level->bias + first, (size_t)size * sizeof(float));
    }
    (level->block_size ? kernels->transposed : kernels->row_major)[type](weight, x, rows,
                                                                         hidden_size, size, stride, y);
    if (type == HSOFTMAX_I8)
        for (int r = 0; r < rows; r++)
            for (int64_t k = 0; k < size; k++)
                y[r * stride + k] =
                    fmaf(y[r * stride + k], level->scale[first + k], level->bias[first + k]);
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

/* Fills in each pair's visit of the last level. */
static int start_visits(const hsoftmax_levels *model, int64_t batch, const int64_t *row,
                        const int64_t *target, int64_t pairs, visit *visits) {
    const int64_t rows = model->levels[model->num_levels - 1].rows;
    for (int64_t i = 0; i < pairs; i++) {
        if (row[i] < 0 || row[i] >= batch) return HSOFTMAX_BAD_ROW;
        if (target[i] < 0 || target[i] >= model->num_targets) return HSOFTMAX_BAD_TARGET;
        const int64_t at = model->target_rows ? model->target_rows[target[i]] : target[i];
        if (at < 0 || at >= rows) return HSOFTMAX_BAD_MODEL;
        visits[i] = (visit){at, row[i], 0, i}; /* `block` holds the row of the level until `locate` */
    }
    return HSOFTMAX_OK;
}

/* Replaces each visit's row of the level, which is in `block`, by its block and position. */
static int locate(const hsoftmax_level *level, visit *visits, int64_t pairs, int64_t *largest) {
    *largest = 0;
    for (int64_t i = 0; i < pairs; i++) {
        const int64_t at = visits[i].block, block = block_of(level, at);
        if (block < 0 || first_row(level, block) < 0 ||
            first_row(level, block) + size_of(level, block) > level->rows)
            return HSOFTMAX_BAD_MODEL;
        visits[i].block = block;
        visits[i].position = at - first_row(level, block);
        if (size_of(level, block) > *largest) *largest = size_of(level, block);
    }
    return HSOFTMAX_OK;
}

static int walk(const kernel_set *kernels, const hsoftmax_levels *model, const float *hidden,
                visit *visits, int64_t pairs, const volatile int32_t *stop, double *total) {
    int status = HSOFTMAX_OK;
    for (int64_t i = model->num_levels - 1; i >= 0 && status == HSOFTMAX_OK; i--) {
        int64_t largest;
        status = locate(&model->levels[i], visits, pairs, &largest);
        if (status != HSOFTMAX_OK) break;
        float *y = largest > INT64_MAX / 64 ? NULL : malloc((size_t)(MAX_ROWS * padded(largest)) * 4);
        if (!y) return HSOFTMAX_NO_MEMORY;
        status = visit_level(kernels, &model->levels[i], visits, pairs, hidden, model->hidden_size,
                             stop, y, total);
        free(y);
    }
    return status;
}

int32_t hsoftmax_target_log_prob(const hsoftmax_levels *model, const float *hidden, int64_t batch,
                                 const int64_t *row, const int64_t *target, int64_t pairs,
                                 const volatile int32_t *stop, float *log_prob) {
    const kernel_set *kernels = chosen_kernels();
    if (!kernels || batch < 0 || pairs < 0 || pairs > INT64_MAX / 64) return HSOFTMAX_BAD_ARGUMENT;
    if (!model_is_valid(model)) return HSOFTMAX_BAD_MODEL;
    if (!pairs) return HSOFTMAX_OK;
    if (!hidden || !row || !target || !log_prob) return HSOFTMAX_BAD_ARGUMENT;
    visit *visits = malloc((size_t)pairs * sizeof(visit));
    double *total = calloc((size_t)pairs, sizeof(double));
    int status = visits && total ? start_visits(model, batch, row, target, pairs, visits)
                                 : HSOFTMAX_NO_MEMORY;
    if (status == HSOFTMAX_OK) status = walk(kernels, model, hidden, visits, pairs, stop, total);
    for (int64_t i = 0; status == HSOFTMAX_OK && i < pairs; i++) log_prob[i] = (float)total[i];
    free(visits);
    free(total);
    return status;
}
