/* Native kernels of hsoftmax: log-probabilities from weights where they lie in memory.
 *
 * All arrays are in C order. No function writes to its inputs, keeps a pointer, or has a state, so
 * any number of threads may call them. Each checks every size, index and pointer; on an error it
 * returns a code and its outputs are undefined.
 *
 * `stop`, or null: a number that ends the call soon after another thread sets it.
 * `free_threads`, or null for one thread: how many threads the calls that share this number may still
 * use. A call uses some, its own among them, until it returns. Results do not depend on it. top_k of
 * a hierarchical softmax and both tasks of a tree use one thread, whatever the number.
 *
 * Each task has the same arguments for all families. */
#ifndef HSOFTMAX_H
#define HSOFTMAX_H

#include <stdint.h>

#define HSOFTMAX_ABI 4

enum {
    HSOFTMAX_OK = 0,
    HSOFTMAX_STOPPED = 1,       /* the stop flag was set */
    HSOFTMAX_NO_MEMORY = 2,
    HSOFTMAX_BAD_ARGUMENT = 3,  /* a size below its minimum, or a null pointer */
    HSOFTMAX_BAD_ROW = 4,       /* outside 0..batch - 1 */
    HSOFTMAX_BAD_TARGET = 5,    /* outside 0..num_targets - 1 */
    HSOFTMAX_BAD_MODEL = 6      /* offsets, target rows or nodes that do not fit the model */
};

/* Types of a weight. A row of int8 stands for its numbers times the row's scale. */
enum { HSOFTMAX_F32 = 0, HSOFTMAX_F16 = 1, HSOFTMAX_I8 = 2, HSOFTMAX_BF16 = 3 };

/* One level of a hierarchical softmax: rows in blocks, each with a softmax of its own. */
typedef struct {
    const void *weight; /* [blocks, hidden_size, block_size], or [rows, hidden_size] */
    const float *scale; /* [rows] of an int8 weight, else null */
    const float *bias;  /* [rows] */
    const int64_t *offsets; /* [blocks + 1]: block b is rows offsets[b] to offsets[b + 1] */
    int64_t rows, blocks;
    int64_t block_size; /* of a weight [blocks, hidden_size, block_size], else 0 */
    int32_t weight_type;
} hsoftmax_level;

typedef struct {
    const hsoftmax_level *levels;
    const int64_t *target_rows; /* [num_targets] rows of the last level; null: target t is row t */
    const int64_t *row_target;  /* [rows of the last level] target of each row, num_targets for
                                   padding; null: row t is target t */
    const float *const *alive;  /* for each level [rows], 0 for the rows that `sample` may draw, -inf
                                   for the others; null: all may be drawn */
    int64_t num_levels, num_targets, hidden_size;
} hsoftmax_levels;

/* A softmax over a binary tree: each inner node has a weight, each leaf is a target. */
typedef struct {
    const void *weight;      /* [nodes, hidden_size] */
    const float *scale;      /* [nodes] of an int8 weight, else null */
    const float *bias;       /* [nodes], or null */
    const int32_t *path;     /* [targets, depth] nodes from the root to each leaf */
    const int8_t *sign;      /* [targets, depth] +1 or -1: the branch; 0 after the last step */
    const int32_t *children; /* [nodes, 2] on branches -1 and +1; the leaf of target t is -1 - t */
    int64_t nodes, targets, depth, hidden_size;
    double epsilon; /* added to each sigmoid: 0, or 1e-5 for the scores of fastText */
    int32_t weight_type;
} hsoftmax_tree;

/* A layer of an adaptive softmax: logits = weight @ (projection @ hidden) + bias. */
typedef struct {
    const void *weight;      /* [rows, width]; not read where the width is 0 */
    const float *scale;      /* [rows] of an int8 weight, else null */
    const float *bias;       /* [rows], or null */
    const float *projection; /* [width, hidden_size]; null where the width is 0 or the hidden size */
    int64_t rows, width;
    int32_t weight_type;
} hsoftmax_layer;

/* The rows of the head are the shortlist of targets, then one row for each tail; the targets of the
 * tails follow, in order. */
typedef struct {
    const hsoftmax_layer *layers; /* the head, then the tails */
    int64_t num_layers, hidden_size;
} hsoftmax_adaptive;

int32_t hsoftmax_abi(void);

/* "avx512", "avx2" or "neon": the instructions that are used; null if this CPU has none of them. */
const char *hsoftmax_instruction_set(void);

/* Uses this set from now on, for tests. Returns 0 if this CPU or this build does not have it. */
int32_t hsoftmax_use(const char *instruction_set);

/* log_prob[i] = log p(target[i] | hidden[row[i]]), [pairs]; hidden is [batch, hidden_size]. */
int32_t hsoftmax_levels_target_log_prob(const hsoftmax_levels *model, const float *hidden,
                                        int64_t batch, const int64_t *row, const int64_t *target,
                                        int64_t pairs, const volatile int32_t *stop,
                                        int32_t *free_threads, float *log_prob);
int32_t hsoftmax_tree_target_log_prob(const hsoftmax_tree *tree, const float *hidden, int64_t batch,
                                      const int64_t *row, const int64_t *target, int64_t pairs,
                                      const volatile int32_t *stop, int32_t *free_threads,
                                      float *log_prob);
int32_t hsoftmax_adaptive_target_log_prob(const hsoftmax_adaptive *model, const float *hidden,
                                          int64_t batch, const int64_t *row, const int64_t *target,
                                          int64_t pairs, const volatile int32_t *stop,
                                          int32_t *free_threads, float *log_prob);

/* The k likeliest targets of each row in descending order, ties to the lower target: log_prob and
 * target [batch, k], the blocks of the last level, nodes or tails that were opened [batch], and 1
 * where the result is proven exact [batch]. A row opens at most max_opened of them, but more until it
 * has k targets; 0 is no limit. */
int32_t hsoftmax_levels_top_k(const hsoftmax_levels *model, const float *hidden, int64_t batch,
                              int64_t k, int64_t max_opened, const volatile int32_t *stop,
                              int32_t *free_threads, float *log_prob, int64_t *target,
                              int64_t *opened, uint8_t *exact);
int32_t hsoftmax_tree_top_k(const hsoftmax_tree *tree, const float *hidden, int64_t batch, int64_t k,
                            int64_t max_opened, const volatile int32_t *stop, int32_t *free_threads,
                            float *log_prob, int64_t *target, int64_t *opened, uint8_t *exact);
int32_t hsoftmax_adaptive_top_k(const hsoftmax_adaptive *model, const float *hidden, int64_t batch,
                                int64_t k, int64_t max_opened, const volatile int32_t *stop,
                                int32_t *free_threads, float *log_prob, int64_t *target,
                                int64_t *opened, uint8_t *exact);

/* Draws `samples` targets for each hidden row, [batch, samples], and their log p, from uniform numbers in
 * [0, 1): noise [batch, samples, steps], one for each level; for an adaptive softmax one for the
 * head and one for a tail. log_prob is NaN and target 0 where a logit is no finite number. */
int32_t hsoftmax_levels_sample(const hsoftmax_levels *model, const float *hidden, int64_t batch,
                               const float *noise, int64_t samples, const volatile int32_t *stop,
                               int32_t *free_threads, int64_t *target, float *log_prob);
int32_t hsoftmax_adaptive_sample(const hsoftmax_adaptive *model, const float *hidden, int64_t batch,
                                 const float *noise, int64_t samples, const volatile int32_t *stop,
                                 int32_t *free_threads, int64_t *target, float *log_prob);

/* What a supervised fastText model reads: its dictionary, its n-grams and its input matrix. */
typedef struct {
    const uint8_t *text;     /* the words, then the labels, one after another */
    const int64_t *offsets;  /* [entries + 1] the start of each in `text` */
    const int32_t *slots;    /* [num_slots] hash table by CRC-32: the number of an entry, or -1 */
    const int32_t *pruned_bucket, *pruned_row; /* [num_pruned] ascending buckets, and their rows */
    const int32_t *pruned_start; /* [pruned_ranges + 1] the first kept bucket of each range of
                                    2^pruned_shift buckets */
    const float *weight;     /* [rows, columns]; null: product-quantised, as below */
    const uint8_t *codes;    /* [rows, parts] */
    const float *centroids;  /* [parts, 256, part_size] */
    const uint8_t *norm_codes; /* [rows], or null */
    const float *norms;      /* [256], or null */
    int64_t text_size, entries, words, num_slots;
    int64_t num_pruned;      /* -1: all buckets are kept */
    int64_t pruned_ranges, pruned_shift;
    int64_t min_chars, max_chars, max_words, buckets;
    int64_t rows, columns, parts, part_size;
} hsoftmax_text;

/* hidden [lines, columns] of lines in UTF-8, line i of which ends before ends[i], and the number of
 * rows [lines] of which it is the mean; it is zeros where that is 0. */
int32_t hsoftmax_text_hidden(const hsoftmax_text *model, const uint8_t *text, const int64_t *ends,
                             int64_t lines, float *hidden, int64_t *counts);

#endif
