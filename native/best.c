/* Heaps of candidates, and the k best results of a row.
 *
 * Results are compared as the floats that they become, so that equal results stand in the order of
 * their targets. */
#include "best.h"

#include <math.h>
#include <stdlib.h>

int is_likelier(const candidate *a, const candidate *b) {
    return a->log_prob > b->log_prob || (a->log_prob == b->log_prob && a->at < b->at);
}

int is_worse(const candidate *a, const candidate *b) { return is_likelier(b, a); }

/* Puts an item into the gap at `i`, or below it. */
static void sift_down(heap *heap, int64_t i, candidate item) {
    for (int64_t child; (child = 2 * i + 1) < heap->size; i = child) {
        if (child + 1 < heap->size && heap->is_above(&heap->items[child + 1], &heap->items[child]))
            child++;
        if (!heap->is_above(&heap->items[child], &item)) break;
        heap->items[i] = heap->items[child];
    }
    heap->items[i] = item;
}

int heap_push(heap *heap, candidate item) {
    if (heap->size == heap->room) {
        const int64_t room = heap->room ? 2 * heap->room : 64;
        candidate *items = realloc(heap->items, (size_t)room * sizeof(candidate));
        if (!items) return 0;
        heap->items = items;
        heap->room = room;
    }
    int64_t i = heap->size++;
    for (; i && heap->is_above(&item, &heap->items[(i - 1) / 2]); i = (i - 1) / 2)
        heap->items[i] = heap->items[(i - 1) / 2];
    heap->items[i] = item;
    return 1;
}

candidate heap_pop(heap *heap) {
    const candidate top = heap->items[0];
    heap->size--;
    if (heap->size) sift_down(heap, 0, heap->items[heap->size]);
    return top;
}

void heap_build(heap *heap) {
    for (int64_t i = heap->size / 2 - 1; i >= 0; i--) sift_down(heap, i, heap->items[i]);
}

int is_hopeless(const best_k *best, double bound) {
    return best->heap.size == best->k &&
           (float)(bound + best->slack) < best->heap.items[0].log_prob;
}

int add_leaf(best_k *best, candidate leaf) {
    leaf.log_prob = (float)leaf.log_prob;
    if (isnan(leaf.log_prob)) return 1;
    if (best->heap.size < best->k) return heap_push(&best->heap, leaf);
    if (is_likelier(&leaf, &best->heap.items[0])) sift_down(&best->heap, 0, leaf);
    return 1;
}

void take_results(best_k *best, float *log_prob, int64_t *target) {
    for (int64_t i = best->k - 1; i >= best->heap.size; i--) {
        log_prob[i] = NAN;
        target[i] = 0;
    }
    while (best->heap.size) {
        const int64_t last = best->heap.size - 1;
        const candidate worst = heap_pop(&best->heap);
        log_prob[last] = (float)worst.log_prob;
        target[last] = worst.at;
    }
}
