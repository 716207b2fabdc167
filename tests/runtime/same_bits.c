/* Runs every task of every family and weight type on numbers of its own, and prints a hash of the bits
 * of each result. `same_bits SET` uses the instruction set SET; all sets must print the same lines. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hsoftmax.h"

enum { BATCH = 9, PAIRS = 40, K = 5, SAMPLES = 4, WIDTH = 37, DEPTH = 6 };

static uint64_t state = 1;

static uint32_t next(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 33);
}

static float *floats(int64_t count, float scale) {
    float *numbers = malloc((size_t)count * sizeof(float));
    for (int64_t i = 0; i < count; i++)
        numbers[i] = scale * ((float)(next() % 20001) - 10000) / 10000;
    return numbers;
}

/* A weight of numbers up to about 1, and up to 127 in int8. */
static void *weight_of(int32_t type, int64_t count) {
    if (type == HSOFTMAX_F32) return floats(count, 1);
    uint16_t *halves = malloc((size_t)count * sizeof(uint16_t));
    for (int64_t i = 0; i < count; i++) {
        const uint32_t number = next();
        const uint32_t sign = (number & 1) << 15, spread = (number >> 1) % 5;
        if (type == HSOFTMAX_I8) ((int8_t *)halves)[i] = (int8_t)(number % 255 - 127);
        else if (type == HSOFTMAX_F16) halves[i] = (uint16_t)(sign | (10 + spread) << 10 | (number >> 8 & 1023));
        else halves[i] = (uint16_t)(sign | (122 + spread) << 7 | (number >> 8 & 127));
    }
    return halves;
}

static uint64_t hash_of(const void *bytes, size_t size, uint64_t hash) {
    for (size_t i = 0; i < size; i++) hash = (hash ^ ((const uint8_t *)bytes)[i]) * 1099511628211u;
    return hash;
}

static float log_prob[PAIRS + BATCH * K];
static int64_t row[PAIRS], target[PAIRS], found[BATCH * K], opened[BATCH];
static uint8_t exact[BATCH];
static float *hidden, *noise;

static void draw_pairs(int64_t targets) {
    hidden = floats(BATCH * WIDTH, 1);
    noise = malloc(BATCH * SAMPLES * 2 * sizeof(float));
    for (int i = 0; i < BATCH * SAMPLES * 2; i++) noise[i] = (float)(next() % 10000) / 10000;
    for (int i = 0; i < PAIRS; i++) {
        row[i] = next() % BATCH;
        target[i] = next() % targets;
    }
}

static void print(const char *family, const char *task, int32_t type, int status, int64_t results) {
    uint64_t hash = hash_of(log_prob, (size_t)results * sizeof(float), 14695981039346656037u);
    if (results != PAIRS) hash = hash_of(found, (size_t)results * sizeof(int64_t), hash);
    printf("%s %s %d: status %d, %016llx\n", family, task, type, status, (unsigned long long)hash);
}

#define RUN(FAMILY, MODEL)                                                                         \
    print(#FAMILY, "target_log_prob", type,                                                        \
          hsoftmax_##FAMILY##_target_log_prob(MODEL, hidden, BATCH, row, target, PAIRS, NULL, NULL, \
                                              log_prob), PAIRS);                                   \
    print(#FAMILY, "top_k", type,                                                                  \
          hsoftmax_##FAMILY##_top_k(MODEL, hidden, BATCH, K, 0, NULL, NULL, log_prob, found,       \
                                    opened, exact), BATCH * K)

#define RUN_SAMPLE(FAMILY, MODEL)                                                                  \
    print(#FAMILY, "sample", type,                                                                 \
          hsoftmax_##FAMILY##_sample(MODEL, hidden, BATCH, noise, SAMPLES, NULL, NULL, found,      \
                                     log_prob), BATCH * SAMPLES)

/* Two levels: 7 blocks of 30 rows, or of 27 to 33 rows. */
static void run_levels(int32_t type, int is_equal) {
    int64_t top[] = {0, 7}, offsets[8] = {0};
    for (int b = 0; b < 7; b++) offsets[b + 1] = offsets[b] + (is_equal ? 30 : 27 + b);
    const hsoftmax_level levels[] = {
        {weight_of(type, 7 * WIDTH), floats(7, 0.02f), floats(7, 1), top, 7, 1, 7, type},
        {weight_of(type, 210 * WIDTH), floats(210, 0.02f), floats(210, 1), offsets, 210, 7,
         is_equal ? 30 : 0, type},
    };
    const hsoftmax_levels model = {levels, NULL, NULL, NULL, 2, 210, WIDTH};
    draw_pairs(210);
    RUN(levels, &model);
    RUN_SAMPLE(levels, &model);
}

/* A full tree of 64 targets: node n has the children 2 n + 1 and 2 n + 2. */
static void run_tree(int32_t type) {
    static int32_t path[64 * DEPTH], children[63 * 2];
    static int8_t sign[64 * DEPTH];
    for (int t = 0; t < 64; t++)
        for (int d = 0, node = 0; d < DEPTH; d++) {
            const int bit = t >> (DEPTH - 1 - d) & 1;
            path[t * DEPTH + d] = node;
            sign[t * DEPTH + d] = (int8_t)(2 * bit - 1);
            children[2 * node + bit] = d + 1 < DEPTH ? 2 * node + 1 + bit : -1 - t;
            node = 2 * node + 1 + bit;
        }
    for (int has_bias = 0; has_bias < 2; has_bias++) {
        const hsoftmax_tree tree = {weight_of(type, 63 * WIDTH), floats(63, 0.02f),
                                    has_bias ? floats(63, 1) : NULL,
                                    path, sign, children, 63, 64, DEPTH, WIDTH, 0, type};
        draw_pairs(64);
        RUN(tree, &tree);
    }
}

/* A shortlist of 20 targets, a tail of 50 with a projection, and one of 33 without. */
static void run_adaptive(int32_t type) {
    const hsoftmax_layer layers[] = {
        {weight_of(type, 22 * WIDTH), floats(22, 0.02f), floats(22, 1), NULL, 22, WIDTH, type},
        {weight_of(type, 50 * 11), floats(50, 0.02f), NULL, floats(11 * WIDTH, 1), 50, 11, type},
        {weight_of(type, 33 * WIDTH), floats(33, 0.02f), NULL, NULL, 33, WIDTH, type},
    };
    const hsoftmax_adaptive model = {layers, 3, WIDTH};
    draw_pairs(103);
    RUN(adaptive, &model);
    RUN_SAMPLE(adaptive, &model);
}

int main(int count, char **arguments) {
    if (count != 2 || !hsoftmax_use(arguments[1])) return 1;
    for (int32_t type = HSOFTMAX_F32; type <= HSOFTMAX_BF16; type++) {
        run_levels(type, 1);
        run_levels(type, 0);
        run_tree(type);
        run_adaptive(type);
    }
    return 0;
}
