/* Log-probabilities of targets of an adaptive softmax.
 *
 *     log p(target) = head[target]                                        target in the shortlist
 *                   = head[shortlist + i] + log_softmax(tail i)[target - first target of i]
 *
 * Pairs are sorted by hidden row, and each layer is computed once for the distinct rows that need
 * it, up to 128 at a time. */
#include <stdlib.h>

#include "adaptive.h"
#include "dispatch.h"

/* One pair, and its position in the layer that is visited. */
typedef struct {
    int64_t row, target, pair, position;
} visit;

typedef struct {
    layer_query layers;
    const float *hidden;
    double *total; /* [pairs] */
} query;

static int compare_visits(const void *left, const void *right) {
    const visit *a = left, *b = right;
    if (a->row != b->row) return a->row < b->row ? -1 : 1;
    return (a->pair > b->pair) - (a->pair < b->pair);
}

/* Fills in the pairs in the order of their rows. */
static void sort_pairs(const int64_t *row, const int64_t *target, int64_t pairs, visit *sorted) {
    int is_sorted = 1;
    for (int64_t i = 0; i < pairs; i++) {
        sorted[i] = (visit){row[i], target[i], i, 0};
        is_sorted = is_sorted && (!i || row[i - 1] <= row[i]);
    }
    if (!is_sorted) qsort(sorted, (size_t)pairs, sizeof(visit), compare_visits);
}

/* The row of the head for a target: its own, or that of its tail. */
static int64_t head_row(const hsoftmax_adaptive *model, int64_t target) {
    const int64_t shortlist = shortlist_of(model);
    int64_t end = shortlist, tail = 0;
    while (target >= end + model->layers[tail + 1].rows) end += model->layers[++tail].rows;
    return target < shortlist ? target : shortlist + tail;
}

/* The pairs that need a layer, in the order of their rows; returns their number. */
static int64_t select_visits(const hsoftmax_adaptive *model, int64_t layer, int64_t first_target,
                             const visit *sorted, int64_t pairs, visit *selected) {
    int64_t count = 0;
    for (int64_t i = 0; i < pairs; i++) {
        const int64_t position = layer ? sorted[i].target - first_target
                                       : head_row(model, sorted[i].target);
        if (position < 0 || position >= model->layers[layer].rows) continue;
        selected[count] = sorted[i];
        selected[count++].position = position;
    }
    return count;
}

/* Adds the layer's log-softmaxes to the totals of its visits, which are in the order of rows. */
static int visit_layer(const query *query, const hsoftmax_layer *layer, const visit *from,
                       const visit *end) {
    const int64_t chunk = chunk_rows(layer), stride = padded(layer->rows);
    while (from < end) {
        const float *x[MAX_CHUNK_ROWS];
        const visit *of_row[MAX_CHUNK_ROWS + 1];
        int64_t rows = 0;
        for (; from < end; from++) {
            if (rows && from->row == of_row[rows - 1]->row) continue;
            if (rows == chunk) break;
            of_row[rows] = from;
            x[rows++] = query->hidden + from->row * query->layers.model->hidden_size;
        }
        of_row[rows] = from;
        const int status = layer_logits(&query->layers, layer, x, rows);
        if (status != HSOFTMAX_OK) return status;
        for (int64_t r = 0; r < rows; r++) {
            float *y = query->layers.memory.logits + r * stride;
            const double normaliser = query->layers.kernels->log_sum_exp(y, layer->rows);
            for (const visit *v = of_row[r]; v < of_row[r + 1]; v++)
                query->total[v->pair] += y[v->position] - normaliser;
        }
    }
    return HSOFTMAX_OK;
}

/* Visits the head and then the tails, so that terms are added in the order of `top_k`. */
static int walk(const query *query, const visit *sorted, int64_t pairs, visit *selected) {
    const hsoftmax_adaptive *model = query->layers.model;
    int64_t first_target = 0;
    int status = HSOFTMAX_OK;
    for (int64_t i = 0; i < model->num_layers && status == HSOFTMAX_OK; i++) {
        const int64_t count = select_visits(model, i, first_target, sorted, pairs, selected);
        status = visit_layer(query, &model->layers[i], selected, selected + count);
        first_target += i ? model->layers[i].rows : shortlist_of(model);
    }
    return status;
}

int32_t hsoftmax_adaptive_target_log_prob(const hsoftmax_adaptive *model, const float *hidden,
                                          int64_t batch, const int64_t *row, const int64_t *target,
                                          int64_t pairs, const volatile int32_t *stop,
                                          int32_t *free_threads, float *log_prob) {
    query query = {{chosen_kernels(), model, stop, free_threads, {0}}, hidden, NULL};
    if (!query.layers.kernels || batch < 0 || pairs < 0) return HSOFTMAX_BAD_ARGUMENT;
    if (!adaptive_is_valid(model)) return HSOFTMAX_BAD_MODEL;
    if (!pairs) return HSOFTMAX_OK;
    if (!hidden || !row || !target || !log_prob) return HSOFTMAX_BAD_ARGUMENT;
    const int64_t targets = adaptive_targets(model);
    for (int64_t i = 0; i < pairs; i++) {
        if (row[i] < 0 || row[i] >= batch) return HSOFTMAX_BAD_ROW;
        if (target[i] < 0 || target[i] >= targets) return HSOFTMAX_BAD_TARGET;
    }
    if (pairs > INT64_MAX / 128) return HSOFTMAX_NO_MEMORY;
    visit *sorted = malloc((size_t)pairs * sizeof(visit));
    visit *selected = malloc((size_t)pairs * sizeof(visit));
    query.total = calloc((size_t)pairs, sizeof(double));
    int status = sorted && selected && query.total ? HSOFTMAX_OK : HSOFTMAX_NO_MEMORY;
    if (!allocate_memory(model, pairs < batch ? pairs : batch, &query.layers.memory))
        status = HSOFTMAX_NO_MEMORY;
    if (status == HSOFTMAX_OK) {
        sort_pairs(row, target, pairs, sorted);
        status = walk(&query, sorted, pairs, selected);
    }
    for (int64_t i = 0; status == HSOFTMAX_OK && i < pairs; i++)
        log_prob[i] = (float)query.total[i];
    free_memory(&query.layers.memory);
    free(sorted);
    free(selected);
    free(query.total);
    return status;
}
