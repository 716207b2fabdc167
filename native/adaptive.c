/* Layers of an adaptive softmax: whether they are valid, and their logits.
 *
 *     logits = weight @ (projection @ hidden) + bias */
#include "adaptive.h"

#include <stdlib.h>
#include <string.h>

#define MAX_SIZE (1 << 30) /* of rows, widths and the number of layers: no product overflows */
#define MAX_LOGITS (1 << 22) /* 16 MB, unless 8 rows need more */
#define TILE_BYTES (1 << 19) /* of a weight, after which the stop flag is looked at */

static int layer_is_valid(const hsoftmax_layer *layer, int64_t hidden_size) {
    if (layer->rows < 1 || layer->rows > MAX_SIZE || layer->width < 0 || layer->width > MAX_SIZE)
        return 0;
    if (layer->weight_type != HSOFTMAX_F32) return 0;
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

/* Adds the products of hidden rows with the rows of a matrix [count, width] to y. */
static int add_products(logits_function *multiply, const void *matrix, int64_t size, int64_t count,
                        int64_t width, const float *const *x, int64_t rows,
                        const volatile int32_t *stop, int64_t stride, float *y) {
    const int64_t tile = TILE_BYTES / (width * size) / 4 * 4 + 4;
    for (int64_t first = 0; first < count; first += tile) {
        const char *part = (const char *)matrix + first * width * size;
        const int64_t columns = count - first < tile ? count - first : tile;
        if (stop && *stop) return HSOFTMAX_STOPPED;
        multiply(part, x, (int)rows, width, columns, stride, y + first);
    }
    return HSOFTMAX_OK;
}

/* Replaces hidden rows by their projections. */
static int project(const kernel_set *kernels, const hsoftmax_layer *layer, int64_t hidden_size,
                   const float **x, int64_t rows, const volatile int32_t *stop,
                   const layer_memory *memory) {
    float *y = memory->projected;
    memset(y, 0, (size_t)(rows * memory->width) * sizeof(float));
    const int status =
        add_products(kernels->row_major[HSOFTMAX_F32], layer->projection, sizeof(float),
                     layer->width, hidden_size, x, rows, stop, memory->width, y);
    for (int64_t r = 0; r < rows; r++) x[r] = y + r * memory->width;
    return status;
}

int layer_logits(const kernel_set *kernels, const hsoftmax_adaptive *model,
                 const hsoftmax_layer *layer, const float *const *x, int64_t rows,
                 const volatile int32_t *stop, const layer_memory *memory) {
    const float *states[MAX_CHUNK_ROWS];
    const int64_t stride = padded(layer->rows);
    int status = HSOFTMAX_OK;
    for (int64_t r = 0; r < rows; r++) {
        const size_t bytes = (size_t)layer->rows * sizeof(float);
        float *y = memory->logits + r * stride;
        states[r] = x[r];
        if (layer->bias)
            memcpy(y, layer->bias, bytes);
        else
            memset(y, 0, bytes);
    }
    if (!layer->width) return HSOFTMAX_OK;
    if (layer->projection)
        status = project(kernels, layer, model->hidden_size, states, rows, stop, memory);
    if (status != HSOFTMAX_OK) return status;
    return add_products(kernels->row_major[layer->weight_type], layer->weight, sizeof(float),
                        layer->rows, layer->width, states, rows, stop, stride, memory->logits);
}
