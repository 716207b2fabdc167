/* Heaps of candidates, and the k best results of a row. */
#ifndef HSOFTMAX_BEST_H
#define HSOFTMAX_BEST_H

#include <stdint.h>

/* A node or block that is not opened yet, or a leaf: `at` is its number or its target. */
typedef struct {
    double log_prob;
    int64_t at;
} candidate;

typedef struct {
    candidate *items;
    int64_t size, room;
    int (*is_above)(const candidate *, const candidate *);
} heap;

/* The k best leaves so far, the worst on top; `slack` is how much a leaf may exceed its bound. */
typedef struct {
    heap heap;
    int64_t k;
    double slack;
} best_k;

int is_likelier(const candidate *a, const candidate *b);
int is_worse(const candidate *a, const candidate *b);

/* Returns 0 if there is no memory. */
int heap_push(heap *heap, candidate item);
candidate heap_pop(heap *heap);

/* Puts the items of an unordered array in order. */
void heap_build(heap *heap);

/* True if nothing of this bound can be among the k best. */
int is_hopeless(const best_k *best, double bound);

/* Returns 0 if there is no memory. A NaN is left out. */
int add_leaf(best_k *best, candidate leaf);

/* Writes the results, the best first, and empties `best`. Results that are missing, because no
 * comparison could order them, are NaN. */
void take_results(best_k *best, float *log_prob, int64_t *target);

#endif
