/* The products and the log-sum-exp of one block.
 *
 * Each sum runs in an order that depends on its length alone: not on the instruction set, and not
 * on the other rows of the batch. So a row has the same result, to the bit, alone and in a batch.
 * Compile with -ffp-contract=off: only `vec_fma` fuses. */
#include "kernels.h"

#include "vectors.h"

/* Hidden rows and vectors of columns whose sums stay in registers: AVX2 has 16, the others 32. */
#if defined(__AVX2__) && !defined(__AVX512F__)
#define TILE_ROWS 4
#define TILE_VECTORS 2
#else
#define TILE_ROWS 8
#define TILE_VECTORS 1
#endif
#define GROUP 8 /* hidden units whose products are added up before they are added to y */
#define DOT_ROWS (WIDTH == 8 ? 2 : 4) /* hidden rows whose sums with four rows fit in registers */

typedef vec load_function(const void *weight, int64_t index);

INLINE vec load_f32(const void *weight, int64_t index) {
    return vec_load((const float *)weight + index);
}
INLINE vec load_f16(const void *weight, int64_t index) {
    return vec_load_half((const uint16_t *)weight + index);
}
INLINE vec load_bf16(const void *weight, int64_t index) {
    return vec_load_bfloat((const uint16_t *)weight + index);
}
INLINE vec load_i8(const void *weight, int64_t index) {
    return vec_load_byte((const int8_t *)weight + index);
}

/* Adds the products of `depth` hidden units to all columns. The last columns are copied first if
 * the weight ends with them; else the numbers behind them go to columns that are not used. The next
 * group is loaded into the cache ahead if there are several rows, or if a weight has one or two
 * bytes: a unit is then so short that the processor by itself loads the next one too late. */
INLINE void add_group(const char *weight, int64_t size, int64_t pitch, load_function *load,
                      const float *const *x, const int rows, int64_t first, const int depth,
                      const int is_last, int64_t columns, int64_t stride, float *y) {
    float factor[MAX_ROWS][GROUP];
    for (int r = 0; r < rows; r++)
        for (int g = 0; g < depth; g++) factor[r][g] = x[r][first + g];
    const int64_t end = is_last || pitch < WIDTH ? columns - WIDTH : columns - 1;
    int64_t k = 0;
    for (; k <= end; k += WIDTH) {
        __asm__("" : "+m"(factor)); /* else the compiler keeps a copy of each in every lane */
        vec w[GROUP];
        for (int g = 0; g < depth; g++) {
            w[g] = load(weight + g * pitch * size, k);
            if (rows > 1 || size < 4) __builtin_prefetch(weight + ((g + depth) * pitch + k) * size);
        }
        for (int r = 0; r < rows; r++) {
            vec sum = vec_mul(vec_all(factor[r][0]), w[0]);
            for (int g = 1; g < depth; g++) sum = vec_fma(vec_all(factor[r][g]), w[g], sum);
            vec_store(y + r * stride + k, vec_add(vec_load(y + r * stride + k), sum));
        }
    }
    if (k >= columns) return;
    char tail[GROUP][WIDTH * sizeof(float)];
    memset(tail, 0, sizeof tail);
    for (int g = 0; g < depth; g++)
        memcpy(tail[g], weight + (g * pitch + k) * size, (size_t)((columns - k) * size));
    for (int r = 0; r < rows; r++) {
        vec sum = vec_mul(vec_all(factor[r][0]), load(tail[0], 0));
        for (int g = 1; g < depth; g++) sum = vec_fma(vec_all(factor[r][g]), load(tail[g], 0), sum);
        vec_store(y + r * stride + k, vec_add(vec_load(y + r * stride + k), sum));
    }
}

/* Adds the products of the first `hidden` units, a multiple of GROUP, to `count` vectors of columns.
 * The sums stay in registers. */
INLINE void add_tile(const char *weight, int64_t size, int64_t pitch, load_function *load,
                     const float *const *x, const int rows, const int count, int64_t hidden,
                     int64_t stride, float *y) {
    vec total[TILE_ROWS][TILE_VECTORS];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < count; c++) total[r][c] = vec_load(y + r * stride + c * WIDTH);
    for (int64_t h = 0; h < hidden; h += GROUP) {
        vec sum[TILE_ROWS][TILE_VECTORS];
        for (int g = 0; g < GROUP; g++) {
            vec w[TILE_VECTORS];
            for (int c = 0; c < count; c++) w[c] = load(weight + (h + g) * pitch * size, c * WIDTH);
            for (int r = 0; r < rows; r++)
                for (int c = 0; c < count; c++)
                    sum[r][c] = g ? vec_fma(vec_all(x[r][h + g]), w[c], sum[r][c])
                                  : vec_mul(vec_all(x[r][h + g]), w[c]);
        }
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < count; c++) total[r][c] = vec_add(total[r][c], sum[r][c]);
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < count; c++) vec_store(y + r * stride + c * WIDTH, total[r][c]);
}

/* The same for all columns. Numbers behind the last one go to columns that are not used. */
INLINE void add_columns(const char *weight, int64_t size, int64_t pitch, load_function *load,
                        const float *const *x, int64_t hidden, int64_t columns, int64_t stride,
                        float *y) {
    int64_t k = 0;
    for (; k + (TILE_VECTORS - 1) * WIDTH < columns; k += TILE_VECTORS * WIDTH)
        for (int r = 0; r < MAX_ROWS; r += TILE_ROWS)
            add_tile(weight + k * size, size, pitch, load, x + r, TILE_ROWS, TILE_VECTORS, hidden,
                     stride, y + r * stride + k);
    for (; k < columns; k += WIDTH)
        for (int r = 0; r < MAX_ROWS; r += TILE_ROWS)
            add_tile(weight + k * size, size, pitch, load, x + r, TILE_ROWS, 1, hidden, stride,
                     y + r * stride + k);
}

/* Adds the products of up to MAX_ROWS hidden rows, from the unit `first` on, in one pass over the weight
 * in the order in which it lies. */
INLINE void stream(const char *weight, int64_t size, int64_t pitch, load_function *load,
                   const float *const *x, const int rows, int64_t first, int64_t hidden,
                   int64_t columns, int64_t stride, float *y) {
    int64_t h = first;
    for (; h + GROUP <= hidden; h += GROUP)
        add_group(weight + h * pitch * size, size, pitch, load, x, rows, h, GROUP,
                  h + GROUP == hidden, columns, stride, y);
    if (h < hidden)
        add_group(weight + h * pitch * size, size, pitch, load, x, rows, h, (int)(hidden - h), 1,
                  columns, stride, y);
}

/* The same for MAX_ROWS rows and a weight that is in cache, in any order. */
INLINE void multiply_cached(const char *weight, int64_t size, int64_t pitch, load_function *load,
                            const float *const *x, int64_t hidden, int64_t columns, int64_t stride,
                            float *y) {
    const int64_t tiled = pitch < WIDTH ? 0 : (hidden - 1) / GROUP * GROUP; /* but the last group */
    if (tiled) add_columns(weight, size, pitch, load, x, tiled, columns, stride, y);
    stream(weight, size, pitch, load, x, MAX_ROWS, tiled, hidden, columns, stride, y);
}

/* Adds the products of any number of hidden rows. The first ones bring the weight into the cache. */
INLINE void transposed(const void *weight, int64_t size, int64_t pitch, load_function *load,
                       const float *const *x, int rows, int64_t hidden, int64_t columns,
                       int64_t stride, float *y) {
    for (int r = 0; r < rows; r += MAX_ROWS, x += MAX_ROWS, y += MAX_ROWS * stride) {
        if (r && rows - r >= MAX_ROWS) {
            multiply_cached(weight, size, pitch, load, x, hidden, columns, stride, y);
            continue;
        }
        switch (rows - r) {
            case 1: stream(weight, size, pitch, load, x, 1, 0, hidden, columns, stride, y); break;
            case 2: stream(weight, size, pitch, load, x, 2, 0, hidden, columns, stride, y); break;
            case 3: stream(weight, size, pitch, load, x, 3, 0, hidden, columns, stride, y); break;
            case 4: stream(weight, size, pitch, load, x, 4, 0, hidden, columns, stride, y); break;
            case 5: stream(weight, size, pitch, load, x, 5, 0, hidden, columns, stride, y); break;
            case 6: stream(weight, size, pitch, load, x, 6, 0, hidden, columns, stride, y); break;
            case 7: stream(weight, size, pitch, load, x, 7, 0, hidden, columns, stride, y); break;
            default: stream(weight, size, pitch, load, x, 8, 0, hidden, columns, stride, y);
        }
    }
}

/* Adds the products of `rows` hidden rows with four rows of the weight. With several hidden rows,
 * the parts of the 16 lanes run one after another, so that all sums stay in registers. The first
 * hidden rows fetch the next four rows of the weight. */
INLINE void add_four_dots(const char *weight, int64_t size, load_function *load,
                          const float *const *x, const int rows, const int is_first,
                          int64_t hidden, int64_t stride, float *y) {
    const int parts = rows > 1 ? 1 : PARTS; /* that run at once */
    const int64_t whole = hidden / LANES * LANES;
    float rest[DOT_ROWS][LANES];
    char tail[4][LANES * sizeof(float)];
    vec sums[DOT_ROWS][4][PARTS];
    if (whole < hidden) {
        memset(tail, 0, sizeof tail);
        memset(rest, 0, sizeof rest);
        for (int c = 0; c < 4; c++)
            memcpy(tail[c], weight + (c * hidden + whole) * size, (size_t)((hidden - whole) * size));
        for (int r = 0; r < rows; r++)
            memcpy(rest[r], x[r] + whole, (size_t)(hidden - whole) * sizeof(float));
    }
    for (int first = 0; first < PARTS; first += parts) {
        vec sum[DOT_ROWS][4][PARTS];
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < 4; c++)
                for (int p = 0; p < parts; p++) sum[r][c][p] = vec_all(0.0f);
        for (int64_t h = first * WIDTH; h < whole; h += LANES)
            for (int p = 0; p < parts; p++) {
                vec v[DOT_ROWS];
                for (int r = 0; r < rows; r++) v[r] = vec_load(x[r] + h + p * WIDTH);
                for (int c = 0; c < 4; c++) {
                    vec w = load(weight + c * hidden * size, h + p * WIDTH);
                    if (is_first && p + first == 0)
                        __builtin_prefetch(weight + ((4 + c) * hidden + h) * size);
                    for (int r = 0; r < rows; r++) sum[r][c][p] = vec_fma(w, v[r], sum[r][c][p]);
                }
            }
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < 4; c++)
                for (int p = 0; p < parts; p++) {
                    const int64_t lane = (first + p) * WIDTH;
                    if (whole < hidden)
                        sum[r][c][p] =
                            vec_fma(load(tail[c], lane), vec_load(rest[r] + lane), sum[r][c][p]);
                    sums[r][c][first + p] = sum[r][c][p];
                }
    }
    for (int r = 0; r < rows; r++) add_four_sums(sums[r], y + r * stride);
}

/* Adds the product of one hidden row with one row of the weight. */
INLINE void add_dot(const char *weight, int64_t size, load_function *load, const float *x,
                    int64_t hidden, float *y) {
    vec sum[PARTS];
    int64_t h = 0;
    for (int p = 0; p < PARTS; p++) sum[p] = vec_all(0.0f);
    for (; h + LANES <= hidden; h += LANES)
        for (int p = 0; p < PARTS; p++)
            sum[p] = vec_fma(load(weight, h + p * WIDTH), vec_load(x + h + p * WIDTH), sum[p]);
    if (h < hidden) {
        float rest[LANES] = {0};
        char tail[LANES * sizeof(float)] = {0};
        memcpy(rest, x + h, (size_t)(hidden - h) * sizeof(float));
        memcpy(tail, weight + h * size, (size_t)((hidden - h) * size));
        for (int p = 0; p < PARTS; p++)
            sum[p] = vec_fma(load(tail, p * WIDTH), vec_load(rest + p * WIDTH), sum[p]);
    }
    *y += sum_lanes(sum);
}

INLINE void row_major(const void *weight, int64_t size, load_function *load, const float *const *x,
                      int rows, int64_t hidden, int64_t columns, int64_t stride, float *y) {
    const char *w = weight;
    int64_t k = 0;
    for (; k + 4 <= columns; k += 4, w += 4 * hidden * size) { /* the four rows stay in cache */
        int r = 0;
        for (; r + DOT_ROWS <= rows; r += DOT_ROWS) {
            if (r)
                add_four_dots(w, size, load, x + r, DOT_ROWS, 0, hidden, stride, y + r * stride + k);
            else
                add_four_dots(w, size, load, x, DOT_ROWS, 1, hidden, stride, y + k);
        }
        if (r + 2 <= rows && DOT_ROWS > 2) {
            add_four_dots(w, size, load, x + r, 2, 1, hidden, stride, y + r * stride + k);
            r += 2;
        }
        if (r < rows)
            add_four_dots(w, size, load, x + r, 1, 1, hidden, stride, y + r * stride + k);
    }
    for (; k < columns; k++, w += hidden * size)
        for (int r = 0; r < rows; r++)
            add_dot(w, size, load, x[r], hidden, y + r * stride + k);
}

#define DEFINE(TYPE, SIZE)                                                                         \
    static void transposed_##TYPE(const void *weight, int64_t pitch, const float *const *x,        \
                                  int rows, int64_t hidden, int64_t columns, int64_t stride,       \
                                  float *y) {                                                      \
        transposed(weight, SIZE, pitch, load_##TYPE, x, rows, hidden, columns, stride, y);         \
    }                                                                                              \
    static void row_major_##TYPE(const void *weight, const float *const *x, int rows,              \
                                 int64_t hidden, int64_t columns, int64_t stride, float *y) {      \
        row_major(weight, SIZE, load_##TYPE, x, rows, hidden, columns, stride, y);                 \
    }

DEFINE(f32, 4)
DEFINE(f16, 2)
DEFINE(i8, 1)
DEFINE(bf16, 2)

/* Natural logarithm of a number of at least 1, without a library whose bits could differ. */
static double log_at_least_1(double x) {
    int exponent;
    double m = frexp(x, &exponent); /* 0.5 <= m < 1 */
    if (m < 0.70710678118654752) {
        m *= 2;
        exponent--;
    }
    double s = (m - 1) / (m + 1), z = s * s, sum = 0; /* log m = 2 atanh(s), |s| < 0.172 */
    for (int i = 21; i >= 1; i -= 2) sum = sum * z + 1.0 / i;
    return 2 * s * sum + exponent * 0.69314718055994530942;
}

static double log_sum_exp(float *y, int64_t size) {
    int64_t padded = (size + LANES - 1) / LANES * LANES;
    for (int64_t k = size; k < padded; k++) y[k] = -INFINITY;
    vec largest = vec_load(y);
    for (int64_t k = WIDTH; k < padded; k += WIDTH) largest = vec_max(largest, vec_load(y + k));
    float lane[WIDTH], max;
    vec_store(lane, largest);
    max = lane[0];
    for (int i = 1; i < WIDTH; i++) max = lane[i] > max ? lane[i] : max;
    vec sum[PARTS];
    for (int p = 0; p < PARTS; p++) sum[p] = vec_all(0.0f);
    for (int64_t k = 0; k < padded; k += LANES)
        for (int p = 0; p < PARTS; p++)
            sum[p] = vec_add(sum[p],
                             vec_exp(vec_sub(vec_load(y + k + p * WIDTH), vec_all(max))));
    float total = sum_lanes(sum);
    return total >= 1 ? max + log_at_least_1(total) : NAN;
}

static void exps(float *y, int64_t size, float largest) {
    for (int64_t i = 0; i < size; i += WIDTH)
        vec_store(y + i, vec_exp(vec_sub(vec_load(y + i), vec_all(largest))));
}

static void scale_all(float *y, const float *scale, const float *bias, int64_t size) {
    for (int64_t i = 0; i < size; i += WIDTH) {
        const int rest = size - i < WIDTH ? (int)(size - i) : WIDTH;
        vec b = bias ? vec_load_some(bias + i, rest) : vec_all(0.0f);
        vec_store(y + i, vec_fma(vec_load(y + i), vec_load_some(scale + i, rest), b));
    }
}

/* The first `count` numbers of a weight from an index on, then zeros. */
typedef vec load_some_function(const void *weight, int64_t index, int count);

INLINE vec load_some_f32(const void *weight, int64_t index, int count) {
    return vec_load_some((const float *)weight + index, count);
}

INLINE vec load_some_f16(const void *weight, int64_t index, int count) {
    return vec_load_some_half((const uint16_t *)weight + index, count);
}
INLINE vec load_some_bf16(const void *weight, int64_t index, int count) {
    return vec_load_some_bfloat((const uint16_t *)weight + index, count);
}
INLINE vec load_some_i8(const void *weight, int64_t index, int count) {
    return vec_load_some_byte((const int8_t *)weight + index, count);
}

/* The products of x with `count` rows, up to 4, which may lie anywhere. */
INLINE void four_dots(load_function *load, load_some_function *load_some, const float *x,
                      const void *const *rows, const int count, int64_t size, float *y) {
    vec sum[4][PARTS];
    for (int c = 0; c < count; c++)
        for (int p = 0; p < PARTS; p++) sum[c][p] = vec_all(0.0f);
    int64_t h = 0;
    for (; h + LANES <= size; h += LANES)
        for (int p = 0; p < PARTS; p++) {
            vec v = vec_load(x + h + p * WIDTH);
            for (int c = 0; c < count; c++)
                sum[c][p] = vec_fma(load(rows[c], h + p * WIDTH), v, sum[c][p]);
        }
    for (int p = 0; h < size; p++, h += WIDTH) {
        const int rest = size - h < WIDTH ? (int)(size - h) : WIDTH;
        vec v = vec_load_some(x + h, rest);
        for (int c = 0; c < count; c++)
            sum[c][p] = vec_fma(load_some(rows[c], h, rest), v, sum[c][p]);
    }
    for (int c = 0; c < count; c++) y[c] = sum_lanes(sum[c]);
}

INLINE void dots(load_function *load, load_some_function *load_some, const float *x,
                 const void *const *rows, int count, int64_t size, float *y) {
    int i = 0;
    for (; i + 4 <= count; i += 4) four_dots(load, load_some, x, rows + i, 4, size, y + i);
    for (; i < count; i++) four_dots(load, load_some, x, rows + i, 1, size, y + i);
}

#define DEFINE_DOTS(TYPE)                                                                          \
    static void dots_##TYPE(const float *x, const void *const *rows, int count, int64_t size,      \
                            float *y) {                                                            \
        dots(load_##TYPE, load_some_##TYPE, x, rows, count, size, y);                              \
    }

DEFINE_DOTS(f32)
DEFINE_DOTS(f16)
DEFINE_DOTS(i8)
DEFINE_DOTS(bf16)

static void log_sigmoids(float *z, int64_t size) {
    for (int64_t i = 0; i < size; i += WIDTH) vec_store(z + i, vec_log_sigmoid(vec_load(z + i)));
}

/* log sigmoid(-z) and log sigmoid(z) */
static void log_branches(float z, float *negative, float *positive) {
    float lane[WIDTH];
    vec_store(lane, vec_log_sigmoid(vec_all(z)));
    *positive = lane[0];
    vec_store(lane, vec_log_sigmoid(vec_all(-z)));
    *negative = lane[0];
}

#define NAMED(SET) const kernel_set SET = {TEXT(INSTRUCTION_SET),                                  \
    {transposed_f32, transposed_f16, transposed_i8, transposed_bf16},                              \
    {row_major_f32, row_major_f16, row_major_i8, row_major_bf16},                                  \
    log_sum_exp, exps, scale_all,                                                                  \
    {dots_f32, dots_f16, dots_i8, dots_bf16},                                                      \
    log_sigmoids, log_branches}
#define TEXT(NAME) TEXT_OF(NAME)
#define TEXT_OF(NAME) #NAME
#define JOIN(A, B) JOIN_OF(A, B)
#define JOIN_OF(A, B) A##B
NAMED(JOIN(kernels_, INSTRUCTION_SET));
