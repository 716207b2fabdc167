/* The k likeliest targets of an adaptive softmax, exactly, by opening the likeliest tail first.
 *
 * A target's log p is at most that of its tail's row in the head. So a tail needs to be opened only
 * while that is at least the k-th best so far. Rows that open the same tail in a round read it
 * once. */
#include <math.h>
#include <stdlib.h>

#include "adaptive.h"
#include "best.h"
#include "dispatch.h"

#define GROUP 16 /* logits that are compared with the threshold at once */

/* One row's search. */
typedef struct {
    const float *hidden;
    heap order; /* the tails that are not opened yet, the likeliest on top */
    best_k best;
    int64_t opened;
} row_search;

typedef struct {
    layer_query layers;
    int64_t max_tails;
    int64_t chunk; /* rows that are searched together */
    int64_t *first_target; /* [layers] of each layer */
    row_search rows[MAX_CHUNK_ROWS];
} search;

/* The least logit that may be a result: a little too low, because comparisons round. */
static float threshold(const best_k *best, double shift) {
    if (best->heap.size < best->k) return -INFINITY;
    const double kth = best->heap.items[0].log_prob;
    const float least = (float)(kth - shift - 1e-6 * (fabs(kth) + fabs(shift)));
    return isnan(least) ? -INFINITY : least;
}

/* Adds targets of a layer to a row's results: log p = bound + (y - normaliser). Returns a status. */
static int add_leaves(row_search *row, const float *y, int64_t count, int64_t first_target,
                      double bound, double normaliser) {
    const double shift = bound - normaliser;
    float least = threshold(&row->best, shift);
    for (int64_t start = 0; start < count; start += GROUP) {
        const int64_t end = count - start < GROUP ? count : start + GROUP;
        int is_any = 0;
        for (int64_t k = start; k < end; k++) is_any |= y[k] >= least;
        if (!is_any) continue;
        for (int64_t k = start; k < end; k++) {
            const candidate leaf = {bound + (y[k] - normaliser), first_target + k};
            if (!is_hopeless(&row->best, leaf.log_prob) && !add_leaf(&row->best, leaf))
                return HSOFTMAX_NO_MEMORY;
        }
        least = threshold(&row->best, shift);
    }
    return HSOFTMAX_OK;
}

/* Adds the shortlist to the results of all rows, and puts their tails in order. */
static int start_rows(search *search, int64_t rows) {
    const hsoftmax_layer *head = &search->layers.model->layers[0];
    const int64_t shortlist = shortlist_of(search->layers.model), tails = search->layers.model->num_layers - 1;
    const float *x[MAX_CHUNK_ROWS];
    for (int64_t r = 0; r < rows; r++) x[r] = search->rows[r].hidden;
    int status = layer_logits(&search->layers, head, x, rows);
    for (int64_t r = 0; r < rows && status == HSOFTMAX_OK; r++) {
        row_search *row = &search->rows[r];
        float *y = search->layers.memory.logits + r * padded(head->rows);
        const double normaliser = search->layers.kernels->log_sum_exp(y, head->rows);
        row->best.heap.size = row->opened = 0;
        status = add_leaves(row, y, shortlist, 0, 0, normaliser);
        for (int64_t i = 0; i < tails; i++) {
            const double bound = y[shortlist + i] - normaliser;
            row->order.items[i] = (candidate){isnan(bound) ? -INFINITY : bound, i};
        }
        row->order.size = tails;
        heap_build(&row->order);
    }
    return status;
}

/* Opens a tail for some rows, at most a chunk of it: its targets are results. */
static int open_tail(search *search, int64_t tail, row_search *const *rows, int64_t count) {
    const hsoftmax_layer *layer = &search->layers.model->layers[tail + 1];
    const float *x[MAX_CHUNK_ROWS];
    for (int64_t r = 0; r < count; r++) x[r] = rows[r]->hidden;
    int status = layer_logits(&search->layers, layer, x, count);
    for (int64_t r = 0; r < count && status == HSOFTMAX_OK; r++) {
        float *y = search->layers.memory.logits + r * padded(layer->rows);
        const double normaliser = search->layers.kernels->log_sum_exp(y, layer->rows);
        const double bound = heap_pop(&rows[r]->order).log_prob;
        status = add_leaves(rows[r], y, layer->rows, search->first_target[tail + 1], bound,
                            normaliser);
        rows[r]->opened++;
    }
    return status;
}

/* True if the row has to open its likeliest tail: it may improve the results, and the row is below
 * its limit. Clears `exact` if the limit alone keeps it from that. */
static int wants_tail(const search *search, const row_search *row, uint8_t *exact) {
    if (!row->order.size || is_hopeless(&row->best, row->order.items[0].log_prob)) return 0;
    *exact = !search->max_tails || row->opened < search->max_tails ||
             row->best.heap.size < row->best.k;
    return *exact;
}

/* Opens the tails of all rows in order, one a row and round. */
static int open_tails(search *search, int64_t rows, uint8_t *exact) {
    for (int64_t r = 0; r < rows; r++) exact[r] = 1;
    for (;;) {
        row_search *active[MAX_CHUNK_ROWS];
        int64_t count = 0;
        for (int64_t r = 0; r < rows; r++)
            if (wants_tail(search, &search->rows[r], exact + r)) active[count++] = &search->rows[r];
        if (!count) return HSOFTMAX_OK;
        while (count) {
            const int64_t tail = active[0]->order.items[0].at;
            const int64_t chunk = chunk_rows(&search->layers.model->layers[tail + 1]);
            row_search *same[MAX_CHUNK_ROWS];
            int64_t together = 0, left = 0;
            for (int64_t i = 0; i < count; i++) {
                if (active[i]->order.items[0].at == tail && together < chunk)
                    same[together++] = active[i];
                else
                    active[left++] = active[i];
            }
            const int status = open_tail(search, tail, same, together);
            if (status != HSOFTMAX_OK) return status;
            count = left;
        }
    }
}

static int search_rows(search *search, const float *hidden, int64_t rows, float *log_prob,
                       int64_t *target, int64_t *opened, uint8_t *exact) {
    for (int64_t r = 0; r < rows; r++)
        search->rows[r].hidden = hidden + r * search->layers.model->hidden_size;
    int status = start_rows(search, rows);
    if (status == HSOFTMAX_OK) status = open_tails(search, rows, exact);
    for (int64_t r = 0; r < rows && status == HSOFTMAX_OK; r++) {
        best_k *best = &search->rows[r].best;
        opened[r] = search->rows[r].opened;
        take_results(best, log_prob + r * best->k, target + r * best->k);
    }
    return status;
}

static int prepare(search *search, int64_t batch, int64_t k) {
    const hsoftmax_adaptive *model = search->layers.model;
    const int64_t tails = model->num_layers - 1;
    int has_memory = allocate_memory(model, batch, &search->layers.memory);
    search->first_target = malloc((size_t)model->num_layers * sizeof(int64_t));
    has_memory = has_memory && search->first_target;
    for (int64_t r = 0; r < search->chunk; r++) {
        row_search *row = &search->rows[r];
        row->best = (best_k){.heap = {.is_above = is_worse}, .k = k};
        row->order = (heap){malloc((size_t)tails * sizeof(candidate)), 0, tails, is_likelier};
        has_memory = has_memory && row->order.items;
    }
    if (!has_memory) return HSOFTMAX_NO_MEMORY;
    search->first_target[0] = 0;
    for (int64_t i = 1, next = shortlist_of(model); i < model->num_layers; i++) {
        search->first_target[i] = next;
        next += model->layers[i].rows;
    }
    return HSOFTMAX_OK;
}

static void release(search *search) {
    free_memory(&search->layers.memory);
    free(search->first_target);
    for (int64_t r = 0; r < search->chunk; r++) {
        free(search->rows[r].order.items);
        free(search->rows[r].best.heap.items);
    }
}

int32_t hsoftmax_adaptive_top_k(const hsoftmax_adaptive *model, const float *hidden, int64_t batch,
                                int64_t k, int64_t max_opened, const volatile int32_t *stop,
                                int32_t *free_threads, float *log_prob, int64_t *target,
                                int64_t *opened, uint8_t *exact) {
    search search = {.layers = {chosen_kernels(), model, stop, free_threads, {0}},
                     .max_tails = max_opened};
    if (!search.layers.kernels || batch < 0 || max_opened < 0) return HSOFTMAX_BAD_ARGUMENT;
    if (!adaptive_is_valid(model)) return HSOFTMAX_BAD_MODEL;
    if (k < 1 || k > adaptive_targets(model)) return HSOFTMAX_BAD_ARGUMENT;
    if (!batch) return HSOFTMAX_OK;
    if (!hidden || !log_prob || !target || !opened || !exact) return HSOFTMAX_BAD_ARGUMENT;
    search.chunk = chunk_rows(&model->layers[0]);
    if (search.chunk > batch) search.chunk = batch;
    int status = prepare(&search, batch, k);
    for (int64_t i = 0; i < batch && status == HSOFTMAX_OK; i += search.chunk) {
        const int64_t rows = batch - i < search.chunk ? batch - i : search.chunk;
        status = search_rows(&search, hidden + i * model->hidden_size, rows, log_prob + i * k,
                             target + i * k, opened + i, exact + i);
    }
    release(&search);
    return status;
}
