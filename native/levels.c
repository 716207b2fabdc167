/* Blocks of a level: where they are, whether they are valid, and their logits. */
#include "levels.h"

#include <string.h>

static int level_is_valid(const hsoftmax_level *level, int64_t blocks, int64_t hidden_size) {
    return level->weight && level->bias && level->offsets && level->blocks == blocks &&
           level->rows >= blocks && level->rows <= INT64_MAX / hidden_size / 4 &&
           weight_type_is_valid(level->weight_type, level->scale) && level->block_size >= 0 &&
           (!level->block_size || level->block_size * blocks == level->rows);
}

int levels_are_valid(const hsoftmax_levels *model) {
    if (!model || !model->levels || model->num_levels < 1 || model->hidden_size < 1) return 0;
    int64_t blocks = 1;
    for (int64_t i = 0; i < model->num_levels; i++) {
        if (!level_is_valid(&model->levels[i], blocks, model->hidden_size)) return 0;
        blocks = model->levels[i].rows;
    }
    return model->num_targets >= 1 && model->num_targets <= blocks;
}

int64_t block_of(const hsoftmax_level *level, int64_t row) {
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

int64_t first_row(const hsoftmax_level *level, int64_t block) {
    return level->block_size ? block * level->block_size : level->offsets[block];
}

int64_t size_of(const hsoftmax_level *level, int64_t block) {
    if (level->block_size) return level->block_size;
    /* unsigned, because offsets of a damaged file may differ by more than an int64_t holds */
    return (int64_t)((uint64_t)level->offsets[block + 1] - (uint64_t)level->offsets[block]);
}

int block_is_valid(const hsoftmax_level *level, int64_t block) {
    const int64_t first = first_row(level, block), size = size_of(level, block);
    return first >= 0 && size >= 1 && first < level->rows && size <= level->rows - first;
}

void block_columns(const kernel_set *kernels, const hsoftmax_level *level, int64_t block,
                   int64_t from, int64_t count, const float *const *x, int rows,
                   int64_t hidden_size, int64_t stride, float *y) {
    const int type = level->weight_type;
    const int64_t bytes = weight_size(type);
    const int64_t first = first_row(level, block), size = level->block_size;
    const char *weight = (const char *)level->weight + first * hidden_size * bytes;
    const float *bias = level->bias + first + from;
    y += from;
    for (int r = 0; r < rows; r++) {
        if (type == HSOFTMAX_I8)
            memset(y + r * stride, 0, (size_t)count * sizeof(float));
        else
            memcpy(y + r * stride, bias, (size_t)count * sizeof(float));
    }
    if (size)
        kernels->transposed[type](weight + from * bytes, size, x, rows, hidden_size, count,
                                  stride, y);
    else
        kernels->row_major[type](weight + from * hidden_size * bytes, x, rows, hidden_size,
                                 count, stride, y);
    if (type == HSOFTMAX_I8)
        for (int r = 0; r < rows; r++)
            kernels->scale(y + r * stride, level->scale + first + from, bias, count);
}

void block_logits(const kernel_set *kernels, const hsoftmax_level *level, int64_t block,
                  const float *const *x, int rows, int64_t hidden_size, int64_t stride, float *y) {
    block_columns(kernels, level, block, 0, size_of(level, block), x, rows, hidden_size, stride, y);
}
