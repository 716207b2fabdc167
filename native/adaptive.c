/* Layers of an adaptive softmax: whether they are valid, and their logits.
 *
 *     logits = scale * (weight @ (projection @ hidden)) + bias */
#include "adaptive.h"

#include <stdlib.h>
#include <string.h>

#include "threads.h"

#define MAX_SIZE (1 << 30) /* of rows, widths and the number of layers: no product overflows */
#define MAX_LOGITS (1 << 22) /* 16 MB, unless 8 rows need more */

/* The tests of the sanitizers compile with smaller numbers, so that small models are split too. */
#ifndef WEIGHTS_PER_THREAD
#define WEIGHTS_PER_THREAD (1 << 20) /* take several times as long as to start a thread */
#endif
#ifndef TILE_WEIGHTS
#define TILE_WEIGHTS (1 << 17) /* a thread takes these at a time, and looks at the stop flag */
#endif

/* Products of hidden rows with the rows of a matrix [count, width], which are added to y. */
typedef struct {
    const layer_query *query;
    logits_function *multiply;
    const char *matrix;
    int64_t size; /* bytes of a weight */
    int64_t count, width, tile; /* rows of the matrix that a thread takes at a time */
    const float *const *x;
    int64_t rows;
    float *y; /* [rows, stride] */
    int64_t stride;
    int32_t stopped;
} product;

static int layer_is_valid(const hsoftmax_layer *layer, int64_t hidden_size) {
    if (layer->rows < 1 || layer->rows > MAX_SIZE || layer->width < 0 || layer->width > MAX_SIZE)
        return 0;
    if (!weight_type_is_valid(layer->weight_type, layer->scale)) return 0;
    return !layer->width ||
           (layer->weight && (layer->projection || layer->width == hidden_size));
}

int adaptive_is_valid(const hsoftmax_adaptive *model) {
    if (!model || !model->layers || model->num_layers < 2 || model->num_layers > MAX_SIZE ||
        model->hidden_size < 1 || model->hidden_size > MAX_SIZE)
        return 0;
    for (int64_t i = 0; i < model->num_layers; i++)
        if (!layer_is_valid(&model->layers[i], model->hidden_size)) return 0;
    return shortlist_of(model) >= 1;
}

int64_t shortlist_of(const hsoftmax_adaptive *model) {
    return model->layers[0].rows - (model->num_layers - 1);
}

int64_t adaptive_targets(const hsoftmax_adaptive *model) {
    int64_t targets = shortlist_of(model);
    for (int64_t i = 1; i < model->num_layers; i++) targets += model->layers[i].rows;
    return targets;
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

int64_t chunk_rows(const hsoftmax_layer *layer) {
    return most(MAX_ROWS, least(MAX_CHUNK_ROWS, MAX_LOGITS / padded(layer->rows)));
}

int allocate_memory(const hsoftmax_adaptive *model, int64_t rows, layer_memory *memory) {
    int64_t size = 0;
    *memory = (layer_memory){0};
    for (int64_t i = 0; i < model->num_layers; i++) {
        const hsoftmax_layer *layer = &model->layers[i];
        size = most(size, least(rows, chunk_rows(layer)) * padded(layer->rows));
        if (layer->projection) memory->width = most(memory->width, layer->width);
    }
    memory->logits = malloc((size_t)size * sizeof(float));
    memory->projected =
        malloc((size_t)(least(rows, MAX_CHUNK_ROWS) * memory->width + 1) * sizeof(float));
    return memory->logits && memory->projected;
}

void free_memory(layer_memory *memory) {
    free(memory->logits);
    free(memory->projected);
}

static void multiply_tile(void *context, int64_t task, int thread) {
    product *product = context;
    const int64_t first = task * product->tile;
    (void)thread;
    if (product->query->stop && *product->query->stop)
        __atomic_store_n(&product->stopped, 1, __ATOMIC_RELAXED);
    if (__atomic_load_n(&product->stopped, __ATOMIC_RELAXED)) return;
    product->multiply(product->matrix + first * product->width * product->size, product->x,
                      (int)product->rows, product->width,
                      least(product->tile, product->count - first), product->stride,
                      product->y + first);
}

/* Computes a product on the threads that are free. To read a weight takes as long as to multiply it
 * with 8 rows. */
static int add_product(product *product) {
    const double work = (double)product->count * (double)(product->width * (product->rows + 8)) / 8;
    int32_t *free_threads = product->query->free_threads;
    product->tile = TILE_WEIGHTS / product->width / 4 * 4 + 4;
    const int threads = take_threads(free_threads, (int64_t)(work / WEIGHTS_PER_THREAD));
    run_tasks(threads, (product->count - 1) / product->tile + 1, multiply_tile, product);
    give_threads_back(free_threads, threads);
    return product->stopped ? HSOFTMAX_STOPPED : HSOFTMAX_OK;
}

/* Replaces hidden rows by their projections. */
static int project(const layer_query *query, const hsoftmax_layer *layer, const float **x,
                   int64_t rows) {
    const int64_t width = query->memory.width;
    float *y = query->memory.projected;
    product product = {
        .query = query, .multiply = query->kernels->row_major[HSOFTMAX_F32],
        .matrix = (const char *)layer->projection, .size = sizeof(float), .count = layer->width,
        .width = query->model->hidden_size, .x = x, .rows = rows, .y = y, .stride = width,
    };
    memset(y, 0, (size_t)(rows * width) * sizeof(float));
    const int status = add_product(&product);
    for (int64_t r = 0; r < rows; r++) x[r] = y + r * width;
    return status;
}

int layer_logits(const layer_query *query, const hsoftmax_layer *layer, const float *const *x,
                 int64_t rows) {
    const float *states[MAX_CHUNK_ROWS];
    const int64_t stride = padded(layer->rows);
    product product = {
        .query = query, .multiply = query->kernels->row_major[layer->weight_type],
        .matrix = layer->weight, .size = weight_size(layer->weight_type), .count = layer->rows,
        .width = layer->width, .x = states, .rows = rows, .y = query->memory.logits,
        .stride = stride,
    };
    const int is_scaled = layer->weight_type == HSOFTMAX_I8 && layer->width;
    for (int64_t r = 0; r < rows; r++) {
        const size_t bytes = (size_t)layer->rows * sizeof(float);
        states[r] = x[r];
        if (layer->bias && !is_scaled)
            memcpy(product.y + r * stride, layer->bias, bytes);
        else
            memset(product.y + r * stride, 0, bytes);
    }
    if (!layer->width) return HSOFTMAX_OK;
    int status = layer->projection ? project(query, layer, states, rows) : HSOFTMAX_OK;
    if (status == HSOFTMAX_OK) status = add_product(&product);
    for (int64_t r = 0; is_scaled && status == HSOFTMAX_OK && r < rows; r++)
        query->kernels->scale(product.y + r * stride, layer->scale, layer->bias, layer->rows);
    return status;
}
