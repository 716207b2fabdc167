/* The k likeliest targets of a hierarchical softmax, exactly, by opening the likeliest block first.
 *
 * A target's log p is at most that of its block's parent. So a block of the last level needs to be
 * opened only while its parent's log p is at least the k-th best so far. A row with a peaked
 * distribution opens few blocks. Rows that open one block in 16 without an end have flat
 * distributions; they then pass over the other blocks together, so that each block is read once for
 * at most 8 rows. */
#include <math.h>
#include <stdlib.h>

#include "best.h"
#include "dispatch.h"
#include "levels.h"

#define BLOCKS_PER_ORDERED 16

/* One row's search. */
typedef struct {
    const float *hidden;
    double *bounds;     /* [blocks] log p of each block's parent; NaN once the block is opened */
    heap order;         /* the blocks that are not opened yet, the likeliest on top */
    best_k best;
    int64_t opened;
    int is_flat;
} row_search;

typedef struct {
    const kernel_set *kernels;
    const hsoftmax_levels *model;
    const volatile int32_t *stop;
    int64_t max_blocks;
    row_search rows[MAX_ROWS];
    double *above; /* [rows of one level, the widest but the last] for one hidden row */
    float *y;      /* [MAX_ROWS, stride] logits of one block */
} search;

static const hsoftmax_level *last_level(const search *search) {
    return &search->model->levels[search->model->num_levels - 1];
}

/* The target of a row of the last level, or -1 for padding. */
static int64_t target_of(const search *search, int64_t row) {
    const int64_t *targets = search->model->row_target;
    const int64_t target = targets ? targets[row] : row;
    return target >= 0 && target < search->model->num_targets ? target : -1;
}

/* Replaces `parents`, log p of the rows above a level, by `children`, log p of the level's rows. */
static int descend(search *search, const hsoftmax_level *level, const float *hidden,
                   const double *parents, double *children) {
    for (int64_t block = 0; block < level->blocks; block++) {
        if (search->stop && *search->stop) return HSOFTMAX_STOPPED;
        if (!block_is_valid(level, block)) return HSOFTMAX_BAD_MODEL;
        const int64_t first = first_row(level, block), size = size_of(level, block);
        block_logits(search->kernels, level, block, &hidden, 1, search->model->hidden_size,
                     padded(size), search->y);
        const double normaliser = search->kernels->log_sum_exp(search->y, size);
        for (int64_t k = 0; k < size; k++)
            children[first + k] = parents[block] + (search->y[k] - normaliser);
    }
    return HSOFTMAX_OK;
}

/* Computes log p of every block's parent, and puts the blocks in order. */
static int start_row(search *search, row_search *row) {
    const int64_t levels = search->model->num_levels, blocks = last_level(search)->blocks;
    int status = HSOFTMAX_OK;
    row->bounds[0] = 0;
    for (int64_t l = 0; l + 1 < levels && status == HSOFTMAX_OK; l++) {
        for (int64_t i = 0; i < search->model->levels[l].blocks; i++)
            search->above[i] = row->bounds[i];
        status = descend(search, &search->model->levels[l], row->hidden, search->above,
                         row->bounds);
    }
    row->order.size = blocks;
    for (int64_t b = 0; b < blocks; b++) {
        const double bound = isnan(row->bounds[b]) ? -INFINITY : row->bounds[b];
        row->order.items[b] = (candidate){bound, b};
    }
    heap_build(&row->order);
    row->best.heap.size = row->opened = row->is_flat = 0;
    return status;
}

/* Opens a block for some rows: its targets are results. */
static int open_block(search *search, int64_t block, row_search *const *rows, int count) {
    const hsoftmax_level *level = last_level(search);
    const int64_t first = first_row(level, block), size = size_of(level, block);
    const int64_t stride = padded(size);
    const float *x[MAX_ROWS];
    for (int r = 0; r < count; r++) x[r] = rows[r]->hidden;
    block_logits(search->kernels, level, block, x, count, search->model->hidden_size, stride,
                 search->y);
    for (int r = 0; r < count; r++) {
        float *y = search->y + r * stride;
        const double normaliser = search->kernels->log_sum_exp(y, size);
        for (int64_t k = 0; k < size; k++) {
            const candidate leaf = {rows[r]->bounds[block] + (y[k] - normaliser),
                                    target_of(search, first + k)};
            if (leaf.at >= 0 && !is_hopeless(&rows[r]->best, leaf.log_prob) &&
                !add_leaf(&rows[r]->best, leaf))
                return HSOFTMAX_NO_MEMORY;
        }
        rows[r]->bounds[block] = NAN;
        rows[r]->opened++;
    }
    return HSOFTMAX_OK;
}

/* True if the row has to open its likeliest block: another may improve it, it is below its limit,
 * and has not proven flat. */
static int wants_block(const search *search, row_search *row, uint8_t *exact) {
    const int64_t ordered = last_level(search)->blocks / BLOCKS_PER_ORDERED + 4;
    if (row->is_flat || !row->order.size ||
        is_hopeless(&row->best, row->order.items[0].log_prob))
        return 0;
    if (search->max_blocks) {
        *exact = row->opened < search->max_blocks || row->best.heap.size < row->best.k;
        return *exact;
    }
    row->is_flat = row->opened >= ordered;
    return !row->is_flat;
}

/* Opens the blocks of all rows in order, one a row and round. Rows that open the same block in a
 * round read it once. */
static int search_in_order(search *search, int rows, uint8_t *exact) {
    for (int r = 0; r < rows; r++) exact[r] = 1;
    for (;;) {
        row_search *active[MAX_ROWS];
        int count = 0;
        if (search->stop && *search->stop) return HSOFTMAX_STOPPED;
        for (int r = 0; r < rows; r++)
            if (wants_block(search, &search->rows[r], exact + r)) active[count++] = &search->rows[r];
        if (!count) return HSOFTMAX_OK;
        while (count) {
            const int64_t block = active[0]->order.items[0].at;
            row_search *same[MAX_ROWS];
            int together = 0, left = 0;
            for (int i = 0; i < count; i++) {
                if (active[i]->order.items[0].at == block)
                    same[together++] = active[i];
                else
                    active[left++] = active[i];
            }
            for (int i = 0; i < together; i++) heap_pop(&same[i]->order);
            const int status = open_block(search, block, same, together);
            if (status != HSOFTMAX_OK) return status;
            count = left;
        }
    }
}

/* Passes over all blocks for the rows that proved flat. */
static int search_together(search *search, int rows) {
    for (int64_t block = 0; block < last_level(search)->blocks; block++) {
        row_search *open[MAX_ROWS];
        int count = 0;
        for (int r = 0; r < rows; r++) {
            row_search *row = &search->rows[r];
            if (row->is_flat && !isnan(row->bounds[block]) &&
                !is_hopeless(&row->best, row->bounds[block]))
                open[count++] = row;
        }
        if (search->stop && *search->stop) return HSOFTMAX_STOPPED;
        if (!count) continue;
        const int status = open_block(search, block, open, count);
        if (status != HSOFTMAX_OK) return status;
    }
    return HSOFTMAX_OK;
}

static int search_rows(search *search, const float *hidden, int rows, float *log_prob,
                       int64_t *target, int64_t *opened, uint8_t *exact) {
    int status = HSOFTMAX_OK;
    for (int r = 0; r < rows && status == HSOFTMAX_OK; r++) {
        search->rows[r].hidden = hidden + r * search->model->hidden_size;
        status = start_row(search, &search->rows[r]);
    }
    if (status == HSOFTMAX_OK) status = search_in_order(search, rows, exact);
    if (status == HSOFTMAX_OK) status = search_together(search, rows);
    for (int r = 0; r < rows && status == HSOFTMAX_OK; r++) {
        best_k *best = &search->rows[r].best;
        opened[r] = search->rows[r].opened;
        take_results(best, log_prob + r * best->k, target + r * best->k);
    }
    return status;
}

/* Checks all blocks, and allocates what the search needs. */
static int prepare(search *search, int64_t k) {
    const hsoftmax_levels *model = search->model;
    const int64_t blocks = last_level(search)->blocks;
    int64_t largest = 1;
    for (int64_t l = 0; l < model->num_levels; l++)
        for (int64_t b = 0; b < model->levels[l].blocks; b++) {
            if (!block_is_valid(&model->levels[l], b)) return HSOFTMAX_BAD_MODEL;
            if (size_of(&model->levels[l], b) > largest) largest = size_of(&model->levels[l], b);
        }
    search->y = malloc((size_t)(MAX_ROWS * padded(largest)) * sizeof(float));
    search->above = malloc((size_t)blocks * sizeof(double));
    int has_memory = search->y && search->above;
    for (int r = 0; r < MAX_ROWS; r++) {
        row_search *row = &search->rows[r];
        row->best = (best_k){.heap = {.is_above = is_worse}, .k = k};
        row->bounds = malloc((size_t)blocks * sizeof(double));
        row->order = (heap){malloc((size_t)blocks * sizeof(candidate)), 0, blocks, is_likelier};
        has_memory = has_memory && row->bounds && row->order.items;
    }
    return has_memory ? HSOFTMAX_OK : HSOFTMAX_NO_MEMORY;
}

static void release(search *search) {
    free(search->y);
    free(search->above);
    for (int r = 0; r < MAX_ROWS; r++) {
        free(search->rows[r].bounds);
        free(search->rows[r].order.items);
        free(search->rows[r].best.heap.items);
    }
}

int32_t hsoftmax_levels_top_k(const hsoftmax_levels *model, const float *hidden, int64_t batch,
                              int64_t k, int64_t max_opened, const volatile int32_t *stop,
                              int32_t *free_threads, float *log_prob, int64_t *target,
                              int64_t *opened, uint8_t *exact) {
    search search = {.kernels = chosen_kernels(), .model = model, .stop = stop,
                     .max_blocks = max_opened};
    (void)free_threads;
    if (!search.kernels || batch < 0 || max_opened < 0) return HSOFTMAX_BAD_ARGUMENT;
    if (!levels_are_valid(model)) return HSOFTMAX_BAD_MODEL;
    if (k < 1 || k > model->num_targets) return HSOFTMAX_BAD_ARGUMENT;
    if (batch && (!hidden || !log_prob || !target || !opened || !exact))
        return HSOFTMAX_BAD_ARGUMENT;
    int status = prepare(&search, k);
    for (int64_t i = 0; i < batch && status == HSOFTMAX_OK; i += MAX_ROWS) {
        const int rows = batch - i < MAX_ROWS ? (int)(batch - i) : MAX_ROWS;
        status = search_rows(&search, hidden + i * model->hidden_size, rows, log_prob + i * k,
                             target + i * k, opened + i, exact + i);
    }
    release(&search);
    return status;
}
